/*
 * uring_specimen.h - what specimens of io_uring share.
 */
#ifndef TESTS_SPECIMENS_URING_SPECIMEN_H
#define TESTS_SPECIMENS_URING_SPECIMEN_H

#include "specimen.h"

#include <liburing.h>

/* Skips where this machine does not let anybody make a ring, or none like this. */
static inline void uring_begin(struct io_uring *ring, unsigned entries,
			       struct io_uring_params *params)
{
	int result = io_uring_queue_init_params(entries, ring, params);
	if (result == -EPERM)
		specimen_skip("kernel.io_uring_disabled forbids io_uring");
	if (result == -EINVAL || result == -ENOSYS)
		specimen_skip("this kernel has no io_uring with flags %#x", params->flags);
	errno = -result;
	MUST(result < 0 ? -1 : 0);
}

/* Submits a request that does nothing. */
static inline void uring_nop(struct io_uring *ring, uint64_t data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	if (!expect_int("a free submission", 1, sqe != NULL))
		return;
	io_uring_prep_nop(sqe);
	io_uring_sqe_set_data64(sqe, data);
}

/* The next completion is of this request. */
static inline void uring_expect(struct io_uring *ring, uint64_t data, int result)
{
	struct io_uring_cqe *cqe = NULL;
	struct __kernel_timespec patience = { .tv_sec = 5 };
	if (!expect_int("a completion", 0, io_uring_wait_cqe_timeout(ring, &cqe, &patience)))
		return;
	expect_int("of", (long long)data, (long long)cqe->user_data);
	expect_int("result", result, cqe->res);
	io_uring_cqe_seen(ring, cqe);
}

static inline void uring_expect_none(struct io_uring *ring)
{
	struct io_uring_cqe *cqe;
	expect_int("no completion", -EAGAIN, io_uring_peek_cqe(ring, &cqe));
}

#endif
