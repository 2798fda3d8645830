/*
 * An epoll instance: what is registered with which events and data, what was
 * ready stays ready, a used-up EPOLLONESHOT stays silent until it is re-armed,
 * and one instance inside another still reports.
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int outer, inner, quiet[2], ready[2], used, edge[2], nested;

static void watch(int epoll, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event event = { .events = events, .data.u64 = data };
	MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}

/* The events reported for data, 0 if none. */
static uint32_t report(int epoll, uint64_t data, int timeout)
{
	struct epoll_event events[16];
	int n = epoll_wait(epoll, events, 16, timeout);
	for (int i = 0; i < n; i++)
		if (events[i].data.u64 == data)
			return events[i].events;
	return 0;
}

int main(void)
{
	uint64_t one = 1;
	char byte;
	outer = MUST(epoll_create1(EPOLL_CLOEXEC));
	inner = MUST(epoll_create1(0));
	MUST(pipe(quiet));
	MUST(pipe(ready));
	MUST(pipe2(edge, O_NONBLOCK));
	used = MUST(eventfd(1, 0));
	nested = MUST(eventfd(0, EFD_NONBLOCK));
	watch(outer, quiet[0], EPOLLIN, 0x1111111100000001u);
	watch(outer, ready[0], EPOLLIN | EPOLLRDHUP, 0x1111111100000002u);
	watch(outer, edge[0], EPOLLIN | EPOLLET, 0x1111111100000003u);
	watch(outer, used, EPOLLIN | EPOLLONESHOT, 0x1111111100000004u);
	watch(inner, nested, EPOLLIN, 5);
	watch(outer, inner, EPOLLIN, 6);

	while (specimen_round()) {
		struct epoll_event again = { .events = EPOLLIN | EPOLLONESHOT,
					     .data.u64 = 0x1111111100000004u };
		MUST(epoll_ctl(outer, EPOLL_CTL_MOD, used, &again));
		MUST(write(ready[1], "x", 1));
		expect_hex("one-shot, before", EPOLLIN, report(outer, 0x1111111100000004u, 0));
		specimen_ready();
		expect_hex("what was ready", EPOLLIN, report(outer, 0x1111111100000002u, 0));
		expect_hex("what was not", 0, report(outer, 0x1111111100000001u, 0));
		expect_hex("the used-up one-shot", 0, report(outer, 0x1111111100000004u, 0));
		expect_ok("re-arming it", epoll_ctl(outer, EPOLL_CTL_MOD, used, &again));
		expect_hex("it reports again", EPOLLIN, report(outer, 0x1111111100000004u, 0));

		MUST(write(quiet[1], "x", 1));
		expect_hex("it becomes ready", EPOLLIN, report(outer, 0x1111111100000001u, 0));
		MUST(write(edge[1], "x", 1));
		expect_hex("edge-triggered: once", EPOLLIN, report(outer, 0x1111111100000003u, 0));
		expect_hex("and not again", 0, report(outer, 0x1111111100000003u, 0));
		MUST(write(nested, &one, 8));
		expect_hex("the inner instance", EPOLLIN, report(outer, 6, 0));
		expect_hex("what it reports", EPOLLIN, report(inner, 5, 0));
		struct epoll_event add = { .events = EPOLLIN };
		expect_errno("adding again", EEXIST,
			     epoll_ctl(outer, EPOLL_CTL_ADD, quiet[0], &add));

		MUST(read(ready[0], &byte, 1));
		MUST(read(quiet[0], &byte, 1));
		MUST(read(edge[0], &byte, 1));
		MUST(read(nested, &one, 8));
		one = 1;
	}
	return specimen_end();
}
