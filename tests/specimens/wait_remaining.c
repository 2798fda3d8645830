/*
 * Sleeps of a given length, of which most has passed: they last as long as they were to, not the whole time
 * again. nanosleep with and without a place for the remainder, poll and a bare futex; before, job control
 * has stopped and continued the process, so that all of them are in restart_syscall(2).
 *
 * harness: threads=9 modes=left-running,restored
 */
#include "specimen.h"

#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

enum { LENGTH_MS = 2600, PASSED_MS = 1900, DOWN_MS = 1500 };

static const struct timespec length = { LENGTH_MS / 1000, LENGTH_MS % 1000 * 1000000 };

static long in_nanosleep(void)
{
	return nanosleep(&length, NULL);
}

static long in_nanosleep_remainder(void)
{
	struct timespec rest = length;
	return nanosleep(&rest, &rest);
}

static long in_clock_nanosleep(void)
{
	return clock_nanosleep(CLOCK_BOOTTIME, 0, &length, NULL);
}

static long in_clock_nanosleep_real(void)
{
	return clock_nanosleep(CLOCK_REALTIME, 0, &length, NULL);
}

static long in_poll(void)
{
	return poll(NULL, 0, LENGTH_MS);
}

static long in_bare_poll(void)
{
	int ends[2];
	MUST(pipe(ends));
	struct pollfd end = { .fd = ends[0], .events = POLLIN };
	return syscall(SYS_poll, &end, 1L, (long)LENGTH_MS);
}

static long in_futex(void)
{
	static uint32_t word = 77;
	long result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 77, &length, NULL, 0);
	return result < 0 && errno == ETIMEDOUT ? 0 : 1;
}

static long in_select(void)
{
	struct timespec rest = length;
	return ppoll(NULL, 0, &rest, NULL);
}

static const struct {
	const char *name;
	long (*call)(void);
} calls[] = {
	{ "nanosleep", in_nanosleep },
	{ "nanosleep, remainder", in_nanosleep_remainder },
	{ "clock_nanosleep, boot time", in_clock_nanosleep },
	{ "clock_nanosleep, real time", in_clock_nanosleep_real },
	{ "poll", in_poll },
	{ "poll, bare", in_bare_poll },
	{ "futex", in_futex },
	{ "ppoll", in_select },
};
enum { CALLS = sizeof(calls) / sizeof(calls[0]) };

struct sleeper {
	int which;
	long result;
	long long lasted;
};

static void *sleep_once(void *arg)
{
	struct sleeper *sleeper = arg;
	long long began = now_ms();
	sleeper->result = calls[sleeper->which].call();
	sleeper->lasted = now_ms() - began;
	return NULL;
}

static void be_stopped(void)
{
	pid_t us = getpid(), helper = MUST(fork());
	if (helper == 0) {
		kill(us, SIGSTOP);
		sleep_ms(30);
		kill(us, SIGCONT);
		_exit(0);
	}
	MUST(waitpid(helper, NULL, 0));
}

int main(void)
{
	while (specimen_round()) {
		struct sleeper sleepers[CALLS];
		pthread_t threads[CALLS];
		long long began = now_ms();
		for (int i = 0; i < CALLS; i++) {
			sleepers[i].which = i;
			threads[i] = start_blocked(sleep_once, &sleepers[i]);
		}
		be_stopped();
		while (now_ms() - began < PASSED_MS)
			sleep_ms(10);
		specimen_ready();
		for (int i = 0; i < CALLS; i++) {
			MUST_ZERO(pthread_join(threads[i], NULL));
			expect_int(calls[i].name, 0, sleepers[i].result);
			expect_between("  lasted (ms)", LENGTH_MS - 5, LENGTH_MS + DOWN_MS, sleepers[i].lasted);
		}
	}
	return specimen_end();
}
