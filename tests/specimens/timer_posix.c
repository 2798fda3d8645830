/*
 * POSIX timers: their IDs (with a gap where one was deleted), clocks, intervals
 * and time left; a periodic one goes on to send its signal with its value, to
 * the thread it was made for; the next timer gets a new ID.
 *
 * harness: differs=ShdPnd
 */
#include "specimen.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* By system call: the library's timer_t hides the kernel's ID. */
static int make(clockid_t clock, int notify, int number, int value)
{
	struct sigevent event = { .sigev_notify = notify, .sigev_signo = number };
	event.sigev_value.sival_int = value;
	event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
	int id = -1;
	MUST(syscall(SYS_timer_create, clock, &event, &id));
	return id;
}

static void set(int id, long ms, long interval_ms)
{
	struct itimerspec value = { { interval_ms / 1000, interval_ms % 1000 * 1000000 },
				    { ms / 1000, ms % 1000 * 1000000 } };
	MUST(syscall(SYS_timer_settime, id, 0, &value, NULL));
}

static void check_left(const char *what, int id, long low, long high, long interval)
{
	struct itimerspec value = { 0 };
	expect_ok(what, syscall(SYS_timer_gettime, id, &value));
	expect_between("  time left (s)", low, high, value.it_value.tv_sec);
	expect_int("  interval (s)", interval, value.it_interval.tv_sec);
}

static void check_fires(int id, int number, int value)
{
	sigset_t one;
	sigemptyset(&one);
	sigaddset(&one, number);
	struct timespec limit = { 3, 0 };
	for (int i = 0; i < 3; i++) {
		siginfo_t info = { 0 };
		if (!expect_int("the timer's signal", number, sigtimedwait(&one, &info, &limit)))
			return;
		expect_int("  si_code", SI_TIMER, info.si_code);
		expect_int("  si_value", value, info.si_value.sival_int);
		expect_int("  si_timerid", id, info.si_timerid);
		expect_between("  overruns", 0, 1000000, info.si_overrun);
	}
	expect_between("timer_getoverrun", 0, 1000000, syscall(SYS_timer_getoverrun, id));
}

int main(void)
{
	sigset_t all;
	sigfillset(&all);
	MUST(sigprocmask(SIG_BLOCK, &all, NULL));
	int periodic = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN, 314);
	int gap = make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0);
	int gap2 = make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0);
	int silent = make(CLOCK_REALTIME, SIGEV_NONE, 0, 0);
	int idle = make(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGUSR1, 1);
	int own = make(CLOCK_BOOTTIME, SIGEV_THREAD_ID, SIGRTMIN + 1, 271);
	MUST(syscall(SYS_timer_delete, gap));
	MUST(syscall(SYS_timer_delete, gap2));
	set(periodic, 40, 40);
	set(silent, 500000, 33000);
	set(own, 100000, 44000);

	while (specimen_round()) {
		specimen_ready();
		check_fires(periodic, SIGRTMIN, 314);
		check_left("silent timer", silent, 480, 500, 33);
		check_left("thread's timer", own, 80, 100, 44);
		check_left("disarmed timer", idle, 0, 0, 0);
		set(own, 20, 20);
		check_fires(own, SIGRTMIN + 1, 271);
		set(own, 100000, 44000);
		sigset_t stale;
		sigemptyset(&stale);
		sigaddset(&stale, SIGRTMIN + 1);
		while (sigtimedwait(&stale, NULL, &(struct timespec){ 0, 0 }) > 0)
			;
		struct itimerspec value;
		expect_errno("deleted timer", EINVAL, syscall(SYS_timer_gettime, gap, &value));
		int another = make(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0);
		expect_int("a new timer's ID is new", 1, another > own);
		MUST(syscall(SYS_timer_delete, another));
	}
	return specimen_end();
}
