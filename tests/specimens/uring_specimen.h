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

/* Younger than Debian 12's headers and its liburing. */
#define URING_NO_MMAP (1u << 14)
enum { URING_REGISTER_PBUF_RING = 22, URING_UNREGISTER_PBUF_RING = 23, URING_PBUF_STATUS = 26 };
enum { URING_BUFFERS_OF_KERNEL = 1, URING_BUFFERS_INCREMENTAL = 2 };

static inline long uring_register(const struct io_uring *ring, unsigned what, const void *order, unsigned n)
{
	return syscall(__NR_io_uring_register, ring->ring_fd, what, order, n);
}

/* A ring in memory of ours. */
static inline void uring_begin_in(struct io_uring *ring, unsigned entries, struct io_uring_params *p, char *rings,
				  char *sqes)
{
	p->flags |= URING_NO_MMAP;
	p->cq_off.resv2 = (uintptr_t)rings; /* user_addr */
	p->sq_off.resv2 = (uintptr_t)sqes;
	memset(ring, 0, sizeof(*ring));
	int fd = (int)syscall(__NR_io_uring_setup, entries, p);
	if (fd < 0 && (errno == EPERM || errno == EINVAL || errno == ENOSYS))
		specimen_skip("this machine has no io_uring with flags %#x", p->flags);
	ring->ring_fd = ring->enter_ring_fd = MUST(fd);
	ring->flags = p->flags;
	ring->features = p->features;
	ring->sq.khead = (unsigned *)(rings + p->sq_off.head);
	ring->sq.ktail = (unsigned *)(rings + p->sq_off.tail);
	ring->sq.kring_mask = (unsigned *)(rings + p->sq_off.ring_mask);
	ring->sq.kring_entries = (unsigned *)(rings + p->sq_off.ring_entries);
	ring->sq.kflags = (unsigned *)(rings + p->sq_off.flags);
	ring->sq.kdropped = (unsigned *)(rings + p->sq_off.dropped);
	ring->sq.array = (unsigned *)(rings + p->sq_off.array);
	ring->sq.sqes = (struct io_uring_sqe *)sqes;
	ring->sq.ring_mask = p->sq_entries - 1;
	ring->sq.ring_entries = p->sq_entries;
	ring->cq.khead = (unsigned *)(rings + p->cq_off.head);
	ring->cq.ktail = (unsigned *)(rings + p->cq_off.tail);
	ring->cq.kring_mask = (unsigned *)(rings + p->cq_off.ring_mask);
	ring->cq.kring_entries = (unsigned *)(rings + p->cq_off.ring_entries);
	ring->cq.kflags = (unsigned *)(rings + p->cq_off.flags);
	ring->cq.koverflow = (unsigned *)(rings + p->cq_off.overflow);
	ring->cq.cqes = (struct io_uring_cqe *)(rings + p->cq_off.cqes);
	ring->cq.ring_mask = p->cq_entries - 1;
	ring->cq.ring_entries = p->cq_entries;
	for (unsigned i = 0; i < p->sq_entries; i++)
		ring->sq.array[i] = i;
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
