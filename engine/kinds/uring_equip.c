/*
 * uring_equip.c - what is registered with a ring by anybody who has it: files and their range, the eventfd, limits of
 * workers, the clock, busy polling, provided buffers of the kernel's memory, and last of all restrictions.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/uring_parts.h"
#include "store/scope.h"

/* Younger than Debian 12's headers. */
enum {
	REGISTER_PBUF_RING = 22,	/* Linux 5.19 */
	REGISTER_FILE_ALLOC_RANGE = 25, /* Linux 6.0 */
	REGISTER_NAPI = 27,		/* Linux 6.9 */
	REGISTER_CLOCK = 29,		/* Linux 6.12 */
};
enum { NAPI_INACTIVE = 255 };

static int registered(int fd, unsigned what, const void *order, unsigned n, const char *name, struct fsnap_error *err)
{
	if (syscall(SYS_io_uring_register, fd, what, order, n) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "%s", name);
	return 0;
}

int uring_register_files(struct restore *restore, const image_file_io_uring *state, int fd,
			 struct fsnap_error *err)
{
	u_int n = state->files.files_len;
	cleanup_free int *fds = malloc((n + 1) * sizeof(*fds));
	if (!fds)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	for (u_int i = 0; i < n; i++)
		fds[i] = state->files.files_val[i] ? restore_fd(restore, state->files.files_val[i])
						   : -1;
	struct io_uring_rsrc_register order = {
		.nr = n, .data = (uintptr_t)fds,
		.tags = state->file_tags.file_tags_len == n ? (uintptr_t)state->file_tags.file_tags_val : 0,
	};
	struct {
		uint32_t first, n;
		uint64_t reserved;
	} range = { state->alloc_start, state->alloc_end - state->alloc_start, 0 };
	if (!n)
		return 0;
	if (registered(fd, IORING_REGISTER_FILES2, &order, sizeof(order), "IORING_REGISTER_FILES2", err) < 0)
		return -1;
	if (range.n == 0 || (range.first == 0 && range.n == n)) /* that is how it begins */
		return 0;
	return registered(fd, REGISTER_FILE_ALLOC_RANGE, &range, 0, "IORING_REGISTER_FILE_ALLOC_RANGE", err);
}

static int register_settings(const image_file_io_uring *state, int fd, struct fsnap_error *err)
{
	unsigned workers[2] = { state->workers[0], state->workers[1] };
	struct {
		uint32_t clock, reserved[3];
	} clock = { state->clock, { 0 } };
	struct {
		uint32_t us;
		uint8_t prefer, operation, pad[2];
		uint32_t mode, reserved;
	} napi = { .us = state->napi_us, .prefer = (uint8_t)state->napi_prefer, .mode = state->napi_mode };
	if ((workers[0] || workers[1]) && registered(fd, IORING_REGISTER_IOWQ_MAX_WORKERS, workers, 2,
						     "IORING_REGISTER_IOWQ_MAX_WORKERS", err) < 0)
		return -1;
	if (state->clock > 1 && registered(fd, REGISTER_CLOCK, &clock, 0, "IORING_REGISTER_CLOCK", err) < 0)
		return -1;
	if (state->napi_mode != NAPI_INACTIVE && state->napi_us &&
	    registered(fd, REGISTER_NAPI, &napi, 1, "IORING_REGISTER_NAPI", err) < 0)
		return -1;
	return 0;
}

/* --- restrictions -------------------------------------------------------------------------- */

static unsigned add_set(const u_quad_t *set, unsigned kind, struct io_uring_restriction *orders, unsigned n)
{
	for (unsigned i = 0; i < 256; i++)
		if (set[i / 64] >> i % 64 & 1)
			orders[n++] = (struct io_uring_restriction){ .opcode = (uint16_t)kind, .sqe_op = (uint8_t)i };
	return n;
}

static int restrict_ring(const image_ring_limits *limits, int fd, struct fsnap_error *err)
{
	struct io_uring_restriction orders[514];
	unsigned n = add_set(limits->register_ops, IORING_RESTRICTION_REGISTER_OP, orders, 0);
	n = add_set(limits->sqe_ops, IORING_RESTRICTION_SQE_OP, orders, n);
	orders[n++] = (struct io_uring_restriction){ .opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
						     .sqe_flags = (uint8_t)limits->flags_allowed };
	orders[n++] = (struct io_uring_restriction){ .opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED,
						     .sqe_flags = (uint8_t)limits->flags_required };
	return registered(fd, IORING_REGISTER_RESTRICTIONS, orders, n, "IORING_REGISTER_RESTRICTIONS", err);
}

/* --- all -------------------------------------------------------------------------------------- */

struct io_uring_buf_reg uring_group_order(const image_ring_group *group)
{
	struct io_uring_buf_reg order = { .ring_addr = group->address, .ring_entries = group->entries,
					  .bgid = (uint16_t)group->id, .pad = (uint16_t)group->flags };
	memcpy(order.resv, &group->min_left, sizeof(uint32_t)); /* `min_left`, Linux 6.18 */
	return order;
}

int uring_register_groups(const image_file_io_uring *state, int fd, struct fsnap_error *err)
{
	for (u_int i = 0; i < state->groups.groups_len; i++) {
		const image_ring_group *group = &state->groups.groups_val[i];
		struct io_uring_buf_reg order = uring_group_order(group);
		if ((group->flags & BUFFERS_OF_KERNEL) &&
		    registered(fd, REGISTER_PBUF_RING, &order, 1, "IORING_REGISTER_PBUF_RING", err) < 0)
			return -1;
	}
	return 0;
}

int uring_equip(struct restore *restore, const image_file_io_uring *state, int fd, struct fsnap_error *err)
{
	int event = restore_fd(restore, state->eventfd);
	unsigned how =
		state->eventfd_async ? IORING_REGISTER_EVENTFD_ASYNC : IORING_REGISTER_EVENTFD;
	if (uring_register_files(restore, state, fd, err) < 0 || register_settings(state, fd, err) < 0)
		return -1;
	if (state->eventfd && registered(fd, how, &event, 1, "IORING_REGISTER_EVENTFD", err) < 0)
		return -1;
	return state->limits.set ? restrict_ring(&state->limits, fd, err) : 0;
}
