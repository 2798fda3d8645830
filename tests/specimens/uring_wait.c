/*
 * A thread that sleeps in io_uring_enter(2) until there is a completion goes on sleeping, with a
 * timeout and without; what another thread submits afterwards wakes it. Two processes have one ring in common.
 *
 * harness: threads=4
 */
#include "uring_specimen.h"

#include <sys/wait.h>

static struct io_uring shared, timed;

static void *wait_long(void *unused)
{
	uint64_t word = (uint64_t)(uintptr_t)unused;
	expect_ok("io_uring_enter", syscall(__NR_io_uring_enter, shared.ring_fd, 0, 1,
					    IORING_ENTER_GETEVENTS, NULL, 0));
	expect_int("a completion is there", 1, (long long)io_uring_cq_ready(&shared));
	return (void *)word;
}

static void *wait_briefly(void *unused)
{
	struct __kernel_timespec patience = { .tv_sec = 20 };
	struct io_uring_cqe *cqe;
	if (expect_int("with a timeout", 0, io_uring_wait_cqe_timeout(&timed, &cqe, &patience)))
		expect_int("what it waited for", 77, (long long)cqe->user_data);
	return unused;
}

/* Submits to the ring it has inherited. */
static void child(void)
{
	while (specimen_child_round()) {
		uring_nop(&shared, 5);
		expect_int("the child submits", 1, io_uring_submit(&shared));
	}
	_exit(specimen_end());
}

int main(void)
{
	struct io_uring_params params = { 0 }, other = { 0 };
	uring_begin(&shared, 4, &params);
	uring_begin(&timed, 4, &other);
	pid_t pid = MUST(fork());
	if (pid == 0)
		child();
	while (specimen_round()) {
		pthread_t sleeper = start_blocked(wait_long, NULL),
			  second = start_blocked(wait_briefly, NULL);
		specimen_ready();
		MUST_ZERO(pthread_join(sleeper, NULL)); /* woken by the child */
		uring_expect(&shared, 5, 0);
		uring_nop(&timed, 77);
		expect_int("submitted", 1, io_uring_submit(&timed));
		MUST_ZERO(pthread_join(second, NULL));
		uring_expect(&timed, 77, 0);
		specimen_await(1);
	}
	int status;
	MUST(waitpid(pid, &status, 0));
	expect_int("child's status", 0, status);
	return specimen_end();
}
