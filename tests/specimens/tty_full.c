/*
 * Pseudo-terminals that hold as much as they can, in both directions: how much that is depends on the sizes
 * of the writes that brought it there, and all of it waits in order.
 */
#include "specimen.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <termios.h>

enum { MOST = 1 << 16 };

struct end {
	int to, from;
	size_t held;
};

/* Until nothing has been taken for a while: the line discipline takes its part when it comes to it. */
static size_t fill(int fd, size_t at_once, bool big_last)
{
	char bytes[2048];
	size_t total = 0;
	for (int refused = 0; refused < 20 && total < MOST;) {
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (char)('a' + (total + i) % 23);
		ssize_t n = write(fd, bytes, at_once);
		if (n > 0)
			total += (size_t)n;
		else
			refused++, sleep_ms(2);
		if (big_last && total >= 4096 + 31 * 512)
			at_once = 1792;
	}
	return total;
}

static size_t drain(int fd, bool *in_order)
{
	char bytes[4096];
	size_t total = 0;
	*in_order = true;
	for (struct pollfd p = { .fd = fd, .events = POLLIN }; poll(&p, 1, 100) == 1;) {
		ssize_t n = read(fd, bytes, sizeof(bytes));
		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++)
			*in_order &= bytes[i] == (char)('a' + (total + (size_t)i) % 23);
		total += (size_t)n;
	}
	return total;
}

int main(void)
{
	enum { KINDS = 5 };
	static const size_t at_once[KINDS] = { 11, 256, 1000, 1500, 2048 };
	struct end ends[2 * KINDS];
	for (int i = 0; i < KINDS; i++) {
		int master, slave;
		struct termios settings;
		MUST(openpty(&master, &slave, NULL, NULL, NULL));
		MUST(tcgetattr(slave, &settings));
		cfmakeraw(&settings);
		MUST(tcsetattr(slave, TCSANOW, &settings));
		MUST(fcntl(master, F_SETFL, O_NONBLOCK));
		MUST(fcntl(slave, F_SETFL, O_NONBLOCK));
		ends[2 * i] = (struct end){ .to = master, .from = slave };
		ends[2 * i + 1] = (struct end){ .to = slave, .from = master };
	}
	while (specimen_round()) {
		for (int i = 0; i < 2 * KINDS; i++)
			ends[i].held = fill(ends[i].to, at_once[i / 2], i / 2 == 1);
		specimen_ready();
		for (int i = 0; i < 2 * KINDS; i++) {
			bool in_order;
			expect_int("bytes", (long long)ends[i].held, (long long)drain(ends[i].from, &in_order));
			expect_int("in order", true, in_order);
		}
	}
	return specimen_end();
}
