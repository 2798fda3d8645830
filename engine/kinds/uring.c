/*
 * io_uring(7): rings of the program itself, when nothing is under way in them. What the kernel knows of
 * a ring comes from an eBPF iterator (bpf/async.h) and from its memory (uring_look.c); what waits in it, from the
 * ring's.
 */
#include "engine/kinds/uring_parts.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bpf/async.h"
#include "engine/kinds/table.h"
#include "engine/kinds/uring_look.h"
#include "store/scope.h"

/* A single enter takes what the submission ring holds; more than so many would take too long. */
#define TURNS 100000u

#define KNOWN                                                                                      \
	(IORING_SETUP_IOPOLL | IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF | IORING_SETUP_CQSIZE |   \
	 IORING_SETUP_CLAMP | IORING_SETUP_ATTACH_WQ | IORING_SETUP_R_DISABLED |                   \
	 IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |         \
	 IORING_SETUP_SQE128 | IORING_SETUP_CQE32 | IORING_SETUP_SINGLE_ISSUER |                   \
	 IORING_SETUP_DEFER_TASKRUN | SETUP_NO_MMAP | SETUP_NO_SQARRAY | SETUP_HYBRID_IOPOLL |      \
	 SETUP_CQE_MIXED)

static bool uring_matches(const struct fd_view *fd)
{
	return !strcmp(fd->link, "anon_inode:[io_uring]");
}

static int refuse(const struct fd_view *fd, struct fsnap_error *err, const char *hint,
		  const char *what)
{
	return refuse_fd(fd, err, hint, "an io_uring %s", what);
}

/* --- what there is of it ------------------------------------------------------------ */

static int check_facts(const struct fd_view *fd, const struct async_ring *facts,
		       struct fsnap_error *err)
{
	if (facts->flags & ~(unsigned)KNOWN)
		return refuse(fd, err, "Run the program without it: it cannot be saved yet.",
			      "set up in a way that is not known here");
	if (facts->odd)
		return refuse(fd, err, "Dump while it has none: its memory belongs to a device's driver.",
			      "with buffers of the kernel's");
	if (facts->n_files > ASYNC_TABLE || facts->n_buffers > ASYNC_TABLE)
		return refuse(fd, err, "Register fewer.",
			      "with more than 4096 registered files or buffers");
	return 0;
}

/* Where the kernel's memory is not open to us, or has another shape than since Linux 6.14. */
static int check_unseen(const struct fd_view *fd, const struct async_ring *facts,
			struct fsnap_error *err)
{
	static const char hint[] = "No call tells more, and the kernel's memory is not open here, or not known "
				   "(Linux 6.14, its type information and root are needed): dump while it has none.";
	if (facts->flags & IORING_SETUP_SQPOLL)
		return refuse(fd, err, hint, "with a polling thread (IORING_SETUP_SQPOLL)");
	if (facts->flags & SETUP_NO_MMAP)
		return refuse(fd, err, hint, "in memory of the program's own (IORING_SETUP_NO_MMAP)");
	if (facts->restricted)
		return refuse(fd, err, hint, "with restrictions");
	if (facts->personalities)
		return refuse(fd, err, hint, "with registered credentials (personalities)");
	if (facts->buffer_lists)
		return refuse(fd, err, hint, "with provided buffers");
	return 0;
}

static int check_found(const struct fd_view *fd, const image_file_io_uring *state,
		       const struct uring_found *found, struct fsnap_error *err)
{
	enum { DYNAMIC = 0, INACTIVE = 255 }; /* IO_URING_NAPI_TRACKING_* */
	if (found->param)
		return refuse(fd, err, "Dump while it has none: it cannot be registered with a ring that is in use.",
			      "with registered memory for arguments (IORING_REGISTER_MEM_REGION)");
	if (found->zero_copy)
		return refuse(fd, err, "Dump while it has none: it belongs to a queue of a network device.",
			      "that receives without copying (IORING_REGISTER_ZCRX_IFQ)");
	if (state->napi_mode != DYNAMIC && state->napi_mode != INACTIVE)
		return refuse(fd, err, "Let it find them by itself: their numbers are other ones each time.",
			      "that polls network queues chosen by number (IO_URING_NAPI_TRACKING_STATIC)");
	return 0;
}

static uint32_t tick_ns(void)
{
	struct timespec tick = { 0 };
	/* The coarse clocks move with the tick: CONFIG_HZ, that is (kernel/time/posix-timers.c). */
	clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
	return tick.tv_nsec > 0 ? (uint32_t)tick.tv_nsec : 4000000;
}

