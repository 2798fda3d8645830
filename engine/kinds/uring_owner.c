/*
 * uring_owner.c - what the kernel ties to the thread or the memory that asks for it: rings of one
 * thread (it enables them, and it alone can then move their positions), registered buffers, ring
 * descriptors registered with a thread.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "engine/kinds/uring_parts.h"

static void register_buffers(const image_file_io_uring *state, struct plans *plans, uint32_t task,
			     int fd)
{
	u_int n = state->buffers.buffers_len;
	if (n == 0)
		return;
	uint32_t vectors = plans_data(plans, NULL, n * sizeof(struct iovec), 8);
	uint32_t tags = plans_data(plans, NULL, n * sizeof(uint64_t), 8);
	uint32_t order = plans_data(plans, NULL, sizeof(struct io_uring_rsrc_register), 8);
	for (u_int i = 0; i < n; i++) {
		const image_ring_buffer *buffer = &state->buffers.buffers_val[i];
		struct iovec vector = { (void *)buffer->address, buffer->length };
		plans_set(plans, vectors + i * sizeof(vector), &vector, sizeof(vector));
		plans_set(plans, tags + i * 8, &buffer->tag, 8);
	}
	struct io_uring_rsrc_register what = { .nr = n };
	plans_set(plans, order, &what, sizeof(what));
	plans_pointer(plans, order + offsetof(struct io_uring_rsrc_register, data), vectors);
	plans_pointer(plans, order + offsetof(struct io_uring_rsrc_register, tags), tags);
	plan_note(plans, "%u buffers of io_uring", n);
	plan_call(plans, task, SYS_io_uring_register, IMM(fd), IMM(IORING_REGISTER_BUFFERS2),
		  DATA(order), IMM(sizeof(what)));
}

void uring_settle(struct restore *restore, const image_file *file, const void *in,
		  struct plans *plans, uint32_t task, int fd)
{
	(void)restore;
	(void)file;
	const image_file_io_uring *state = in;
	if (!uring_has_issuer(state))
		register_buffers(state, plans, task, fd);
}

/* --- rings of one thread ------------------------------------------------------------------ */

struct way { /* a ring, as its thread has it mapped */
	struct plans *plans;
	uint32_t task;
	int fd;
	const struct ring *ring;
	uint64_t rings, sqes; /* addresses */
};

static void put_word(const struct way *way, uint32_t offset, uint32_t value)
{
	plan_copy(way->plans, way->task, IMM(way->rings + offset),
		  DATA(plans_data(way->plans, &value, sizeof(value), 4)), sizeof(value));
}

/* Takes n submissions like this one, from the position `at`; completions are thrown away. */
static void take(const struct way *way, const struct io_uring_sqe *sqe, uint32_t at, uint32_t n,
		 bool complete)
{
	const struct io_uring_params *p = &way->ring->params;
	uint32_t all = plans_data(way->plans, NULL, way->ring->sqes_size, 8);
	for (uint32_t i = 0; n && i < p->sq_entries; i++)
		plans_set(way->plans, all + i * way->ring->sqe, sqe, sizeof(*sqe));
	if (n)
		plan_copy(way->plans, way->task, IMM(way->sqes), DATA(all), way->ring->sqes_size);
	while (n) {
		uint32_t now = n < p->sq_entries ? n : p->sq_entries;
		plan_call(way->plans, way->task, SYS_io_uring_enter, IMM(way->fd), IMM(now), IMM(0),
			  IMM(IORING_ENTER_GETEVENTS), IMM(0), IMM(0));
		plan_accept_equal(way->plans, now);
		at += now;
		n -= now;
		if (complete)
			put_word(way, p->cq_off.head, at);
	}
}

static void enable(struct restore *restore, const image_file *file,
		   const image_file_io_uring *state, struct plans *plans, uint32_t task, int fd)
{
	const struct ring *ring = uring_made(restore, file->id);
	uint64_t rings =
		restore_mapped(restore, state->submitter, file->id, IORING_OFF_SQ_RING, STORE_PAGE);
	uint64_t sqes = restore_mapped(restore, state->submitter, file->id, IORING_OFF_SQES,
				       ring->sqes_size);
	struct way way = { plans, task, fd, ring, rings, sqes };
	plan_note(plans, "io_uring of thread %d", state->submitter);
	plan_call(plans, task, SYS_io_uring_register, IMM(fd), IMM(IORING_REGISTER_ENABLE_RINGS),
		  IMM(0), IMM(0));
	if (state->sq_head == 0)
		return;
	/* The kernel takes no more at once than it is told to. */
	put_word(&way, ring->params.sq_off.tail, state->sq_head);
	take(&way, &(struct io_uring_sqe){ .opcode = IORING_OP_NOP }, 0, state->cq_tail, true);
	take(&way,
	     &(struct io_uring_sqe){ .opcode = IORING_OP_NOP, .flags = IOSQE_CQE_SKIP_SUCCESS },
	     state->cq_tail, state->sq_head - state->cq_tail, false);
}

void uring_settle_task(struct restore *restore, const image_file *file, const void *in,
		       struct plans *plans, uint32_t task, int fd, pid_t tid)
{
	const image_file_io_uring *state = in;
	if (state->submitter == tid) {
		register_buffers(state, plans, task, fd);
		enable(restore, file, state, plans, task, fd);
	}
	for (u_int i = 0; i < state->registered.registered_len; i++) {
		const image_ring_index *index = &state->registered.registered_val[i];
		struct io_uring_rsrc_update update = { .offset = index->index,
						       .data = (unsigned)fd };
		if (index->tid != tid)
			continue;
		plan_note(plans, "registered descriptor %u of io_uring", index->index);
		plan_call(plans, task, SYS_io_uring_register, IMM(fd),
			  IMM(IORING_REGISTER_RING_FDS),
			  DATA(plans_data(plans, &update, sizeof(update), 8)), IMM(1));
		plan_accept_equal(plans, 1);
	}
}
