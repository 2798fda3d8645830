/*
 * uring_make.c - a ring is made again: set up, equipped, brought to its positions, and at the very end its memory is what
 * it was.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/uring_parts.h"
#include "store/scope.h"

struct workbench {
	size_t n;
	struct made **made;
};

struct made *uring_made(struct restore *restore, unsigned file_id)
{
	const struct workbench *bench = *restore_scratch(restore, &kind_uring);
	for (size_t i = 0; bench && i < bench->n; i++)
		if (bench->made[i]->file_id == file_id)
			return bench->made[i];
	return NULL;
}

static struct made *add_ring(struct restore *restore, unsigned file_id, struct fsnap_error *err)
{
	struct workbench **bench = (struct workbench **)restore_scratch(restore, &kind_uring);
	if (!*bench)
		*bench = calloc(1, sizeof(**bench));
	struct made **made =
		*bench ? realloc((*bench)->made, ((*bench)->n + 1) * sizeof(*made)) : NULL;
	if (made)
		(*bench)->made = made;
	struct made *own = made ? calloc(1, sizeof(*own)) : NULL;
	if (!own) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
		return NULL;
	}
	*own = (struct made){ .file_id = file_id, .fd = -1 };
	return made[(*bench)->n++] = own;
}

void uring_restore_end(void *scratch)
{
	struct workbench *bench = scratch;
	for (size_t i = 0; i < bench->n; i++) {
		ring_unmap(&bench->made[i]->ring);
		if (bench->made[i]->fd >= 0)
			close(bench->made[i]->fd);
		free(bench->made[i]);
	}
	free(bench->made);
}

/* --- made and filled -------------------------------------------------------------------------- */

static bool groups_fit(const image_file_io_uring *state)
{
	for (u_int i = 0; i < state->groups.groups_len; i++) {
		const image_ring_group *group = &state->groups.groups_val[i];
		if (group->entries == 0 || group->entries > 32768 || group->head > 65535 ||
		    group->memory.memory_len != uring_group_bytes(group))
			return false;
	}
	return true;
}

static int check(const image_file_io_uring *state, const struct ring *ring, struct fsnap_error *err)
{
	size_t array = state->flags & SETUP_NO_SQARRAY ? 0 : 4ul * state->sq_entries;
	if (state->sqes.sqes_len == ring->sqes_size && state->array.array_len == array &&
	    state->cqes.cqes_len % ring->cqe == 0 &&
	    state->cqes.cqes_len <= state->cq_entries * ring->cqe &&
	    ring->params.sq_entries == state->sq_entries &&
	    ring->params.cq_entries == state->cq_entries && groups_fit(state) && !uring_cannot_use(state))
		return 0;
	return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "an io_uring's memory is not of its size");
}

/* Not yet enabled: restrictions are to be registered, or its thread is to do that; or it only stands in. */
static bool waits(const image_file_io_uring *state)
{
	return uring_has_issuer(state) || state->limits.set || uring_is_own(state);
}

int uring_make(struct restore *restore, const image_file *file, const void *in,
	       struct fsnap_error *err)
{
	const image_file_io_uring *state = in;
	struct io_uring_params params;
	struct made *made = add_ring(restore, file->id, err);
	if (!made)
		return -1;
	cleanup_fd int fd = ring_setup(state, waits(state) ? IORING_SETUP_R_DISABLED : 0, &params);
	if (fd < 0) {
		fail(err, FSNAP_E_RESTORE_STEP, errno, "io_uring_setup");
		return error_hint(err, errno == EPERM
					       ? "allow it: sysctl kernel.io_uring_disabled=0"
					       : "this kernel cannot set up a ring like it");
	}
	ring_measure(&made->ring, &params);
	if (check(state, &made->ring, err) < 0)
		return -1;
	if (uring_is_own(state))
		return steal_fd(&fd);
	if (ring_map(&made->ring, fd, true, err) < 0 || uring_register_groups(state, fd, err) < 0)
		return -1;
	bool now = !uring_has_issuer(state) && !uring_is_driven(state) &&
		   !(state->flags & IORING_SETUP_R_DISABLED);
	if (now && uring_use(&made->ring, fd, state, -1, -1, err) < 0)
		return -1;
	return steal_fd(&fd);
}

int uring_connect(struct restore *restore, const image_file *file, const void *in, int fd,
		  struct fsnap_error *err)
{
	(void)file;
	return uring_is_own(in) ? 0 : uring_equip(restore, in, fd, err);
}

/* The kernel is where it was; now its memory is, too. Who owns the ring has had it to reach the
 * position, so this comes last. */
static void put_memory(struct ring *ring, const image_file_io_uring *state)
{
	const struct io_uring_params *p = &ring->params;
	uint32_t unread = (uint32_t)(state->cqes.cqes_len / ring->cqe);
	memcpy(ring->sqes, state->sqes.sqes_val, ring->sqes_size);
	ring_put(ring, ring->sqes, ring->sqes_size);
	if (state->array.array_len) /* IORING_SETUP_NO_SQARRAY */
		memcpy(ring->rings + p->sq_off.array, state->array.array_val, state->array.array_len);
	ring_put(ring, ring->rings + p->sq_off.array, state->array.array_len);
	for (uint32_t i = 0; i < unread; i++) {
		char *to = ring_cqe(ring, state->cq_tail - unread + i);
		memcpy(to, state->cqes.cqes_val + i * ring->cqe, ring->cqe);
		ring_put(ring, to, ring->cqe);
	}
	ring_set(ring, p->sq_off.dropped, state->sq_dropped);
	ring_set(ring, p->cq_off.head, state->cq_head);
	ring_set(ring, p->cq_off.overflow, state->cq_overflow);
	ring_set(ring, p->cq_off.flags, state->cq_flags);
	ring_set(ring, p->sq_off.tail, state->sq_tail);
}

void uring_release(struct restore *restore)
{
	const struct workbench *bench = *restore_scratch(restore, &kind_uring);
	for (size_t i = 0; i < bench->n; i++) {
		struct made *made = bench->made[i];
		const image_file_io_uring *state =
			restore_file_by_id(restore, made->file_id, &(const image_file *){ NULL });
		if (made->ring.rings)
			put_memory(&made->ring, state);
		/* The program has seen its thread awake, perhaps, and does not wake it. */
		if (made->fd >= 0 && state->sq_tail != state->sq_head)
			syscall(SYS_io_uring_enter, made->fd, 0, 0, IORING_ENTER_SQ_WAKEUP, NULL, 0);
	}
}