static int save_tables(image_file_io_uring *state, const struct async_ring *facts,
		       const struct async_buffer *buffers, const __u64 *tags, struct fsnap_error *err)
{
	bool tagged = false;
	state->buffers.buffers_val = calloc(facts->n_buffers + 1, sizeof(image_ring_buffer));
	state->files.files_val = calloc(facts->n_files + 1, sizeof(u_int));
	state->file_tags.file_tags_val = calloc(facts->n_files + 1, sizeof(u_quad_t));
	if (!state->buffers.buffers_val || !state->files.files_val || !state->file_tags.file_tags_val)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	state->buffers.buffers_len = facts->n_buffers;
	state->files.files_len = facts->n_files;
	for (unsigned i = 0; i < facts->n_buffers; i++)
		state->buffers.buffers_val[i] =
			(image_ring_buffer){ buffers[i].address, buffers[i].length,
					     buffers[i].tag };
	for (unsigned i = 0; i < facts->n_files; i++) {
		state->file_tags.file_tags_val[i] = tags[i];
		tagged |= tags[i] != 0;
	}
	state->file_tags.file_tags_len = tagged ? facts->n_files : 0;
	return 0;
}

static void save_facts(image_file_io_uring *state, const struct fd_view *fd, const struct async_ring *facts)
{
	state->ino = (unsigned)fd->stat.st_ino;
	state->flags = facts->flags;
	state->sq_entries = facts->sq_entries;
	state->cq_entries = facts->cq_entries;
	state->submitter = (int)facts->submitter;
	state->eventfd_async = facts->eventfd_async;
	state->sq_owner = (int)facts->sq_owner;
	state->sq_cpu = facts->sq_cpu;
	state->sq_idle_ms = (unsigned)((uint64_t)facts->sq_idle * tick_ns() / 1000000);
}

/* --- its memory ------------------------------------------------------------------------- */

static void *copy_of(const void *from, size_t size)
{
	void *to = malloc(size + 1);
	return to ? memcpy(to, from, size) : NULL;
}

int uring_save_memory(const struct ring *ring, image_file_io_uring *state, struct fsnap_error *err)
{
	const struct io_uring_params *p = &ring->params;
	state->sq_head = ring_word(ring, p->sq_off.head);
	state->sq_tail = ring_word(ring, p->sq_off.tail);
	state->sq_dropped = ring_word(ring, p->sq_off.dropped);
	state->sq_flags = ring_word(ring, p->sq_off.flags);
	state->cq_head = ring_word(ring, p->cq_off.head);
	state->cq_tail = ring_word(ring, p->cq_off.tail);
	state->cq_overflow = ring_word(ring, p->cq_off.overflow);
	state->cq_flags = ring_word(ring, p->cq_off.flags);
	uint32_t unread = state->cq_tail - state->cq_head;
	if (unread > p->cq_entries)
		unread =
			p->cq_entries; /* the program has written nonsense: the kernel takes it so */
	state->sqes.sqes_val = copy_of(ring->sqes, ring->sqes_size);
	state->sqes.sqes_len = (u_int)ring->sqes_size;
	size_t array = p->flags & SETUP_NO_SQARRAY ? 0 : p->sq_entries * 4;
	state->array.array_val = copy_of(ring->rings + p->sq_off.array, array);
	state->array.array_len = (u_int)array;
	state->cqes.cqes_val = malloc(unread * ring->cqe + 1);
	if (!state->sqes.sqes_val || !state->array.array_val || !state->cqes.cqes_val)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	for (uint32_t i = 0; i < unread; i++)
		memcpy(state->cqes.cqes_val + i * ring->cqe,
		       ring_cqe(ring, state->cq_tail - unread + i), ring->cqe);
	state->cqes.cqes_len = (u_int)(unread * ring->cqe);
	return 0;
}

const char *uring_check_positions(const image_file_io_uring *state, uint32_t sq_head, uint32_t cq_tail,
				  const char **hint)
{
	uint32_t turns = (sq_head > cq_tail ? sq_head : cq_tail) / state->sq_entries;
	*hint = "Try again in a moment.";
	if (state->sq_head != sq_head || state->cq_tail != cq_tail)
		return "in the midst of a submission";
	*hint = "Dump when the program has read them.";
	if (state->sq_flags & IORING_SQ_CQ_OVERFLOW)
		return "with completions that did not fit in";
	*hint = "No call sets its positions: they are reached by use, which this does not allow.";
	const char *cannot = uring_cannot_use(state);
	if (cannot || !uring_is_used_by_issuer(state))
		return cannot;
	*hint = "Run the program without IORING_SETUP_SINGLE_ISSUER.";
	if (cq_tail > sq_head)
		return "of one thread, with more completions than submissions: its position cannot be reached by "
		       "its thread alone";
	*hint = "Run the program without IORING_SETUP_SINGLE_ISSUER, or with a larger ring.";
	return turns > TURNS ? "of one thread that was used too long: its position is only reached by use" : NULL;
}

