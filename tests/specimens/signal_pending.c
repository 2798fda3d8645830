/*
 * Blocked signals that are pending, sent to the process and to single threads,
 * with their values, senders and order: each is received once, by whom it was
 * meant for, and with the siginfo it was sent with.
 */
#include "specimen.h"

#include <signal.h>
#include <sys/syscall.h>

enum { QUEUED = 6 };

static volatile int thread_may_check, thread_checked;
static volatile pid_t thread_tid;

static void send_to_thread(pid_t tid, int number, int value)
{
	siginfo_t info = { .si_code = SI_QUEUE, .si_signo = number };
	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_int = value;
	MUST(syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, number, &info));
}

static void receive(const char *what, int number, int code, int value)
{
	sigset_t one;
	sigemptyset(&one);
	sigaddset(&one, number);
	siginfo_t info = { 0 };
	struct timespec none = { 0, 0 };
	if (!expect_int(what, number, sigtimedwait(&one, &info, &none)))
		return;
	expect_int("si_code", code, info.si_code);
	expect_int("si_pid", getpid(), info.si_pid);
	expect_int("si_uid", getuid(), info.si_uid);
	if (code == SI_QUEUE)
		expect_int("si_value", value, info.si_value.sival_int);
}

static void nothing_left(const char *what)
{
	sigset_t pending;
	MUST(sigpending(&pending));
	for (int number = 1; number <= SIGRTMAX; number++)
		if (sigismember(&pending, number) == 1)
			expect_int(what, 0, number);
}

/* What this kernel says of tgkill: SI_TKILL, or (6.18) SI_USER. */
static int tgkill_code(void)
{
	sigset_t one;
	sigemptyset(&one);
	sigaddset(&one, SIGUSR2);
	siginfo_t info = { 0 };
	MUST(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR2));
	MUST(sigwaitinfo(&one, &info));
	return info.si_code;
}

static void *other_thread(void *arg)
{
	int code = tgkill_code();
	thread_tid = (pid_t)syscall(SYS_gettid);
	for (;;) {
		while (!thread_may_check)
			sleep_ms(1);
		thread_may_check = 0;
		receive("the thread's own signal", SIGRTMIN + 1, SI_QUEUE, 201);
		receive("the thread's next signal", SIGRTMIN + 1, SI_QUEUE, 202);
		receive("the thread's SIGUSR2", SIGUSR2, code, 0);
		nothing_left("left for the thread");
		thread_checked = 1;
	}
	return arg;
}

int main(void)
{
	sigset_t all;
	sigfillset(&all);
	MUST(sigprocmask(SIG_BLOCK, &all, NULL));
	pthread_t thread;
	MUST_ZERO(pthread_create(&thread, NULL, other_thread, NULL));
	while (!thread_tid)
		sleep_ms(1);

	while (specimen_round()) {
		for (int i = 0; i < QUEUED; i++)
			MUST(sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = 1000 - i }));
		MUST(kill(getpid(), SIGUSR1));
		MUST(sigqueue(getpid(), SIGTERM, (union sigval){ .sival_int = 15 }));
		send_to_thread((pid_t)syscall(SYS_gettid), SIGRTMIN + 2, 101);
		send_to_thread(thread_tid, SIGRTMIN + 1, 201);
		send_to_thread(thread_tid, SIGRTMIN + 1, 202);
		MUST(syscall(SYS_tgkill, getpid(), thread_tid, SIGUSR2));

		specimen_ready();

		for (int i = 0; i < QUEUED; i++)
			receive("queued signal", SIGRTMIN, SI_QUEUE, 1000 - i);
		receive("SIGUSR1", SIGUSR1, SI_USER, 0);
		receive("SIGTERM", SIGTERM, SI_QUEUE, 15);
		receive("the main thread's own signal", SIGRTMIN + 2, SI_QUEUE, 101);
		nothing_left("left for the main thread");
		thread_checked = 0;
		thread_may_check = 1;
		while (!thread_checked)
			sleep_ms(1);
	}
	return specimen_end();
}
