/*
 * What an epoll instance has told already and what it is still to tell: an edge-triggered watch that
 * was told is silent until something new happens, one that was not is told, and reports come in the
 * order they had. A watch whose descriptor was closed goes on through the other one; two instances
 * that wait exclusively both still do; parameters of busy polling are kept.
 */
#include "specimen.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

struct params {
	uint32_t usecs;
	uint16_t budget;
	uint8_t prefer, pad;
};
#define SET_PARAMS _IOW(0x8a, 1, struct params)
#define GET_PARAMS _IOR(0x8a, 2, struct params)

enum { PIPES = 6 };
static int outer, inner, edge[PIPES][2];

static void watch(int epoll, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event event = { .events = events, .data.u64 = data };
	MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}

/* The data of all that is reported, as text. */
static const char *reports(int epoll, char *text, size_t size)
{
	struct epoll_event events[16];
	int n = epoll_wait(epoll, events, 16, 0);
	text[0] = '\0';
	for (int i = 0; i < n; i++)
		snprintf(text + strlen(text), size - strlen(text), "%llu ",
			 (unsigned long long)events[i].data.u64);
	return text;
}

static void drain(int fd)
{
	char bytes[64];
	while (read(fd, bytes, sizeof(bytes)) > 0)
		;
}

int main(void)
{
	char text[128];
	struct params params = { .usecs = 50, .budget = 8 }, seen = { 0 };
	outer = MUST(epoll_create1(0));
	inner = MUST(epoll_create1(0));
	for (int i = 0; i < PIPES; i++)
		MUST(pipe2(edge[i], O_NONBLOCK));
	for (int i = 0; i < 4; i++)
		watch(outer, edge[i][0], EPOLLIN | EPOLLET, (uint64_t)i);
	watch(inner, edge[4][0], EPOLLIN | EPOLLET | EPOLLONESHOT, 4);
	watch(outer, inner, EPOLLIN | EPOLLET, 10);
	bool has_params = ioctl(outer, SET_PARAMS, &params) == 0;

	/* Watched under a number that is closed: it is there as another one. */
	int watched = MUST(eventfd(0, EFD_NONBLOCK)), other = MUST(dup(watched));
	watch(outer, watched, EPOLLIN, 20);
	close(watched);
	MUST(open("/dev/null", O_RDONLY)); /* takes the number */

	int one = MUST(epoll_create1(0)), two = MUST(epoll_create1(0));
	watch(one, edge[5][0], EPOLLIN | EPOLLEXCLUSIVE, 31);
	watch(two, edge[5][0], EPOLLIN | EPOLLEXCLUSIVE, 32);

	while (specimen_round()) {
		struct epoll_event again = { .events = EPOLLIN | EPOLLET | EPOLLONESHOT, .data.u64 = 4 };
		uint64_t count = 1;
		for (int i = 0; i < PIPES; i++)
			drain(edge[i][0]);
		MUST(epoll_ctl(inner, EPOLL_CTL_MOD, edge[4][0], &again));
		reports(outer, text, sizeof(text));
		/* Told, but not read: 1 and 4, and that there is something in the inner instance. */
		MUST(write(edge[1][1], "x", 1));
		MUST(write(edge[4][1], "x", 1));
		expect_text("told before", "1 10 ", reports(outer, text, sizeof(text)));
		expect_text("inside", "4 ", reports(inner, text, sizeof(text)));
		/* Not told: 3, 0, 2, in this order. */
		MUST(write(edge[3][1], "x", 1));
		MUST(write(edge[0][1], "x", 1));
		MUST(write(edge[2][1], "x", 1));
		specimen_ready();
		expect_text("what is still to be told", "3 0 2 ", reports(outer, text, sizeof(text)));
		expect_text("and no more", "", reports(outer, text, sizeof(text)));
		expect_text("nor inside", "", reports(inner, text, sizeof(text)));
		MUST(write(edge[1][1], "y", 1));
		expect_text("something new", "1 ", reports(outer, text, sizeof(text)));
		expect_ok("arm the inner one-shot", epoll_ctl(inner, EPOLL_CTL_MOD, edge[4][0], &again));
		expect_text("tells that", "10 ", reports(outer, text, sizeof(text)));
		expect_text("and what", "4 ", reports(inner, text, sizeof(text)));
		MUST(write(other, &count, 8));
		expect_text("through the other descriptor", "20 ", reports(outer, text, sizeof(text)));
		MUST(read(other, &count, 8));
		MUST(write(edge[5][1], "x", 1));
		expect_text("exclusive, one", "31 ", reports(one, text, sizeof(text)));
		expect_text("exclusive, two", "32 ", reports(two, text, sizeof(text)));
		struct epoll_event modified = { .events = EPOLLIN };
		expect_errno("exclusive ones cannot be changed", EINVAL,
			     epoll_ctl(one, EPOLL_CTL_MOD, edge[5][0], &modified));
		if (has_params) {
			expect_ok("parameters", ioctl(outer, GET_PARAMS, &seen));
			expect_int("of busy polling: usecs", 50, seen.usecs);
			expect_int("budget", 8, seen.budget);
		}
	}
	return specimen_end();
}
