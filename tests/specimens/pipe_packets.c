/*
 * Packets in pipes (O_DIRECT): each read takes one, also when packet mode has been switched off behind
 * them; what was written without it is one stream, to which more can be added.
 */
#include "specimen.h"

#include <fcntl.h>

static void put(int fd, const char *bytes, size_t n)
{
	MUST(write(fd, bytes, n) == (ssize_t)n ? 0 : -1);
}

static void expect_read(const char *what, int fd, int expected)
{
	char bytes[20000];
	expect_int(what, expected, (int)read(fd, bytes, sizeof(bytes)));
}

int main(void)
{
	static char large[8192] = "large";
	int packets[2], mixed[2], plain[2];
	MUST(pipe2(packets, O_DIRECT | O_NONBLOCK));
	MUST(pipe2(mixed, O_NONBLOCK));
	MUST(pipe2(plain, O_NONBLOCK));
	while (specimen_round()) {
		put(packets[1], "one", 3);
		put(packets[1], "three", 5);
		put(packets[1], large, 4096);
		put(mixed[1], large, sizeof(large));
		MUST(fcntl(mixed[1], F_SETFL, O_NONBLOCK | O_DIRECT));
		put(mixed[1], "packet", 6);
		put(mixed[1], "another one", 11);
		MUST(fcntl(mixed[1], F_SETFL, O_NONBLOCK));
		put(mixed[1], "AB", 2);
		put(plain[1], "ab", 2);
		specimen_ready();
		expect_int("packet mode of the first", O_DIRECT, fcntl(packets[1], F_GETFL) & O_DIRECT);
		expect_int("packet mode of the second", 0, fcntl(mixed[1], F_GETFL) & O_DIRECT);
		put(packets[1], "x", 1);
		put(mixed[1], "CD", 2);
		put(plain[1], "cd", 2);
		expect_read("a packet", packets[0], 3);
		expect_read("a packet", packets[0], 5);
		expect_read("a whole page", packets[0], 4096);
		expect_read("a packet written later", packets[0], 1);
		expect_read("none left", packets[0], -1);
		expect_read("a stream up to the end of a packet", mixed[0], (int)sizeof(large) + 6);
		expect_read("a packet after packet mode", mixed[0], 11);
		expect_read("a stream behind packets, added to", mixed[0], 4);
		expect_read("a stream, added to", plain[0], 4);
	}
	return specimen_end();
}
