/*
 * Threads blocked in poll, ppoll, select, pselect and epoll_wait, some with a
 * long time limit: they wait on and report what happens then; one whose limit
 * runs out reports that. None of them ends with EINTR.
 *
 * harness: threads=8
 */
#include "specimen.h"

#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <time.h>

static int ready_fd, silent_fd, epoll;

static void *result_of(int result)
{
	return (void *)(intptr_t)(result < 0 ? -errno : result);
}

static void *in_poll(void *arg)
{
	(void)arg;
	struct pollfd p = { .fd = ready_fd, .events = POLLIN };
	return result_of(poll(&p, 1, -1));
}

static void *in_poll_long(void *arg)
{
	(void)arg;
	struct pollfd p = { .fd = ready_fd, .events = POLLIN };
	return result_of(poll(&p, 1, 60000));
}

static void *in_ppoll(void *arg)
{
	(void)arg;
	struct pollfd p = { .fd = ready_fd, .events = POLLIN };
	sigset_t mask;
	sigemptyset(&mask);
	struct timespec limit = { 60, 0 };
	return result_of(ppoll(&p, 1, &limit, &mask));
}

static void *in_select(void *arg)
{
	(void)arg;
	fd_set set;
	FD_ZERO(&set);
	FD_SET(ready_fd, &set);
	struct timeval limit = { 60, 0 };
	return result_of(select(ready_fd + 1, &set, NULL, NULL, &limit));
}

static void *in_epoll(void *arg)
{
	(void)arg;
	struct epoll_event event;
	int n = epoll_wait(epoll, &event, 1, -1);
	return n == 1 && event.data.u32 != 99 ? result_of(-2) : result_of(n);
}

static void *in_epoll_long(void *arg)
{
	(void)arg;
	struct epoll_event event;
	return result_of(epoll_wait(epoll, &event, 1, 60000));
}

static void *in_poll_short(void *arg)
{
	(void)arg;
	struct pollfd p = { .fd = silent_fd, .events = POLLIN };
	return result_of(poll(&p, 1, 500));
}

int main(void)
{
	static const struct {
		const char *name;
		void *(*call)(void *);
		int expected;
	} calls[] = {
		{ "poll", in_poll, 1 },
		{ "poll with limit", in_poll_long, 1 },
		{ "ppoll", in_ppoll, 1 },
		{ "select", in_select, 1 },
		{ "epoll_wait", in_epoll, 1 },
		{ "epoll_wait with limit", in_epoll_long, 1 },
		{ "poll that runs out", in_poll_short, 0 },
	};
	enum { CALLS = sizeof(calls) / sizeof(calls[0]) };
	ready_fd = MUST(eventfd(0, 0));
	silent_fd = MUST(eventfd(0, 0));
	epoll = MUST(epoll_create1(0));
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = 99 };
	MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, ready_fd, &event));
	while (specimen_round()) {
		pthread_t threads[CALLS];
		for (int i = 0; i < CALLS; i++)
			threads[i] = start_blocked(calls[i].call, NULL);
		specimen_ready();
		uint64_t value = 1;
		MUST(write(ready_fd, &value, 8));
		for (int i = 0; i < CALLS; i++) {
			void *result = NULL;
			MUST_ZERO(pthread_join(threads[i], &result));
			expect_int(calls[i].name, calls[i].expected, (intptr_t)result);
		}
		MUST(read(ready_fd, &value, 8));
	}
	return specimen_end();
}
