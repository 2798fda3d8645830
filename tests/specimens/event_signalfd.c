/*
 * A signal descriptor: its mask, its flags, and signals that were pending are
 * read from it with their values.
 */
#include "specimen.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>

int main(void)
{
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, SIGRTMIN + 2);
	MUST(sigprocmask(SIG_BLOCK, &mask, NULL));
	int fd = MUST(signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC));

	while (specimen_round()) {
		MUST(sigqueue(getpid(), SIGRTMIN + 2, (union sigval){ .sival_int = 88 }));
		specimen_ready();
		struct signalfd_siginfo info = { 0 };
		expect_int("bytes", sizeof(info), read(fd, &info, sizeof(info)));
		expect_int("signal", SIGRTMIN + 2, info.ssi_signo);
		expect_int("value", 88, info.ssi_int);
		expect_int("sender", getpid(), info.ssi_pid);
		expect_errno("and no more", EAGAIN, read(fd, &info, sizeof(info)));
		MUST(kill(getpid(), SIGUSR1));
		expect_int("bytes of a new one", sizeof(info), read(fd, &info, sizeof(info)));
		expect_int("signal", SIGUSR1, info.ssi_signo);
		expect_int("close-on-exec", FD_CLOEXEC, fcntl(fd, F_GETFD));
		sigset_t other;
		sigemptyset(&other);
		sigaddset(&other, SIGUSR2);
		MUST(sigprocmask(SIG_BLOCK, &other, NULL));
		MUST(kill(getpid(), SIGUSR2));
		expect_errno("a signal it has not in its mask", EAGAIN,
			     read(fd, &info, sizeof(info)));
		MUST(sigwaitinfo(&other, NULL));
	}
	return specimen_end();
}
