/*
 * Mutexes that inherit priority, and robust ones, held by one thread and waited for by others: waiters get
 * them in turn; the one whose owner ends without giving it back is told so (EOWNERDEAD), whether it
 * waits already or comes later; bare futex_waitv and requeueing waits are woken.
 */
#include "specimen.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>

static pthread_mutex_t inherit, robust, robust_inherit;
static volatile int end_owner, owner_ready;

static void make(pthread_mutex_t *mutex, bool is_robust, bool inherits)
{
	pthread_mutexattr_t attributes;
	MUST_ZERO(pthread_mutexattr_init(&attributes));
	if (is_robust)
		MUST_ZERO(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST));
	if (inherits)
		MUST_ZERO(pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT));
	MUST_ZERO(pthread_mutex_init(mutex, &attributes));
}

static void *own(void *arg)
{
	MUST_ZERO(pthread_mutex_lock(&robust));
	MUST_ZERO(pthread_mutex_lock(&robust_inherit));
	owner_ready = 1;
	while (!end_owner)
		sleep_ms(1);
	return arg; /* holding both */
}

static void *lock(void *arg)
{
	int error = pthread_mutex_lock(arg);
	if (error == EOWNERDEAD)
		pthread_mutex_consistent(arg);
	if (error == 0 || error == EOWNERDEAD)
		pthread_mutex_unlock(arg);
	return (void *)(intptr_t)error;
}

static uint32_t words[2], condition, target;

static void *in_waitv(void *arg)
{
	struct futex_waitv wait[2] = {
		{ .uaddr = (uintptr_t)&words[0], .val = 0, .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG },
		{ .uaddr = (uintptr_t)&words[1], .val = 0, .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG },
	};
	(void)arg;
	long woken = syscall(SYS_futex_waitv, wait, 2, 0, NULL, CLOCK_MONOTONIC);
	return (void *)(intptr_t)(woken < 0 ? -errno : woken);
}

static void *in_requeue(void *arg)
{
	(void)arg;
	long result = syscall(SYS_futex, &condition, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, NULL, &target, 0);
	int error = result < 0 ? errno : 0;
	if (!error)
		syscall(SYS_futex, &target, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0);
	return (void *)(intptr_t)error;
}

static intptr_t result_of(pthread_t thread)
{
	void *result = NULL;
	struct timespec limit;
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 10;
	int error = pthread_timedjoin_np(thread, &result, &limit);
	return error ? -error : (intptr_t)result;
}

int main(void)
{
	while (specimen_round()) {
		pthread_t owner, first, second, waits[2], waitv, requeued;
		make(&inherit, false, true);
		make(&robust, true, false);
		make(&robust_inherit, true, true);
		end_owner = owner_ready = 0;
		condition = target = words[0] = words[1] = 0;
		MUST_ZERO(pthread_create(&owner, NULL, own, NULL));
		while (!owner_ready)
			sleep_ms(1);
		MUST_ZERO(pthread_mutex_lock(&inherit));
		first = start_blocked(lock, &inherit);
		second = start_blocked(lock, &inherit);
		waits[0] = start_blocked(lock, &robust);
		waits[1] = start_blocked(lock, &robust_inherit);
		waitv = start_blocked(in_waitv, NULL);
		requeued = start_blocked(in_requeue, NULL);
		specimen_ready();
		expect_int("unlocking what others wait for", 0, pthread_mutex_unlock(&inherit));
		expect_int("the first waiter", 0, result_of(first));
		expect_int("the second", 0, result_of(second));
		end_owner = 1;
		expect_int("the owner ends", 0, result_of(owner));
		expect_int("who waits for the robust one", EOWNERDEAD, result_of(waits[0]));
		expect_int("who waits for the other", EOWNERDEAD, result_of(waits[1]));
		sleep_ms(20);
		words[1] = 1;
		syscall(SYS_futex, &words[1], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
		expect_int("futex_waitv", 1, result_of(waitv));
		syscall(SYS_futex, &condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)0, &target, 0);
		expect_int("a requeueing wait", 0, result_of(requeued));
	}
	return specimen_end();
}
