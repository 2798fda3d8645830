/*
 * uring_make.c - a ring is made again, and brought to the positions it had: programs keep copies of them.
 * No call sets a position. The submission ring moves by submitting, the completion ring by what
 * comes of that: IORING_OP_NOP, with or without a completion. What a ring has got more completions
 * than submissions (multishot requests) is sent to it from another ring, IORING_OP_MSG_RING.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/uring_parts.h"
#include "store/scope.h"

struct made { /* a ring of this restore, by file id */
	unsigned file_id;
	struct ring ring;
};

struct workbench {
	size_t n;
	struct made *made;
};

const struct ring *uring_made(struct restore *restore, unsigned file_id)
{
	const struct workbench *bench = *restore_scratch(restore, &kind_uring);
	for (size_t i = 0; bench && i < bench->n; i++)
		if (bench->made[i].file_id == file_id)
			return &bench->made[i].ring;
	return NULL;
}

static struct ring *add_ring(struct restore *restore, unsigned file_id, struct fsnap_error *err)
{
	struct workbench **bench = (struct workbench **)restore_scratch(restore, &kind_uring);
	if (!*bench)
		*bench = calloc(1, sizeof(**bench));
	struct made *made =
		*bench ? realloc((*bench)->made, ((*bench)->n + 1) * sizeof(*made)) : NULL;
	if (!made) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
		return NULL;
	}
	(*bench)->made = made;
	made[(*bench)->n] = (struct made){ .file_id = file_id };
	return &made[(*bench)->n++].ring;
}

void uring_restore_end(void *scratch)
{
	struct workbench *bench = scratch;
	for (size_t i = 0; i < bench->n; i++)
		ring_unmap(&bench->made[i].ring);
	free(bench->made);
}

/* --- positions ------------------------------------------------------------------------ */

static void fill_with(const struct ring *ring, const struct io_uring_sqe *sqe)
{
	memset(ring->sqes, 0, ring->sqes_size);
	for (uint32_t i = 0; i < ring->params.sq_entries; i++)
		memcpy(ring->sqes + i * ring->sqe, sqe, sizeof(*sqe));
}

/* Submits n times what fill_with() has laid; completions are thrown away. */
static int submit(const struct ring *ring, int fd, uint32_t n)
{
	const struct io_uring_params *p = &ring->params;
	while (n) {
		uint32_t now = n < p->sq_entries ? n : p->sq_entries;
		uint32_t *tail = ring_word(ring, p->sq_off.tail);
		__atomic_store_n(tail, *tail + now, __ATOMIC_RELEASE);
		if (syscall(SYS_io_uring_enter, fd, now, 0, IORING_ENTER_GETEVENTS, NULL, 0) !=
		    (long)now)
			return -1;
		*ring_word(ring, p->cq_off.head) = *ring_word(ring, p->cq_off.tail);
		n -= now;
	}
	return 0;
}

/* n completions more, from a ring that is made for it. */
static int send_completions(const struct ring *ring, int fd, uint32_t n, struct fsnap_error *err)
{
	image_file_io_uring plain = { .sq_entries = 128, .cq_entries = 256 };
	struct io_uring_params params;
	struct ring helper;
	uint32_t most = ring->params.cq_entries < 128 ? ring->params.cq_entries : 128;
	cleanup_fd int own = ring_setup(&plain, 0, &params);
	if (own < 0 || ring_map(&helper, own, &params, true, err) < 0)
		return own < 0 ? fail(err, FSNAP_E_RESTORE_STEP, errno, "an io_uring") : -1;
	fill_with(&helper, &(struct io_uring_sqe){ .opcode = IORING_OP_MSG_RING, .fd = fd });
	int result = 0;
	while (n && result == 0) {
		uint32_t now = n < most ? n : most;
		result = submit(&helper, own, now);
		*ring_word(ring, ring->params.cq_off.head) =
			*ring_word(ring, ring->params.cq_off.tail);
		n -= now;
	}
	ring_unmap(&helper);
	return result < 0 ? fail(err, FSNAP_E_RESTORE_STEP, errno, "IORING_OP_MSG_RING") : 0;
}

static int advance(const struct ring *ring, int fd, const image_file_io_uring *state,
		   struct fsnap_error *err)
{
	uint32_t taken = state->sq_head, done = state->cq_tail, both = taken < done ? taken : done;
	fill_with(ring, &(struct io_uring_sqe){ .opcode = IORING_OP_NOP });
	if (submit(ring, fd, both) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "IORING_OP_NOP");
	fill_with(ring, &(struct io_uring_sqe){ .opcode = IORING_OP_NOP,
						.flags = IOSQE_CQE_SKIP_SUCCESS });
	if (submit(ring, fd, taken - both) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "IORING_OP_NOP");
	if (done > both && send_completions(ring, fd, done - both, err) < 0)
		return -1;
	if (*ring_word(ring, ring->params.sq_off.head) != taken ||
	    *ring_word(ring, ring->params.cq_off.tail) != done)
		return fail(err, FSNAP_E_RESTORE_STEP, 0, "the position of an io_uring");
	return 0;
}