static int save_groups(const struct fd_view *fd, image_file_io_uring *state, struct fsnap_error *err)
{
	for (u_int i = 0; i < state->groups.groups_len; i++) {
		image_ring_group *group = &state->groups.groups_val[i];
		size_t size = uring_group_bytes(group);
		if (!(group->flags & BUFFERS_OF_KERNEL))
			continue;
		void *memory = ring_map_group(fd->dup, group, err);
		group->memory.memory_val = memory ? copy_of(memory, size) : NULL;
		if (memory)
			munmap(memory, size);
		if (!group->memory.memory_val)
			return memory ? fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring") : -1;
		group->memory.memory_len = (u_int)size;
	}
	return 0;
}

/* A ring of our own tells where things are in one that was set up the same. */
static int measure(const struct fd_view *fd, image_file_io_uring *state, struct ring *ring, struct fsnap_error *err)
{
	struct io_uring_params params;
	cleanup_fd int model = ring_setup(state, IORING_SETUP_R_DISABLED, &params);
	if (model < 0)
		return refuse_fd(fd, err, "Allow it: sysctl kernel.io_uring_disabled=0.",
				 "an io_uring, but this process may make none (%s)",
				 strerror(errno));
	if (params.sq_entries != state->sq_entries || params.cq_entries != state->cq_entries)
		return refuse(fd, err, "It cannot be saved.",
			      "of a size that cannot be set up again");
	ring_measure(ring, &params);
	return 0;
}

static int read_memory(const struct fd_view *fd, const struct async_ring *facts, image_file_io_uring *state,
		       struct uring_found *found, struct fsnap_error *err)
{
	struct ring ring;
	const char *hint;
	if (measure(fd, state, &ring, err) < 0 || save_groups(fd, state, err) < 0)
		return -1;
	found->ring = ring;
	if (state->flags & SETUP_NO_MMAP) /* when it is known where */
		return 0;
	if (ring_map(&ring, fd->dup, false, err) < 0)
		return -1;
	int result = uring_save_memory(&ring, state, err);
	ring_unmap(&ring);
	const char *what = result < 0 ? NULL : uring_check_positions(state, facts->sq_head, facts->cq_tail, &hint);
	return what ? refuse(fd, err, hint, what) : result;
}

static int uring_save(const struct fd_view *fd, image_file *file, void *out,
		      struct fsnap_error *err)
{
	(void)file;
	image_file_io_uring *state = out;
	const __u64 *files, *tags;
	const struct async_buffer *buffers;
	struct uring_found *found = calloc(1, sizeof(*found));
	struct uring_shape *shape = found ? uring_shape(fd->dump) : NULL;
	struct async_reader *reader = shape ? dump_async(fd->dump, err) : NULL;
	const struct async_ring *facts =
		reader ? async_ring(reader, fd->dup, &files, &tags, &buffers, err) : NULL;
	if (!shape)
		fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	if (!facts) {
		free(found);
		return error_context(err, "process %d (%s): descriptor %d (%s)", fd->process->pid,
				     fd->process->comm, fd->fd, fd->link);
	}
	save_facts(state, fd, facts);
	if (uring_note(fd->dump, state, facts, files, found, err) < 0 || check_facts(fd, facts, err) < 0 ||
	    save_tables(state, facts, buffers, tags, err) < 0 ||
	    (shape->known ? uring_look(fd->dump, shape, facts, state, found, err) :
			    check_unseen(fd, facts, err)) < 0 ||
	    check_found(fd, state, found, err) < 0)
		return -1;
	return read_memory(fd, facts, state, found, err);
}

const struct file_kind kind_uring = {
	.name = "io_uring",
	.keeps = "setup, positions, submissions not taken, completions not read, registered files, buffers (tags, "
		 "too), eventfd, ring descriptors, credentials, restrictions and settings; provided buffers in order; "
		 "polling threads (SQPOLL: idle time, CPU, who shares one); rings in memory of the program's "
		 "(NO_MMAP), rings of one thread (SINGLE_ISSUER, DEFER_TASKRUN)",
	.refuses = "requests under way; registered files that no descriptor leads to, credentials that no thread has; "
		   "memory regions, zero-copy receiving; rings without a descriptor (REGISTERED_FD_ONLY); before "
		   "Linux 6.14: SQPOLL, NO_MMAP, provided buffers, restrictions",
	.shown_by = "uring_*",
	.xdr = (xdrproc_t)xdr_image_file_io_uring,
	.own_flags = true,
	.matches = uring_matches,
	.save = uring_save,
	.save_links = uring_save_links,
	.make = uring_make,
	.connect = uring_connect,
	.is_late = uring_is_late,
	.arrive = uring_arrive,
	.settle_late = uring_settle_late,
	.settler = uring_settler,
	.settle_task = uring_settle_task,
	.settle_parked = uring_settle_parked,
	.equip = uring_equip_late,
	.drive = uring_drive,
	.dump_end = uring_dump_end,
	.restore_end = uring_restore_end,
	.release = uring_release,
};
