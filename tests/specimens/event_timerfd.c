/*
 * Timer descriptors: one that ticks and was not read, one with long to go, an
 * absolute one, one that is not armed; clocks, intervals and flags are kept.
 */
#include "specimen.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/timerfd.h>
#include <time.h>

static struct itimerspec in_ms(long ms, long interval_ms)
{
	return (struct itimerspec){ { interval_ms / 1000, interval_ms % 1000 * 1000000 },
				    { ms / 1000, ms % 1000 * 1000000 } };
}

int main(void)
{
	int ticks = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
	int once = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	int later = MUST(timerfd_create(CLOCK_BOOTTIME, 0));
	int wall = MUST(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK));
	int idle = MUST(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK));
	struct itimerspec value = in_ms(300000, 7000), seen;
	MUST(timerfd_settime(later, 0, &value, NULL));
	value = in_ms(0, 0);
	value.it_value.tv_sec = time(NULL) + 200;
	MUST(timerfd_settime(wall, TFD_TIMER_ABSTIME, &value, NULL));

	while (specimen_round()) {
		value = in_ms(10, 10);
		MUST(timerfd_settime(ticks, 0, &value, NULL));
		value = in_ms(5, 0);
		MUST(timerfd_settime(once, 0, &value, NULL));
		sleep_ms(40);
		specimen_ready();
		uint64_t count = 0;
		struct pollfd p = { .fd = ticks, .events = POLLIN };
		expect_int("the ticking one is readable", 1, poll(&p, 1, 2000));
		expect_ok("read", read(ticks, &count, 8));
		expect_between("ticks that were not read", 3, 100000, (long long)count);
		expect_int("and it ticks on", 1, poll(&p, 1, 2000));
		MUST(timerfd_gettime(ticks, &seen));
		expect_int("its interval (ns)", 10000000, seen.it_interval.tv_nsec);
		expect_int("close-on-exec", FD_CLOEXEC, fcntl(ticks, F_GETFD));
		count = 0;
		expect_ok("read of the one that fired before", read(once, &count, 8));
		expect_int("once", 1, (long long)count);
		MUST(timerfd_gettime(later, &seen));
		expect_between("time left (s)", 250, 299, seen.it_value.tv_sec);
		expect_int("interval (s)", 7, seen.it_interval.tv_sec);
		MUST(timerfd_gettime(wall, &seen));
		expect_between("time left of the absolute one (s)", 150, 200, seen.it_value.tv_sec);
		MUST(timerfd_gettime(idle, &seen));
		expect_int("not armed", 0, seen.it_value.tv_sec + seen.it_value.tv_nsec);
		expect_errno("nothing to read", EAGAIN, read(idle, &count, 8));
	}
	return specimen_end();
}
