/*
 * An epoll instance that watches a signal descriptor: the kernel wakes it for
 * signals of the process that registered it, so the registration has to be made
 * in the restored process itself. A waiter that sleeps when the signal comes is
 * woken; a level-triggered look afterwards is not enough to see that.
 */
#include "specimen.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

static int epoll, fd;

static void *wait_for_event(void *arg)
{
	struct epoll_event event = { 0 };
	int n = epoll_wait(epoll, &event, 1, 3000);
	*(int *)arg = n == 1 && event.data.fd == fd ? 1 : n;
	return NULL;
}

int main(void)
{
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	MUST_ZERO(pthread_sigmask(SIG_BLOCK, &mask, NULL));
	fd = MUST(signalfd(-1, &mask, SFD_NONBLOCK));
	epoll = MUST(epoll_create1(0));
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
	MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
	while (specimen_round()) {
		specimen_ready();
		int seen = -1;
		pthread_t thread = start_blocked(wait_for_event, &seen);
		MUST(kill(getpid(), SIGTERM));
		MUST_ZERO(pthread_join(thread, NULL));
		expect_int("events of the sleeping waiter", 1, seen);
		struct signalfd_siginfo info = { 0 };
		expect_int("reading the signal", sizeof(info), read(fd, &info, sizeof(info)));
		expect_int("which is", SIGTERM, (int)info.ssi_signo);
	}
	return specimen_end();
}
