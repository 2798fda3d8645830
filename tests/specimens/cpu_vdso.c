/*
 * The vDSO works where the program knows it: clocks that need no system call
 * run on, agree with the system call, and never go backwards.
 *
 * harness: musl
 */
#include "specimen.h"

#include <sched.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

static long long nanoseconds(const struct timespec *t)
{
	return t->tv_sec * 1000000000LL + t->tv_nsec;
}

static long long by_vdso(clockid_t clock)
{
	struct timespec t;
	MUST(clock_gettime(clock, &t));
	return nanoseconds(&t);
}

static long long by_kernel(clockid_t clock)
{
	struct timespec t;
	MUST(syscall(SYS_clock_gettime, clock, &t));
	return nanoseconds(&t);
}

int main(void)
{
	static const clockid_t clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME,
					    CLOCK_MONOTONIC_COARSE, CLOCK_TAI };
	enum { CLOCKS = sizeof(clocks) / sizeof(clocks[0]) };
	while (specimen_round()) {
		long long before[CLOCKS];
		for (int i = 0; i < CLOCKS; i++)
			before[i] = by_vdso(clocks[i]);
		specimen_ready();
		for (int i = 0; i < CLOCKS; i++) {
			long long kernel = by_kernel(clocks[i]), user = by_vdso(clocks[i]);
			expect_between("clock agrees with the kernel (ns)", kernel - 20000000,
				       kernel + 1000000000, user);
			expect_int("clock did not go back", 1, user >= before[i]);
		}
		struct timeval tv;
		expect_ok("gettimeofday", gettimeofday(&tv, NULL));
		expect_between("time", tv.tv_sec - 1, tv.tv_sec + 1, time(NULL));
		expect_between("sched_getcpu", 0, 4095, sched_getcpu());
	}
	return specimen_end();
}
