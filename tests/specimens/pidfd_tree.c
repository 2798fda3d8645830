/*
 * pidfds: of a child, a thread, a zombie, and a child that was waited for. A duplicate in another
 * process is the same open file (its flags change with it), an epoll instance still sees the end of
 * the process it watches.
 *
 * harness: differs=limit|SigBlk|SigCgt|Cap|THP|timerslack|coredump
 */
#include "specimen.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

static pid_t child_that(int status)
{
	pid_t child = MUST(fork());
	if (child == 0) {
		if (status >= 0)
			_exit(status);
		for (;;)
			pause();
	}
	return child;
}

static int open_pidfd(pid_t pid, unsigned flags)
{
	return (int)syscall(SYS_pidfd_open, pid, flags);
}

static int ready(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };
	return poll(&p, 1, 0) == 1 ? p.revents : 0;
}

static int tell(int fd, int signo)
{
	return (int)syscall(SYS_pidfd_send_signal, fd, signo, NULL, 0);
}

static void *sleeper(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return NULL;
}

static void await_zombie(pid_t pid)
{
	siginfo_t info;
	MUST(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
}

/* Another process that has `shared`, under the same number: it makes it non-blocking and back. */
static void other_holder(int shared)
{
	while (specimen_child_round()) {
		int flags = fcntl(shared, F_GETFL);
		expect_int("the flag the other process set", O_NONBLOCK, flags & O_NONBLOCK);
		expect_ok("clear it", fcntl(shared, F_SETFL, flags & ~O_NONBLOCK));
		expect_ok("signal through it", tell(shared, 0));
	}
	_exit(specimen_end());
}

static pid_t number_now(int pidfd)
{
	char path[64], number[16];
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	return atoi(proc_field(path, "Pid", number, sizeof(number)));
}

int main(void)
{
	pthread_t thread;
	int epoll = MUST(epoll_create1(0));
	pid_t lasting = child_that(-1);
	int shared = MUST(open_pidfd(lasting, 0)), again = MUST(dup(shared));
	MUST_ZERO(pthread_create(&thread, NULL, sleeper, NULL));
	int self = MUST(open_pidfd(getpid(), 0));
	int of_thread = open_pidfd(getpid(), O_EXCL); /* PIDFD_THREAD: Linux 6.9 */
	pid_t gone = child_that(7);
	int ended = MUST(open_pidfd(gone, 0));
	MUST(waitpid(gone, NULL, 0));
	if (MUST(fork()) == 0)
		other_holder(shared);

	while (specimen_round()) {
		siginfo_t info = { 0 };
		pid_t running = child_that(-1), zombie = child_that(5);
		int pidfd = MUST(open_pidfd(running, O_NONBLOCK)), dead = MUST(open_pidfd(zombie, 0));
		struct epoll_event event = { .events = EPOLLIN, .data.u64 = 77 }, told;
		MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, pidfd, &event));
		await_zombie(zombie);
		MUST(fcntl(again, F_SETFL, fcntl(again, F_GETFL) | O_NONBLOCK));
		specimen_ready();

		expect_int("a running process is not readable", 0, ready(pidfd, POLLIN));
		expect_errno("waiting without blocking", EAGAIN,
			     waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED));
		expect_int("nothing for epoll", 0, epoll_wait(epoll, &told, 1, 0));
		expect_ok("signal it", tell(pidfd, SIGTERM));
		expect_int("epoll sees its end", 1, epoll_wait(epoll, &told, 1, 5000));
		expect_int("data", 77, (long long)told.data.u64);
		pid_t number = number_now(pidfd);
		expect_ok("wait for it", waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED));
		expect_int("that was it", number, info.si_pid);
		if (strcmp(specimen_mode(), "renumbered") != 0)
			expect_int("its number", running, number);
		expect_int("by the signal", SIGTERM, info.si_status);

		expect_int("a zombie is readable", POLLIN, ready(dead, POLLIN) & POLLIN);
		expect_ok("its status", waitid(P_PIDFD, (id_t)dead, &info, WEXITED));
		expect_int("is", 5, info.si_status);
		expect_errno("one that was waited for takes no signals", ESRCH, tell(ended, 0));
		expect_errno("nor is it waited for", ECHILD, waitid(P_PIDFD, (id_t)ended, &info, WEXITED));
		expect_int("it is readable", POLLIN, ready(ended, POLLIN) & POLLIN);
		expect_ok("ourselves", tell(self, 0));
		expect_int("close-on-exec", FD_CLOEXEC, fcntl(self, F_GETFD));
		if (of_thread >= 0) {
			expect_int("PIDFD_THREAD", O_EXCL, fcntl(of_thread, F_GETFL) & O_EXCL);
			expect_ok("a thread", tell(of_thread, 0));
		}
		specimen_await(1);
		expect_int("the flag the other process cleared", 0, fcntl(again, F_GETFL) & O_NONBLOCK);
		expect_int("the duplicate, too", 0, fcntl(shared, F_GETFL) & O_NONBLOCK);
		close(pidfd);
		close(dead);
	}
	kill(lasting, SIGKILL);
	return specimen_end();
}
