/*
 * Periodic timers whose signals wait, blocked: the kernel has stopped them until the signals are
 * taken, and shows no time left of setitimer(2)'s. Once unblocked they go on.
 */
#include "specimen.h"

#include <signal.h>
#include <sys/time.h>
#include <time.h>

static volatile sig_atomic_t alarms, ticks;

static void count(int number)
{
	if (number == SIGALRM)
		alarms++;
	else
		ticks++;
}

static void wait_a_little(long ms)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += ms * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}

int main(void)
{
	struct itimerval often = { { 0, 5000 }, { 0, 5000 } }, seen;
	struct itimerspec period = { { 0, 5000000 }, { 0, 5000000 } };
	struct sigevent how = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
	struct sigaction action = { .sa_handler = count, .sa_flags = SA_RESTART };
	timer_t timer;
	sigset_t both;
	sigemptyset(&both);
	sigaddset(&both, SIGALRM);
	sigaddset(&both, SIGUSR1);
	MUST(sigprocmask(SIG_BLOCK, &both, NULL));
	MUST(sigaction(SIGALRM, &action, NULL));
	MUST(sigaction(SIGUSR1, &action, NULL));
	MUST(timer_create(CLOCK_MONOTONIC, &how, &timer));
	MUST(timer_settime(timer, 0, &period, NULL));
	MUST(setitimer(ITIMER_REAL, &often, NULL));
	while (specimen_round()) {
		wait_a_little(50);
		specimen_ready();
		MUST(getitimer(ITIMER_REAL, &seen));
		expect_int("interval (us)", 5000, seen.it_interval.tv_usec);
		alarms = ticks = 0;
		MUST(sigprocmask(SIG_UNBLOCK, &both, NULL));
		wait_a_little(200);
		MUST(sigprocmask(SIG_BLOCK, &both, NULL));
		expect_between("alarms in 200 ms", 5, 45, alarms);
		expect_between("ticks of the POSIX timer in 200 ms", 5, 45, ticks);
	}
	return specimen_end();
}
