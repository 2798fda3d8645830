/*
 * uring_late.c - rings that only a process of the tree can make: the thread that polls one (IORING_SETUP_SQPOLL) is a
 * thread of who makes it, and memory of the program's (SETUP_NO_MMAP) must be that of who makes it. So they are made when
 * everybody is born, equipped when all stand still, and brought to their positions at the end.
 *
 * A polling thread keeps the credentials of who makes it: where that is not ourselves, a deputy does.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/uring_parts.h"
#include "store/scope.h"

#define REGISTER_PBUF_RING 22 /* Linux 5.19 */

bool uring_is_late(const void *in)
{
	return uring_is_own(in);
}

/* --- made by its process ------------------------------------------------------------------- */

/* The number, in the process, of one made before this that has the same polling thread; -1: it is the first. */
static int find_companion(struct restore *restore, const image_file *file, const image_file_io_uring *state)
{
	const image_file *other;
	const image_file_io_uring *ring;
	int number = restore_number_of(restore, file->id), best = -1;
	for (size_t i = 0; (ring = restore_file_state(restore, "io_uring", i, &other)); i++) {
		int at = restore_number_of(restore, other->id);
		if (ring->sq_thread == state->sq_thread && ring->sq_owner == state->sq_owner && at < number &&
		    (best < 0 || at < best))
			best = at;
	}
	return best;
}

static struct io_uring_params order_of(struct restore *restore, const image_file *file,
				       const image_file_io_uring *state)
{
	struct io_uring_params order = { .flags = state->flags | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE,
					 .cq_entries = state->cq_entries };
	order.flags &= ~(unsigned)(IORING_SETUP_ATTACH_WQ | SETUP_REGISTERED_FD_ONLY);
	if (state->flags & SETUP_NO_MMAP) {
		order.cq_off.resv2 = state->rings_address; /* user_addr, Linux 6.5 */
		order.sq_off.resv2 = state->sqes_address;
	}
	if (!(state->flags & IORING_SETUP_SQPOLL))
		return order;
	order.sq_thread_idle = state->sq_idle_ms;
	order.sq_thread_cpu = state->flags & IORING_SETUP_SQ_AFF ? (unsigned)state->sq_cpu : 0;
	int companion = find_companion(restore, file, state);
	if (companion >= 0) {
		order.flags |= IORING_SETUP_ATTACH_WQ;
		order.wq_fd = (unsigned)companion;
	}
	return order;
}

static void register_groups(const image_file_io_uring *state, struct plans *plans, uint32_t task, uint32_t fd)
{
	for (u_int i = 0; i < state->groups.groups_len; i++) {
		struct io_uring_buf_reg order = uring_group_order(&state->groups.groups_val[i]);
		if (state->groups.groups_val[i].flags & BUFFERS_OF_KERNEL)
			plan_call(plans, task, SYS_io_uring_register, SLOT(fd), IMM(REGISTER_PBUF_RING),
				  DATA(plans_data(plans, &order, sizeof(order), 8)), IMM(1));
	}
}

uint32_t uring_arrive(struct restore *restore, const image_file *file, const void *in,
		      struct plans *plans, uint32_t task)
{
	const image_file_io_uring *state = in;
	struct made *made = uring_made(restore, file->id);
	struct io_uring_params order = order_of(restore, file, state);
	bool polled = state->flags & IORING_SETUP_SQPOLL;
	uint32_t maker = polled ? restore_deputy(restore, plans, task, state->sq_tid) : task;
	if (made)
		made->byte = plans_data(plans, NULL, 8, 8);
	if (made && state->flags & SETUP_NO_MMAP) /* the kernel takes what is there for its own */
		plan_copy(plans, maker, IMM(state->rings_address),
			  DATA(plans_data(plans, NULL, made->ring.params.cq_off.cqes, 8)),
			  made->ring.params.cq_off.cqes);
	plan_call(plans, maker, SYS_io_uring_setup, IMM(state->sq_entries),
		  DATA(plans_data(plans, &order, sizeof(order), 8)));
	uint32_t slot = plan_result(plans);
	if (polled)
		restore_deputy_done(plans, task, maker);
	register_groups(state, plans, task, slot);
	return slot;
}

/* --- and by us -------------------------------------------------------------------------------- */

int uring_equip_late(struct restore *restore, const image_file *file, const void *in, int fd,
		     struct fsnap_error *err)
{
	(void)file;
	return uring_is_own(in) ? uring_equip(restore, in, fd, err) : 0;
}

