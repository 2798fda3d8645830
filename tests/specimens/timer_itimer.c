/*
 * Interval timers: the long ones keep their interval and about the time they
 * had left; a short one that was running fires once afterwards.
 */
#include "specimen.h"

#include <signal.h>
#include <sys/time.h>

static volatile sig_atomic_t alarms;

static void on_alarm(int number)
{
	(void)number;
	alarms++;
}

static void set(int which, long ms, long interval_s)
{
	struct itimerval value = { { interval_s, 0 }, { ms / 1000, ms % 1000 * 1000 } };
	MUST(setitimer(which, &value, NULL));
}

int main(void)
{
	struct sigaction act = { .sa_handler = on_alarm };
	MUST(sigaction(SIGALRM, &act, NULL));
	set(ITIMER_VIRTUAL, 100000, 7);
	set(ITIMER_PROF, 200000, 8);
	while (specimen_round()) {
		int before = alarms;
		set(ITIMER_REAL, 300, 0);
		specimen_ready();
		for (int i = 0; i < 150 && alarms == before; i++)
			sleep_ms(20);
		expect_int("the short timer fired", before + 1, alarms);
		struct itimerval value;
		MUST(getitimer(ITIMER_VIRTUAL, &value));
		expect_between("left of the virtual timer (s)", 98, 100, value.it_value.tv_sec);
		expect_int("its interval", 7, value.it_interval.tv_sec);
		MUST(getitimer(ITIMER_PROF, &value));
		expect_between("left of the profiling timer (s)", 195, 200, value.it_value.tv_sec);
		expect_int("its interval", 8, value.it_interval.tv_sec);

		set(ITIMER_REAL, 60000, 5);
		MUST(getitimer(ITIMER_REAL, &value));
		expect_between("a new timer (s)", 58, 60, value.it_value.tv_sec);
	}
	return specimen_end();
}
