/*
 * The real-time interval timer with most of a minute to go: it keeps its
 * interval, and what is left can only be a little less than it was.
 *
 * harness: musl
 */
#include "specimen.h"

#include <sys/time.h>

int main(void)
{
	struct itimerval minute = { { 5, 250000 }, { 60, 0 } }, seen;
	MUST(setitimer(ITIMER_REAL, &minute, NULL));
	while (specimen_round()) {
		specimen_ready();
		MUST(getitimer(ITIMER_REAL, &seen));
		expect_between("time left (s)", 40, 59, seen.it_value.tv_sec);
		expect_int("interval (s)", 5, seen.it_interval.tv_sec);
		expect_int("interval (us)", 250000, seen.it_interval.tv_usec);
	}
	return specimen_end();
}
