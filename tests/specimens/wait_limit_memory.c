/*
 * Calls whose time limit lies in memory that the program uses again, most of which has passed: epoll_pwait2,
 * semtimedop, sigtimedwait, io_getevents, io_pgetevents, io_uring_enter. They last as long as they were to; the limit in
 * memory is what it was, and the same call made once more has all of it.
 *
 * harness: threads=7 modes=left-running,restored,renumbered
 */
#include "specimen.h"

#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <time.h>

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

enum { LENGTH_MS = 2300, PASSED_MS = 1500, DOWN_MS = 1200, AGAIN_MS = 50 };

static int epoll, semaphore, ring;
static aio_context_t context;

static long in_epoll(const struct timespec *limit)
{
	struct epoll_event event;
	return syscall(SYS_epoll_pwait2, epoll, &event, 1, limit, NULL, 0);
}

static long in_semaphore(const struct timespec *limit)
{
	struct sembuf take = { .sem_op = -1 };
	long result = semtimedop(semaphore, &take, 1, limit);
	return result < 0 && errno == EAGAIN ? 0 : result;
}

static long in_sigtimedwait(const struct timespec *limit)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	long result = sigtimedwait(&set, NULL, limit);
	return result < 0 && errno == EAGAIN ? 0 : result;
}

static long in_getevents(const struct timespec *limit)
{
	struct io_event event;
	return syscall(SYS_io_getevents, context, 1, 1, &event, limit);
}

static long in_pgetevents(const struct timespec *limit)
{
	struct io_event event;
	return syscall(SYS_io_pgetevents, context, 1, 1, &event, limit, NULL);
}

/* The argument leads to the limit; both are used again. */
static struct io_uring_getevents_arg arg;

static long in_ring(const struct timespec *limit)
{
	arg.ts = (uintptr_t)limit;
	long result = syscall(__NR_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &arg,
			      sizeof(arg));
	expect_int("the argument", (long long)(uintptr_t)limit, (long long)arg.ts);
	return result < 0 && errno == ETIME ? 0 : result;
}

static const struct {
	const char *name;
	long (*call)(const struct timespec *limit);
} calls[] = {
	{ "epoll_pwait2", in_epoll },	{ "semtimedop", in_semaphore },	  { "sigtimedwait", in_sigtimedwait },
	{ "io_getevents", in_getevents }, { "io_pgetevents", in_pgetevents }, { "io_uring_enter", in_ring },
};
enum { CALLS = sizeof(calls) / sizeof(calls[0]) };

struct sleeper {
	int which;
	struct timespec limit;
	long result, again;
	long long lasted, lasted_again, left;
};

static void set(struct timespec *limit, long ms)
{
	*limit = (struct timespec){ ms / 1000, ms % 1000 * 1000000 };
}

static void *sleep_twice(void *of)
{
	struct sleeper *sleeper = of;
	long long began = now_ms();
	set(&sleeper->limit, LENGTH_MS);
	sleeper->result = calls[sleeper->which].call(&sleeper->limit);
	sleeper->lasted = now_ms() - began;
	sleeper->left = sleeper->limit.tv_sec * 1000 + sleeper->limit.tv_nsec / 1000000;
	began = now_ms();
	set(&sleeper->limit, AGAIN_MS);
	sleeper->again = calls[sleeper->which].call(&sleeper->limit);
	sleeper->lasted_again = now_ms() - began;
	return NULL;
}

static void begin(void)
{
	struct epoll_event event = { .events = EPOLLIN };
	struct io_uring_params params = { 0 };
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	MUST_ZERO(pthread_sigmask(SIG_BLOCK, &set, NULL));
	epoll = MUST(epoll_create1(0));
	MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, MUST(eventfd(0, 0)), &event));
	semaphore = MUST(semget(IPC_PRIVATE, 1, 0600));
	MUST((int)syscall(SYS_io_setup, 4, &context));
	ring = (int)syscall(__NR_io_uring_setup, 4, &params);
	if (ring < 0 && (errno == EPERM || errno == ENOSYS))
		specimen_skip("this machine lets nobody make an io_uring");
	MUST(ring);
}

int main(void)
{
	begin();
	while (specimen_round()) {
		struct sleeper sleepers[CALLS];
		pthread_t threads[CALLS];
		long long began = now_ms();
		for (int i = 0; i < CALLS; i++) {
			sleepers[i].which = i;
			threads[i] = start_blocked(sleep_twice, &sleepers[i]);
		}
		while (now_ms() - began < PASSED_MS)
			sleep_ms(10);
		specimen_ready();
		for (int i = 0; i < CALLS; i++) {
			MUST_ZERO(pthread_join(threads[i], NULL));
			expect_int(calls[i].name, 0, sleepers[i].result);
			expect_between("  lasted (ms)", LENGTH_MS, LENGTH_MS + DOWN_MS, sleepers[i].lasted);
			expect_int("  its limit in memory (ms)", LENGTH_MS, sleepers[i].left);
			expect_int("  once more", 0, sleepers[i].again);
			expect_between("  lasted (ms)", AGAIN_MS, LENGTH_MS, sleepers[i].lasted_again);
		}
	}
	semctl(semaphore, 0, IPC_RMID);
	return specimen_end();
}