static int reach_memory(struct restore *restore, const image_file_io_uring *state, struct made *made, int fd,
			struct fsnap_error *err)
{
	if (made->ring.rings)
		return 0;
	if (!(state->flags & SETUP_NO_MMAP))
		return ring_map(&made->ring, fd, true, err);
	int memory = restore_memory(restore, state->owner, err);
	return memory < 0 ? -1 : ring_fetch(&made->ring, memory, state->rings_address, state->sqes_address, err);
}

static int put_group(struct restore *restore, const image_file_io_uring *state, const image_ring_group *group, int fd,
		     const void *entries, struct fsnap_error *err)
{
	size_t size = uring_group_bytes(group);
	if (group->flags & BUFFERS_OF_KERNEL) {
		void *memory = ring_map_group(fd, group, err);
		if (!memory)
			return -1;
		memcpy(memory, entries, size);
		munmap(memory, size);
		return 0;
	}
	cleanup_fd int memory = restore_memory(restore, state->owner, err);
	if (memory < 0 || pwrite(memory, entries, size, (off_t)group->address) == (ssize_t)size)
		return memory < 0 ? -1 : 0;
	return fail(err, FSNAP_E_RESTORE_STEP, errno, "buffers provided to an io_uring");
}

static int put_groups(struct restore *restore, const image_file_io_uring *state, int fd, uint64_t byte,
		      struct fsnap_error *err)
{
	for (u_int i = 0; i < state->groups.groups_len; i++) {
		const image_ring_group *group = &state->groups.groups_val[i];
		cleanup_free struct io_uring_buf *bait = byte ? malloc(uring_group_bytes(group)) : NULL;
		if (byte && !bait)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
		if (bait)
			uring_bait(group, byte, bait);
		if (put_group(restore, state, group, fd, bait ? (const void *)bait : group->memory.memory_val, err) <
		    0)
			return -1;
	}
	return 0;
}

/* The thread that polls has the descriptors of its process: for it the socket is a registered file. */
static int lend_socket(const image_file_io_uring *state, int fd, int socket)
{
	if (!(state->flags & IORING_SETUP_SQPOLL))
		return socket;
	if (state->files.files_len)
		syscall(SYS_io_uring_register, fd, IORING_UNREGISTER_FILES, NULL, 0);
	return syscall(SYS_io_uring_register, fd, IORING_REGISTER_FILES, &socket, 1) < 0 ? -2 : -1;
}

static int choose_buffers(struct restore *restore, struct made *made, const image_file_io_uring *state, int fd,
			  struct fsnap_error *err)
{
	static uint64_t byte; /* of ours, where we are who submits */
	cleanup_fd int one = -1, other = -1;
	int pair[2] = { -1, -1 };
	bool polled = state->flags & IORING_SETUP_SQPOLL;
	int result = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
	one = pair[0];
	other = pair[1];
	int socket = result < 0 ? -2 : lend_socket(state, fd, one);
	if (socket == -2)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "bytes for buffers of an io_uring");
	uint64_t to = polled ? restore_shared(restore, made->byte) : (uintptr_t)&byte;
	if (put_groups(restore, state, fd, to, err) < 0 || uring_use(&made->ring, fd, state, socket, other, err) < 0 ||
	    put_groups(restore, state, fd, 0, err) < 0)
		return -1;
	if (!polled)
		return 0;
	if (syscall(SYS_io_uring_register, fd, IORING_UNREGISTER_FILES, NULL, 0) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "IORING_UNREGISTER_FILES");
	return uring_register_files(restore, state, fd, err);
}

int uring_drive(struct restore *restore, const image_file *file, const void *in, int fd,
		struct fsnap_error *err)
{
	const image_file_io_uring *state = in;
	struct made *made = uring_made(restore, file->id);
	bool enabled = !(state->flags & IORING_SETUP_R_DISABLED);
	if (!made || reach_memory(restore, state, made, fd, err) < 0)
		return made ? -1 : fail(err, FSNAP_E_SYSTEM, 0, "an io_uring that was not made");
	if (state->flags & IORING_SETUP_SQPOLL)
		made->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (!enabled || !uring_is_driven(state))
		return 0;
	if (!uring_has_issuer(state) && (uring_is_own(state) || state->limits.set) &&
	    syscall(SYS_io_uring_register, fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "IORING_REGISTER_ENABLE_RINGS");
	ring_set(&made->ring, made->ring.params.cq_off.flags, IORING_CQ_EVENTFD_DISABLED);
	return uring_has_chosen(state) ? choose_buffers(restore, made, state, fd, err) :
					 uring_use(&made->ring, fd, state, -1, -1, err);
}
