/*
 * uring_use.c - a ring is brought to the positions it had: programs keep copies of them. No call sets a position. The
 * submission ring moves by submitting, the completion ring by what comes of that: IORING_OP_NOP, with or without a
 * completion. Buffers are provided by submissions, too, and those that were chosen since are chosen again: bytes of a
 * socket go there, each into one. What a ring has got more completions than submissions (multishot requests) is sent to
 * it from another ring, IORING_OP_MSG_RING.
 *
 * Where restrictions forbid IORING_OP_NOP, it fails, and completes with that.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/kinds/uring_parts.h"
#include "store/scope.h"

#define BUNDLE 256u			   /* PEEK_MAX_IMPORT, io_uring/kbuf.h: buffers that one request takes */
#define RECVSEND_BUNDLE (1u << 4)	   /* IORING_RECVSEND_BUNDLE, Linux 6.10 */
#define PATIENCE_NS 5000000000ll	   /* for a polling thread */

/* --- what is submitted ------------------------------------------------------------------ */

static uint32_t bundles(const image_ring_group *group)
{
	return (group->head + BUNDLE - 1) / BUNDLE;
}

static uint32_t count_special(const image_file_io_uring *state)
{
	uint32_t n = state->provided.provided_len;
	for (u_int i = 0; i < state->groups.groups_len; i++)
		n += bundles(&state->groups.groups_val[i]);
	return n;
}

const char *uring_cannot_use(const image_file_io_uring *state)
{
	uint32_t special = count_special(state);
	if (special > state->sq_head)
		return "with provided buffers, more of them than it has had submissions for";
	if (uring_has_chosen(state) && (state->flags & IORING_SETUP_IOPOLL))
		return "of IORING_SETUP_IOPOLL with buffers that were chosen";
	if (uring_has_chosen(state) && (state->flags & IORING_SETUP_SQPOLL) && uring_has_issuer(state))
		return "that is polled, of one thread, with buffers that were chosen";
	if (state->limits.in_force && special)
		return "with provided buffers, and restrictions";
	if (state->limits.in_force && state->sq_head > state->cq_tail)
		return "with restrictions, and fewer completions than submissions";
	return NULL;
}

struct listing {
	struct uring_step *steps;
	size_t n;
	uint32_t silent; /* submissions without a completion that are left to be given out */
};

/* `n` submissions, as many as possible without a completion. */
static uint32_t add(struct listing *listing, const struct io_uring_sqe *sqe, uint32_t n)
{
	uint32_t silent = n < listing->silent ? n : listing->silent;
	struct io_uring_sqe mute = *sqe;
	mute.flags |= IOSQE_CQE_SKIP_SUCCESS;
	if (silent)
		listing->steps[listing->n++] = (struct uring_step){ mute, silent, 0 };
	if (n > silent)
		listing->steps[listing->n++] = (struct uring_step){ *sqe, n - silent, 0 };
	listing->silent -= silent;
	return n - silent;
}

static uint32_t add_provided(struct listing *listing, const image_ring_provided *run)
{
	return add(listing, &(struct io_uring_sqe){ .opcode = IORING_OP_PROVIDE_BUFFERS, .fd = (int)run->count,
						    .addr = run->address, .len = run->length, .off = run->first,
						    .buf_group = (uint16_t)run->group }, 1);
}

/* No more bytes than one is to have: it would go on with those of the next. */
static uint32_t add_chosen(struct listing *listing, const image_ring_group *group, int socket)
{
	uint32_t told = 0;
	for (uint32_t left = group->head, n; left > 0; left -= n) {
		n = left < BUNDLE ? left : BUNDLE;
		struct io_uring_sqe sqe = { .opcode = IORING_OP_RECV, .fd = socket < 0 ? 0 : socket,
					    .ioprio = RECVSEND_BUNDLE, .len = n, .buf_group = (uint16_t)group->id,
					    .flags = IOSQE_BUFFER_SELECT | (socket < 0 ? IOSQE_FIXED_FILE : 0) };
		told += add(listing, &sqe, 1);
		listing->steps[listing->n - 1].bytes = n;
	}
	return told;
}

struct uring_step *uring_steps(const image_file_io_uring *state, int socket, size_t *n, uint32_t *more)
{
	uint32_t taken = state->sq_head, done = state->cq_tail, both = taken < done ? taken : done, told = 0;
	struct listing listing = {
		.steps = calloc(count_special(state) + 4, sizeof(*listing.steps)),
		.silent = taken - both,
	};
	if (!listing.steps)
		return NULL;
	for (u_int i = 0; i < state->provided.provided_len; i++)
		told += add_provided(&listing, &state->provided.provided_val[i]);
	for (u_int i = 0; i < state->groups.groups_len; i++)
		told += add_chosen(&listing, &state->groups.groups_val[i], socket);
	add(&listing, &(struct io_uring_sqe){ .opcode = IORING_OP_NOP }, listing.silent);
	add(&listing, &(struct io_uring_sqe){ .opcode = IORING_OP_NOP }, both - told);
	*n = listing.n;
	*more = done - both;
	return listing.steps;
}

