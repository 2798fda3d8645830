/*
 * The robust list and the TID cell are known to the kernel again: a thread that
 * dies with a robust mutex leaves it to the next owner, and a thread that ends
 * can be joined.
 */
#include "specimen.h"

#include <sys/syscall.h>

static pthread_mutex_t mutex;
static volatile int may_die;

static void *hold_and_die(void *arg)
{
	(void)arg;
	void *head;
	size_t length;
	MUST(syscall(SYS_get_robust_list, 0, &head, &length));
	MUST_ZERO(pthread_mutex_lock(&mutex));
	while (!may_die)
		sleep_ms(2);
	void *head_now;
	size_t length_now = 0;
	expect_ok("get_robust_list", syscall(SYS_get_robust_list, 0, &head_now, &length_now));
	expect_hex("head of the robust list", (uintptr_t)head, (uintptr_t)head_now);
	expect_int("its length", (long)length, (long)length_now);
	return (void *)17;
}

int main(void)
{
	pthread_mutexattr_t robust;
	pthread_mutexattr_init(&robust);
	MUST_ZERO(pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST));
	while (specimen_round()) {
		MUST_ZERO(pthread_mutex_init(&mutex, &robust));
		may_die = 0;
		pthread_t thread = start_blocked(hold_and_die, NULL);
		specimen_ready();
		expect_int("the mutex is held", EBUSY, pthread_mutex_trylock(&mutex));
		may_die = 1;
		void *result = NULL;
		struct timespec limit;
		clock_gettime(CLOCK_REALTIME, &limit);
		limit.tv_sec += 5;
		expect_int("joining", 0, pthread_timedjoin_np(thread, &result, &limit));
		expect_int("its result", 17, (intptr_t)result);
		clock_gettime(CLOCK_REALTIME, &limit);
		limit.tv_sec += 2;
		expect_int("the mutex of the dead", EOWNERDEAD,
			   pthread_mutex_timedlock(&mutex, &limit));
		MUST_ZERO(pthread_mutex_consistent(&mutex));
		MUST_ZERO(pthread_mutex_unlock(&mutex));
	}
	return specimen_end();
}