/* --- made and filled -------------------------------------------------------------------------- */

static int check(const image_file_io_uring *state, const struct ring *ring, struct fsnap_error *err)
{
	size_t array = state->flags & SETUP_NO_SQARRAY ? 0 : 4ul * state->sq_entries;
	if (state->sqes.sqes_len == ring->sqes_size && state->array.array_len == array &&
	    state->cqes.cqes_len % ring->cqe == 0 &&
	    state->cqes.cqes_len <= state->cq_entries * ring->cqe &&
	    ring->params.sq_entries == state->sq_entries &&
	    ring->params.cq_entries == state->cq_entries)
		return 0;
	return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "an io_uring's memory is not of its size");
}

int uring_make(struct restore *restore, const image_file *file, const void *in,
	       struct fsnap_error *err)
{
	const image_file_io_uring *state = in;
	struct io_uring_params params;
	struct ring *ring = add_ring(restore, file->id, err);
	if (!ring)
		return -1;
	/* What belongs to a thread belongs to the one that enables it. */
	cleanup_fd int fd =
		ring_setup(state, uring_has_issuer(state) ? IORING_SETUP_R_DISABLED : 0, &params);
	if (fd < 0) {
		fail(err, FSNAP_E_RESTORE_STEP, errno, "io_uring_setup");
		return error_hint(err, errno == EPERM
					       ? "allow it: sysctl kernel.io_uring_disabled=0"
					       : "this kernel cannot set up a ring like it");
	}
	if (state->flags & IORING_SETUP_ATTACH_WQ)
		restore_note(restore,
			     "an io_uring that had its workers in common with another has its own");
	if (ring_map(ring, fd, &params, true, err) < 0 || check(state, ring, err) < 0)
		return -1;
	bool enabled = !uring_has_issuer(state) && !(state->flags & IORING_SETUP_R_DISABLED);
	if (enabled && advance(ring, fd, state, err) < 0)
		return -1;
	return steal_fd(&fd);
}

static int register_files(struct restore *restore, const image_file_io_uring *state, int fd,
			  struct fsnap_error *err)
{
	u_int n = state->files.files_len;
	cleanup_free int *fds = malloc((n + 1) * sizeof(*fds));
	if (!fds)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	for (u_int i = 0; i < n; i++)
		fds[i] = state->files.files_val[i] ? restore_fd(restore, state->files.files_val[i])
						   : -1;
	if (n && syscall(SYS_io_uring_register, fd, IORING_REGISTER_FILES, fds, n) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "IORING_REGISTER_FILES");
	return 0;
}

int uring_connect(struct restore *restore, const image_file *file, const void *in, int fd,
		  struct fsnap_error *err)
{
	(void)file;
	const image_file_io_uring *state = in;
	int event = restore_fd(restore, state->eventfd);
	unsigned how =
		state->eventfd_async ? IORING_REGISTER_EVENTFD_ASYNC : IORING_REGISTER_EVENTFD;
	if (register_files(restore, state, fd, err) < 0)
		return -1;
	if (state->eventfd && syscall(SYS_io_uring_register, fd, how, &event, 1) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "IORING_REGISTER_EVENTFD");
	return 0;
}

/* The kernel is where it was; now its memory is, too. Who owns the ring has had it to reach the
 * position, so this comes last. */
static void put_memory(const struct ring *ring, const image_file_io_uring *state)
{
	const struct io_uring_params *p = &ring->params;
	uint32_t unread = (uint32_t)(state->cqes.cqes_len / ring->cqe);
	memcpy(ring->sqes, state->sqes.sqes_val, ring->sqes_size);
	memcpy(ring->rings + p->sq_off.array, state->array.array_val, state->array.array_len);
	for (uint32_t i = 0; i < unread; i++)
		memcpy(ring_cqe(ring, state->cq_tail - unread + i),
		       state->cqes.cqes_val + i * ring->cqe, ring->cqe);
	*ring_word(ring, p->sq_off.tail) = state->sq_tail;
	*ring_word(ring, p->sq_off.dropped) = state->sq_dropped;
	*ring_word(ring, p->cq_off.head) = state->cq_head;
	*ring_word(ring, p->cq_off.overflow) = state->cq_overflow;
	*ring_word(ring, p->cq_off.flags) = state->cq_flags;
}

void uring_release(struct restore *restore)
{
	const struct workbench *bench = *restore_scratch(restore, &kind_uring);
	for (size_t i = 0; i < bench->n; i++)
		put_memory(&bench->made[i].ring, restore_file_by_id(restore, bench->made[i].file_id,
								    &(const image_file *){ NULL }));
}
