/*
 * Blocked waiting for a signal, in sigsuspend, sigtimedwait, signalfd's read
 * and pause: nothing but that signal ends the wait. The mask sigsuspend put in
 * place holds while it waits, and the former one afterwards.
 */
#include "specimen.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>

static volatile sig_atomic_t handled;
static volatile pid_t suspended;

static void on_signal(int number)
{
	handled = number;
}

static void *in_sigsuspend(void *arg)
{
	(void)arg;
	suspended = (pid_t)syscall(SYS_gettid);
	sigset_t mask;
	sigfillset(&mask);
	sigdelset(&mask, SIGUSR1);
	sigsuspend(&mask);
	int error = errno;
	sigset_t now;
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	expect_int("SIGUSR1 is blocked again", 1, sigismember(&now, SIGUSR1));
	expect_int("SIGHUP is not", 0, sigismember(&now, SIGHUP));
	return (void *)(intptr_t)error;
}

static void *in_sigtimedwait(void *arg)
{
	(void)arg;
	sigset_t one;
	sigemptyset(&one);
	sigaddset(&one, SIGRTMIN + 4);
	struct timespec limit = { 60, 0 };
	int result = sigtimedwait(&one, NULL, &limit);
	return (void *)(intptr_t)(result < 0 ? -errno : result);
}

static void *in_read(void *arg)
{
	(void)arg;
	sigset_t one;
	sigemptyset(&one);
	sigaddset(&one, SIGRTMIN + 5);
	int fd = signalfd(-1, &one, SFD_CLOEXEC);
	struct signalfd_siginfo info;
	ssize_t n = read(fd, &info, sizeof(info));
	int error = errno;
	close(fd);
	return (void *)(intptr_t)(n < 0 ? -error : (int)info.ssi_signo);
}

int main(void)
{
	struct sigaction act = { .sa_handler = on_signal };
	MUST(sigaction(SIGUSR1, &act, NULL));
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, SIGRTMIN + 4);
	sigaddset(&mask, SIGRTMIN + 5);
	MUST_ZERO(pthread_sigmask(SIG_BLOCK, &mask, NULL));
	while (specimen_round()) {
		handled = 0;
		pthread_t threads[3] = { start_blocked(in_sigsuspend, NULL),
					 start_blocked(in_sigtimedwait, NULL),
					 start_blocked(in_read, NULL) };
		specimen_ready();
		expect_int("nothing was handled meanwhile", 0, handled);
		MUST(kill(getpid(), SIGUSR1));
		MUST(kill(getpid(), SIGRTMIN + 4));
		MUST(kill(getpid(), SIGRTMIN + 5));
		void *result;
		MUST_ZERO(pthread_join(threads[0], &result));
		expect_int("sigsuspend", EINTR, (intptr_t)result);
		expect_int("handled", SIGUSR1, handled);
		MUST_ZERO(pthread_join(threads[1], &result));
		expect_int("sigtimedwait", SIGRTMIN + 4, (intptr_t)result);
		MUST_ZERO(pthread_join(threads[2], &result));
		expect_int("read of the signal descriptor", SIGRTMIN + 5, (intptr_t)result);
	}
	return specimen_end();
}
