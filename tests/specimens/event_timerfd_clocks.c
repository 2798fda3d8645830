/*
 * Timer descriptors on every clock, relative and absolute: the clock, what remains, the interval,
 * and exactly as many expirations to be read as there were. One that is cancelled when somebody
 * sets the clock still is; those that wake the machine are shown where we may have them.
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/timerfd.h>
#include <time.h>

#define HOUR 3600
#define PERIOD 40

static const struct {
	const char *name;
	int clock, base;
} clocks[] = {
	{ "realtime", CLOCK_REALTIME, CLOCK_REALTIME },
	{ "monotonic", CLOCK_MONOTONIC, CLOCK_MONOTONIC },
	{ "boottime", CLOCK_BOOTTIME, CLOCK_BOOTTIME },
	{ "realtime alarm", CLOCK_REALTIME_ALARM, CLOCK_REALTIME },
	{ "boottime alarm", CLOCK_BOOTTIME_ALARM, CLOCK_BOOTTIME },
};
enum { CLOCKS = sizeof(clocks) / sizeof(clocks[0]) };

static int relative[CLOCKS], absolute[CLOCKS], behind[CLOCKS];

static void set(int fd, int clock, long from_now, long interval)
{
	struct itimerspec value = { .it_interval.tv_sec = interval, .it_value.tv_sec = from_now };
	struct timespec now;
	if (clock >= 0) {
		MUST(clock_gettime(clock, &now));
		value.it_value.tv_sec += now.tv_sec;
		value.it_value.tv_nsec = now.tv_nsec;
	}
	MUST(timerfd_settime(fd, clock >= 0 ? TFD_TIMER_ABSTIME : 0, &value, NULL));
}

static long left(int fd)
{
	struct itimerspec now;
	return timerfd_gettime(fd, &now) < 0 ? -1 : now.it_value.tv_sec;
}

static void check(size_t i)
{
	char text[64], path[64], seen[64];
	uint64_t count = 0;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", relative[i]);
	snprintf(text, sizeof(text), "%d", clocks[i].clock);
	expect_text(clocks[i].name, text, proc_field(path, "clockid", seen, sizeof(seen)));
	expect_between("relative: seconds left", HOUR - 60, HOUR, left(relative[i]));
	expect_between("absolute: seconds left", 2 * HOUR - 60, 2 * HOUR, left(absolute[i]));
	expect_ok("expirations to be read", read(behind[i], &count, 8));
	expect_int("exactly", 6, (long long)count);
	expect_between("seconds to the next", 0, PERIOD / 2, left(behind[i]));
	expect_errno("and no more", EAGAIN, read(behind[i], &count, 8));
	expect_errno("nothing of the relative one", EAGAIN, read(relative[i], &count, 8));
}

int main(void)
{
	char path[64], seen[64], flags[64];
	int cancel = MUST(timerfd_create(CLOCK_REALTIME, 0));
	int once = MUST(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
	struct itimerspec far = { .it_value.tv_sec = time(NULL) + HOUR };
	for (size_t i = 0; i < CLOCKS; i++) {
		relative[i] = timerfd_create(clocks[i].clock, TFD_NONBLOCK);
		if (relative[i] < 0 && errno == EPERM && i > 2)
			continue; /* CAP_WAKE_ALARM */
		absolute[i] = MUST(timerfd_create(clocks[i].clock, TFD_NONBLOCK));
		behind[i] = MUST(timerfd_create(clocks[i].clock, TFD_NONBLOCK));
		set(relative[i], -1, HOUR, 0);
		set(absolute[i], clocks[i].base, 2 * HOUR, 7);
	}
	MUST(timerfd_settime(cancel, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, NULL));
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", cancel);
	proc_field(path, "settime flags", flags, sizeof(flags));

	while (specimen_round()) {
		uint64_t count = 0;
		for (size_t i = 0; i < CLOCKS; i++)
			if (relative[i] >= 0)
				set(behind[i], clocks[i].base, -5 * PERIOD - PERIOD / 2, PERIOD);
		set(once, CLOCK_MONOTONIC, 0, 0);
		specimen_ready();
		for (size_t i = 0; i < CLOCKS; i++)
			if (relative[i] >= 0)
				check(i);
		expect_ok("what expired once", read(once, &count, 8));
		expect_int("did so once", 1, (long long)count);
		expect_errno("only", EAGAIN, read(once, &count, 8));
		expect_text("flags of the one to be cancelled", flags,
			    proc_field(path, "settime flags", seen, sizeof(seen)));
		expect_between("its seconds left", HOUR - 120, HOUR, left(cancel));
	}
	return specimen_end();
}
