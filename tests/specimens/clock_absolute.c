/*
 * Clocks that go on where they stood, in a time namespace: what was set for a time of
 * CLOCK_MONOTONIC or CLOCK_BOOTTIME happens when they show that time, not earlier and not later
 * by as much as the tree was away.  A timerfd, a POSIX timer, a thread in clock_nanosleep(2), one in
 * pthread_cond_clockwait(3), all absolute; the vDSO shows
 * what the system call shows.
 * harness: root clocks=go-on pause=1.5
 */
#include "specimen.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>

enum { AHEAD_MS = 2500, LATE_MS = 900 };

static struct timespec due;
static long long seen_at[2]; /* of the sleeping threads, by CLOCK_MONOTONIC */
static volatile int woken[2];

static long long ms(clockid_t clock)
{
	struct timespec now;
	MUST(clock_gettime(clock, &now));
	return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

static long long called_ms(clockid_t clock)
{
	struct timespec now;
	MUST(syscall(SYS_clock_gettime, clock, &now));
	return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

static struct timespec in_ms(clockid_t clock, long ahead)
{
	long long at = ms(clock) + ahead;
	return (struct timespec){ (time_t)(at / 1000), (long)(at % 1000) * 1000000 };
}

static void *sleep_until(void *arg)
{
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL))
		;
	seen_at[0] = called_ms(CLOCK_MONOTONIC);
	woken[0] = 1;
	return arg;
}

static void *wait_until(void *arg)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
	pthread_mutex_lock(&mutex);
	while (pthread_cond_clockwait(&never, &mutex, CLOCK_MONOTONIC, &due) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&mutex);
	seen_at[1] = called_ms(CLOCK_MONOTONIC);
	woken[1] = 1;
	return arg;
}

static void expect_due(const char *what, long long at, long long seen)
{
	expect_between(what, at, at + LATE_MS, seen);
}

static void same_by_call(const char *what, clockid_t clock)
{
	long long before = ms(clock), called = called_ms(clock), after = ms(clock);
	expect_between(what, before, after, called);
}

int main(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	int fd = MUST(timerfd_create(CLOCK_BOOTTIME, 0));
	timer_t timer;
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	MUST(timer_create(CLOCK_MONOTONIC, &event, &timer));
	while (specimen_round()) {
		bool goes_on = specimen_dies();
		due = in_ms(CLOCK_MONOTONIC, AHEAD_MS);
		struct itimerspec timer_due = { .it_value = due },
				  fd_due = { .it_value = in_ms(CLOCK_BOOTTIME, AHEAD_MS) };
		long long at = due.tv_sec * 1000ll + due.tv_nsec / 1000000;
		long long boot_at = fd_due.it_value.tv_sec * 1000ll + fd_due.it_value.tv_nsec / 1000000;
		woken[0] = woken[1] = 0;
		pthread_t sleeper = start_blocked(sleep_until, NULL), waiter = start_blocked(wait_until, NULL);
		MUST(timer_settime(timer, TIMER_ABSTIME, &timer_due, NULL));
		MUST(timerfd_settime(fd, TFD_TIMER_ABSTIME, &fd_due, NULL));
		long long real = ms(CLOCK_REALTIME), monotonic = ms(CLOCK_MONOTONIC), boot = ms(CLOCK_BOOTTIME);
		specimen_ready();
		long long away = ms(CLOCK_REALTIME) - real;
		expect_between("CLOCK_MONOTONIC has moved on by what the wall clock did, less the pause",
			       away - (goes_on ? 1500 + LATE_MS : 100), away - (goes_on ? 1400 : -100),
			       ms(CLOCK_MONOTONIC) - monotonic);
		expect_between("CLOCK_BOOTTIME likewise", away - (goes_on ? 1500 + LATE_MS : 100),
			       away - (goes_on ? 1400 : -100), ms(CLOCK_BOOTTIME) - boot);
		same_by_call("vDSO and call: CLOCK_MONOTONIC", CLOCK_MONOTONIC);
		same_by_call("vDSO and call: CLOCK_BOOTTIME", CLOCK_BOOTTIME);
		expect_int("nobody woke up early", 0, ms(CLOCK_MONOTONIC) < at && (woken[0] || woken[1]));
		uint64_t ticks = 0;
		expect_int("the timerfd", 8, read(fd, &ticks, sizeof(ticks)));
		expect_due("it expired at", boot_at, called_ms(CLOCK_BOOTTIME));
		expect_int("its signal", SIGUSR1, sigwaitinfo(&set, NULL));
		expect_due("the timer expired at", at, called_ms(CLOCK_MONOTONIC));
		pthread_join(sleeper, NULL);
		pthread_join(waiter, NULL);
		expect_due("clock_nanosleep until", at, seen_at[0]);
		expect_due("pthread_cond_clockwait until", at, seen_at[1]);
	}
	return specimen_end();
}