void uring_bait(const image_ring_group *group, uint64_t byte, struct io_uring_buf *entries)
{
	for (uint32_t i = 0; i < group->entries; i++)
		entries[i] = (struct io_uring_buf){ .addr = byte, .len = 1 };
	entries[0].resv = (uint16_t)group->head; /* where the tail is: struct io_uring_buf_ring */
}

/* --- by this process ------------------------------------------------------------------------- */

/* The kernel takes no more at once than it is told to; the indices lead to the first anyway. */
static void fill_with(struct ring *ring, const struct io_uring_sqe *sqe)
{
	memset(ring->sqes, 0, ring->sqes_size);
	for (uint32_t i = 0; i < ring->params.sq_entries; i++)
		memcpy(ring->sqes + i * ring->sqe, sqe, sizeof(*sqe));
	ring_put(ring, ring->sqes, ring->sqes_size);
	if (ring->params.flags & SETUP_NO_SQARRAY)
		return;
	memset(ring->rings + ring->params.sq_off.array, 0, ring->params.sq_entries * 4ul);
	ring_put(ring, ring->rings + ring->params.sq_off.array, ring->params.sq_entries * 4ul);
}

static bool await_head(const struct ring *ring, uint32_t head)
{
	struct timespec now, begin;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	while (ring_word(ring, ring->params.sq_off.head) != head) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		if ((now.tv_sec - begin.tv_sec) * 1000000000ll + now.tv_nsec - begin.tv_nsec > PATIENCE_NS)
			return false;
		sched_yield();
	}
	return true;
}

/* One that fails may end the call before the others. */
static bool enter(const struct ring *ring, int fd, uint32_t n, uint32_t head, bool polled)
{
	if (polled)
		return syscall(SYS_io_uring_enter, fd, n, 0, IORING_ENTER_SQ_WAKEUP, NULL, 0) >= 0 &&
		       await_head(ring, head);
	for (uint32_t done = 0; done < n;) {
		long now = syscall(SYS_io_uring_enter, fd, n - done, 0, IORING_ENTER_GETEVENTS, NULL, 0);
		if (now <= 0)
			return false;
		done += (uint32_t)now;
	}
	return true;
}

/* Submits n times what fill_with() has laid; completions are thrown away. */
static int submit(struct ring *ring, int fd, uint32_t n, bool polled)
{
	const struct io_uring_params *p = &ring->params;
	while (n) {
		uint32_t now = n < p->sq_entries ? n : p->sq_entries;
		uint32_t tail = ring_word(ring, p->sq_off.tail) + now;
		ring_set(ring, p->sq_off.tail, tail);
		if (!enter(ring, fd, now, tail, polled))
			return -1;
		ring_set(ring, p->cq_off.head, ring_word(ring, p->cq_off.tail));
		n -= now;
	}
	return 0;
}

/* n completions more, from a ring that is made for it. */
static int send_completions(struct ring *ring, int fd, uint32_t n, struct fsnap_error *err)
{
	image_file_io_uring plain = { .sq_entries = 128, .cq_entries = 256 };
	struct io_uring_params params;
	struct ring helper;
	uint32_t most = ring->params.cq_entries < 128 ? ring->params.cq_entries : 128;
	cleanup_fd int own = ring_setup(&plain, 0, &params);
	ring_measure(&helper, &params);
	if (own < 0 || ring_map(&helper, own, true, err) < 0)
		return own < 0 ? fail(err, FSNAP_E_RESTORE_STEP, errno, "an io_uring") : -1;
	fill_with(&helper, &(struct io_uring_sqe){ .opcode = IORING_OP_MSG_RING, .fd = fd });
	int result = 0;
	while (n && result == 0) {
		uint32_t now = n < most ? n : most;
		result = submit(&helper, own, now, false);
		ring_set(ring, ring->params.cq_off.head, ring_word(ring, ring->params.cq_off.tail));
		n -= now;
	}
	ring_unmap(&helper);
	return result < 0 ? fail(err, FSNAP_E_RESTORE_STEP, errno, "IORING_OP_MSG_RING") : 0;
}

static bool feed(int feeder, uint32_t bytes)
{
	static const char nothing[BUNDLE];
	return bytes == 0 || send(feeder, nothing, bytes, MSG_DONTWAIT) == (ssize_t)bytes;
}

int uring_use(struct ring *ring, int fd, const image_file_io_uring *state, int socket, int feeder,
	      struct fsnap_error *err)
{
	size_t n;
	uint32_t more;
	bool polled = state->flags & IORING_SETUP_SQPOLL;
	cleanup_free struct uring_step *steps = uring_steps(state, socket, &n, &more);
	if (!steps)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	for (size_t i = 0; i < n; i++) {
		fill_with(ring, &steps[i].sqe);
		if (!feed(feeder, steps[i].bytes) || submit(ring, fd, steps[i].n, polled) < 0)
			return fail(err, FSNAP_E_RESTORE_STEP, errno, "use of an io_uring (operation %u)",
				    steps[i].sqe.opcode);
	}
	if (more && send_completions(ring, fd, more, err) < 0)
		return -1;
	if (ring_word(ring, ring->params.sq_off.head) != state->sq_head ||
	    ring_word(ring, ring->params.cq_off.tail) != state->cq_tail)
		return fail(err, FSNAP_E_RESTORE_STEP, 0, "the position of an io_uring");
	return 0;
}
