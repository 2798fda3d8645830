/*
 * A sleep that was interrupted by a dump, or by death and restore, goes on and
 * ends with success, not early (EINTR is nobody's signal) and not never.
 */
#include "specimen.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>

enum { SLEEP_MS = 700 };

struct sleeper {
	pid_t tid;
	int absolute;
	int result;
	long long began, ended;
};

static void *sleep_once(void *arg)
{
	struct sleeper *s = arg;
	struct timespec length = { 0, SLEEP_MS * 1000000L };
	s->began = now_ms();
	__atomic_store_n(&s->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	if (s->absolute) {
		struct timespec until;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += SLEEP_MS * 1000000L;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		s->result = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
	} else {
		s->result = nanosleep(&length, NULL) == 0 ? 0 : errno;
	}
	s->ended = now_ms();
	return NULL;
}

int main(void)
{
	while (specimen_round()) {
		struct sleeper sleepers[2] = { { .absolute = 0 }, { .absolute = 1 } };
		pthread_t threads[2];
		for (int i = 0; i < 2; i++) {
			MUST_ZERO(pthread_create(&threads[i], NULL, sleep_once, &sleepers[i]));
			while (!__atomic_load_n(&sleepers[i].tid, __ATOMIC_ACQUIRE))
				sleep_ms(1);
			until_asleep(sleepers[i].tid);
		}
		specimen_ready();
		for (int i = 0; i < 2; i++) {
			MUST_ZERO(pthread_join(threads[i], NULL));
			expect_int(i ? "absolute sleep's result" : "sleep's result", 0,
				   sleepers[i].result);
			expect_between("length of the sleep (ms)", SLEEP_MS - 5, 15000,
				       sleepers[i].ended - sleepers[i].began);
		}
	}
	return specimen_end();
}
