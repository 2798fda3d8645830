/*
 * Rings that belong to one thread each (IORING_SETUP_SINGLE_ISSUER, with and without DEFER_TASKRUN): after
 * the restore that thread, and no other, submits; positions and unread completions are as they were. One of
 * them has submitted more than has completed (IOSQE_CQE_SKIP_SUCCESS), another is not enabled yet.
 */
#include "uring_specimen.h"

static pthread_barrier_t meet;

static void use(struct io_uring *ring, unsigned more)
{
	for (uint64_t i = 0; i < 300; i++) {
		uring_nop(ring, i);
		expect_int("submitted", 1, io_uring_submit_and_wait(ring, 1));
		uring_expect(ring, i, 0);
	}
	for (unsigned i = 0; i < more; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
		io_uring_prep_nop(sqe);
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
		expect_int("submitted", 1, io_uring_submit(ring));
	}
}

static void leave(struct io_uring *ring, uint64_t base)
{
	for (uint64_t i = 0; i < 5; i++)
		uring_nop(ring, base + i);
	expect_int("submitted", 5, io_uring_submit(ring));
	uring_expect(ring, base, 0);
}

static void find(struct io_uring *ring, uint64_t base)
{
	for (uint64_t i = 1; i < 5; i++)
		uring_expect(ring, base + i, 0);
	uring_expect_none(ring);
	uring_nop(ring, base + 50);
	expect_int("submitted", 1, io_uring_submit_and_wait(ring, 1));
	uring_expect(ring, base + 50, 0);
}

static struct io_uring_params issuer(void)
{
	return (struct io_uring_params){ .flags = IORING_SETUP_SINGLE_ISSUER };
}

static struct io_uring theirs;

static void *other_thread(void *unused)
{
	struct io_uring_params params = issuer();
	params.flags |= IORING_SETUP_DEFER_TASKRUN;
	uring_begin(&theirs, 16, &params);
	use(&theirs, 0);
	while (true) {
		pthread_barrier_wait(&meet);
		leave(&theirs, 500);
		pthread_barrier_wait(&meet);
		pthread_barrier_wait(&meet);
		find(&theirs, 500);
		pthread_barrier_wait(&meet);
	}
	return unused;
}

int main(void)
{
	struct io_uring_params params = issuer(), disabled = issuer();
	struct io_uring ring, later;
	uring_begin(&ring, 8, &params);
	disabled.flags |= IORING_SETUP_R_DISABLED;
	uring_begin(&later, 8, &disabled);
	use(&ring, 77);
	MUST_ZERO(pthread_barrier_init(&meet, NULL, 2));
	pthread_t thread;
	MUST_ZERO(pthread_create(&thread, NULL, other_thread, NULL));
	while (specimen_round()) {
		pthread_barrier_wait(&meet);
		leave(&ring, 700);
		pthread_barrier_wait(&meet);
		specimen_ready();
		uring_nop(&theirs, 1);
		expect_int("another thread's ring", -EEXIST, io_uring_submit(&theirs));
		theirs.sq.sqe_tail--; /* it never was */
		io_uring_smp_store_release(theirs.sq.ktail, theirs.sq.sqe_tail);
		theirs.sq.sqe_head = theirs.sq.sqe_tail;
		pthread_barrier_wait(&meet);
		find(&ring, 700);
		pthread_barrier_wait(&meet);
		if (specimen_number() > 1)
			continue;
		uring_nop(&later, 3);
		expect_int("a ring that is not enabled", -EBADFD, io_uring_submit(&later));
		expect_ok("enabling it", syscall(__NR_io_uring_register, later.ring_fd,
						 IORING_REGISTER_ENABLE_RINGS, NULL, 0));
		expect_int("what was prepared", 1, io_uring_submit(&later));
		uring_expect(&later, 3, 0);
	}
	return specimen_end();
}
