/*
 * Threads that wait for each other: on a condition, a semaphore, a mutex, a
 * barrier, a bare futex with and without time limit. They are woken by what
 * they wait for; a time limit that was running ends the wait with ETIMEDOUT.
 */
#include "specimen.h"

#include <linux/futex.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <time.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER, held = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static sem_t semaphore;
static volatile int flag;
static volatile uint32_t word;

static void *on_condition(void *arg)
{
	pthread_mutex_lock(&mutex);
	while (!flag)
		pthread_cond_wait(&condition, &mutex);
	pthread_mutex_unlock(&mutex);
	return arg;
}

static void *on_mutex(void *arg)
{
	int error = pthread_mutex_lock(&held);
	pthread_mutex_unlock(&held);
	return error ? NULL : arg;
}

static void *on_semaphore(void *arg)
{
	return sem_wait(&semaphore) == 0 ? arg : NULL;
}

static void *on_barrier(void *arg)
{
	int result = pthread_barrier_wait(&barrier);
	return result == 0 || result == PTHREAD_BARRIER_SERIAL_THREAD ? arg : NULL;
}

static void *on_futex(void *arg)
{
	long result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
	return result == 0 ? arg : (void *)(intptr_t)errno;
}

static void *with_limit(void *arg)
{
	long long ms = patient_ms(400);
	struct timespec limit = { ms / 1000, ms % 1000 * 1000000 };
	long long began = now_ms();
	long result = syscall(SYS_futex, &flag, FUTEX_WAIT_PRIVATE, 12345, &limit, NULL, 0);
	(void)result; /* the value differs: returns at once, and shows that errors are errors */
	static uint32_t never;
	result = syscall(SYS_futex, &never, FUTEX_WAIT_PRIVATE, 0, &limit, NULL, 0);
	int error = result == 0 ? 0 : errno;
	expect_int("a futex wait with time limit ends with", ETIMEDOUT, error);
	expect_between("  after (ms)", ms - 5, 15000, now_ms() - began);
	return arg;
}

int main(void)
{
	static void *(*const calls[])(void *) = { on_condition, on_mutex, on_semaphore,
						  on_barrier,	on_futex, with_limit };
	static const char *const names[] = { "condition", "mutex", "semaphore",
					     "barrier",	  "futex", "futex with limit" };
	enum { CALLS = sizeof(calls) / sizeof(calls[0]) };
	MUST(sem_init(&semaphore, 0, 0));
	MUST_ZERO(pthread_barrier_init(&barrier, NULL, 2));
	while (specimen_round()) {
		flag = 0;
		word = 0;
		pthread_mutex_lock(&held);
		pthread_t threads[CALLS];
		for (int i = 0; i < CALLS; i++)
			threads[i] = start_blocked(calls[i], (void *)names[i]);
		specimen_ready();
		pthread_mutex_lock(&mutex);
		flag = 1;
		pthread_cond_signal(&condition);
		pthread_mutex_unlock(&mutex);
		pthread_mutex_unlock(&held);
		sem_post(&semaphore);
		pthread_barrier_wait(&barrier);
		sleep_ms(5); /* the futex waiter has nothing but the wake-up to go by */
		word = 1;
		syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
		for (int i = 0; i < CALLS; i++) {
			void *result = NULL;
			struct timespec limit;
			clock_gettime(CLOCK_REALTIME, &limit);
			limit.tv_sec += 10;
			int error = pthread_timedjoin_np(threads[i], &result, &limit);
			expect_int(names[i], 0, error);
			if (!error)
				expect_hex("  its result", (uintptr_t)names[i], (uintptr_t)result);
		}
	}
	return specimen_end();
}
