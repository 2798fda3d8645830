/*
 * io_uring(7): rings of the program itself, when nothing is under way in them. What the kernel knows of
 * a ring comes from an eBPF iterator (bpf/async.h); what waits in it, from its memory.
 */
#include "engine/kinds/uring_parts.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bpf/async.h"
#include "engine/kinds/table.h"
#include "store/scope.h"

/* A single enter takes what the submission ring holds; more than so many would take too long. */
#define TURNS 100000u

#define KNOWN                                                                                      \
	(IORING_SETUP_IOPOLL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_ATTACH_WQ | \
	 IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN |           \
	 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SQE128 | IORING_SETUP_CQE32 |                    \
	 IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | SETUP_NO_SQARRAY)

/* --- the memory of a ring ------------------------------------------------------------ */

int ring_setup(const image_file_io_uring *state, unsigned more_flags,
	       struct io_uring_params *params)
{
	*params = (struct io_uring_params){
		.flags = (state->flags & ~(unsigned)IORING_SETUP_ATTACH_WQ) | more_flags,
		.cq_entries = state->cq_entries,
	};
	return (int)syscall(SYS_io_uring_setup, state->sq_entries, params);
}

int ring_map(struct ring *ring, int fd, const struct io_uring_params *params, bool write,
	     struct fsnap_error *err)
{
	int prot = write ? PROT_READ | PROT_WRITE : PROT_READ;
	*ring = (struct ring){
		.params = *params,
		.sqe = sizeof(struct io_uring_sqe) << !!(params->flags & IORING_SETUP_SQE128),
		.cqe = sizeof(struct io_uring_cqe) << !!(params->flags & IORING_SETUP_CQE32),
	};
	size_t array = params->flags & SETUP_NO_SQARRAY
			       ? 0
			       : params->sq_off.array + params->sq_entries * 4;
	ring->rings_size = params->cq_off.cqes + params->cq_entries * ring->cqe;
	ring->rings_size = ring->rings_size > array ? ring->rings_size : array;
	ring->sqes_size = params->sq_entries * ring->sqe;
	/* One mapping holds both rings: IORING_FEAT_SINGLE_MMAP, Linux 5.4. */
	ring->rings = mmap(NULL, ring->rings_size, prot, MAP_SHARED | MAP_POPULATE, fd,
			   IORING_OFF_SQ_RING);
	ring->sqes =
		mmap(NULL, ring->sqes_size, prot, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES);
	if (ring->rings != MAP_FAILED && ring->sqes != MAP_FAILED)
		return 0;
	fail(err, FSNAP_E_SYSTEM, errno, "the memory of an io_uring");
	ring_unmap(ring);
	return -1;
}

void ring_unmap(struct ring *ring)
{
	if (ring->rings && ring->rings != MAP_FAILED)
		munmap(ring->rings, ring->rings_size);
	if (ring->sqes && ring->sqes != MAP_FAILED)
		munmap(ring->sqes, ring->sqes_size);
	ring->rings = ring->sqes = NULL;
}

/* --- dump --------------------------------------------------------------------------------- */

static bool uring_matches(const struct fd_view *fd)
{
	return !strcmp(fd->link, "anon_inode:[io_uring]");
}

static int refuse(const struct fd_view *fd, struct fsnap_error *err, const char *hint,
		  const char *what)
{
	return refuse_fd(fd, err, hint, "an io_uring %s", what);
}

static int check_facts(const struct fd_view *fd, const struct async_ring *facts,
		       struct fsnap_error *err)
{
	static const struct {
		unsigned flag;
		const char *what;
	} odd[] = {
		{ IORING_SETUP_SQPOLL,
		  "with a polling thread (IORING_SETUP_SQPOLL), which only the process that "
		  "makes a ring can have" },
		{ SETUP_NO_MMAP, "in memory of the program's own (IORING_SETUP_NO_MMAP)" },
		{ SETUP_REGISTERED_FD_ONLY,
		  "without a descriptor (IORING_SETUP_REGISTERED_FD_ONLY)" },
		{ ~(unsigned)KNOWN, "set up in a way that is not known here" },
	};
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
		if (facts->flags & odd[i].flag)
			return refuse(fd, err,
				      "Run the program without it: it cannot be saved yet.",
				      odd[i].what);
	if (facts->restricted)
		return refuse(fd, err, "The kernel does not tell what is allowed.",
			      "with restrictions");
	if (facts->personalities)
		return refuse(fd, err, "Dump while it has none.",
			      "with registered credentials (personalities)");
	if (facts->buffer_lists)
		return refuse(fd, err, "Dump while it has none.", "with provided buffers");
	if (facts->odd)
		return refuse(fd, err, "Dump while it has none.",
			      "with tagged files or buffers of the kernel's");
	if (facts->n_files > ASYNC_TABLE || facts->n_buffers > ASYNC_TABLE)
		return refuse(fd, err, "Register fewer.",
			      "with more than 4096 registered files or buffers");
	return 0;
}

static void *copy_of(const void *from, size_t size)
{
	void *to = malloc(size + 1);
	return to ? memcpy(to, from, size) : NULL;
}

/* Positions, what was submitted and not taken, what came of it and was not read. */
static int save_memory(const struct ring *ring, image_file_io_uring *state, struct fsnap_error *err)
{
	const struct io_uring_params *p = &ring->params;
	state->sq_head = *ring_word(ring, p->sq_off.head);
	state->sq_tail = *ring_word(ring, p->sq_off.tail);
	state->sq_dropped = *ring_word(ring, p->sq_off.dropped);
	state->sq_flags = *ring_word(ring, p->sq_off.flags);
	state->cq_head = *ring_word(ring, p->cq_off.head);
	state->cq_tail = *ring_word(ring, p->cq_off.tail);
	state->cq_overflow = *ring_word(ring, p->cq_off.overflow);
	state->cq_flags = *ring_word(ring, p->cq_off.flags);
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

/* A ring of our own tells where things are in one that was set up the same. */
static int read_memory(const struct fd_view *fd, image_file_io_uring *state,
		       struct fsnap_error *err)
{
	struct io_uring_params params;
	struct ring ring;
	cleanup_fd int model = ring_setup(state, IORING_SETUP_R_DISABLED, &params);
	if (model < 0)
		return refuse_fd(fd, err, "Allow it: sysctl kernel.io_uring_disabled=0.",
				 "an io_uring, but this process may make none (%s)",
				 strerror(errno));
	if (params.sq_entries != state->sq_entries || params.cq_entries != state->cq_entries)
		return refuse(fd, err, "It cannot be saved.",
			      "of a size that cannot be set up again");
	if (ring_map(&ring, fd->dup, &params, false, err) < 0)
		return -1;
	int result = save_memory(&ring, state, err);
	ring_unmap(&ring);
	return result;
}

static int check_positions(const struct fd_view *fd, const struct async_ring *facts,
			   const image_file_io_uring *state, struct fsnap_error *err)
{
	uint32_t turns = (facts->sq_head > facts->cq_tail ? facts->sq_head : facts->cq_tail) /
			 state->sq_entries;
	if (state->sq_head != facts->sq_head || state->cq_tail != facts->cq_tail)
		return refuse(fd, err, "Try again in a moment.", "in the midst of a submission");
	if (state->sq_flags & IORING_SQ_CQ_OVERFLOW)
		return refuse(fd, err, "Dump when the program has read them.",
			      "with completions that did not fit in");
	if (!uring_has_issuer(state))
		return 0;
	if (facts->cq_tail > facts->sq_head)
		return refuse(fd, err, "Run the program without IORING_SETUP_SINGLE_ISSUER.",
			      "of one thread, with more completions than submissions: its position "
			      "cannot be "
			      "reached by its thread alone");
	if (turns > TURNS)
		return refuse(fd, err,
			      "Run the program without IORING_SETUP_SINGLE_ISSUER, or with a "
			      "larger ring.",
			      "of one thread that was used too long: its position is only reached "
			      "by use");
	return 0;
}

static int save_buffers(image_file_io_uring *state, const struct async_ring *facts,
			const struct async_buffer *buffers, struct fsnap_error *err)
{
	state->buffers.buffers_val = calloc(facts->n_buffers + 1, sizeof(image_ring_buffer));
	state->files.files_val = calloc(facts->n_files + 1, sizeof(u_int));
	if (!state->buffers.buffers_val || !state->files.files_val)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	state->buffers.buffers_len = facts->n_buffers;
	state->files.files_len = facts->n_files;
	for (unsigned i = 0; i < facts->n_buffers; i++)
		state->buffers.buffers_val[i] =
			(image_ring_buffer){ buffers[i].address, buffers[i].length,
					     buffers[i].tag };
	return 0;
}

static int uring_save(const struct fd_view *fd, image_file *file, void *out,
		      struct fsnap_error *err)
{
	(void)file;
	image_file_io_uring *state = out;
	const __u64 *files;
	const struct async_buffer *buffers;
	struct async_reader *reader = dump_async(fd->dump, err);
	const struct async_ring *facts =
		reader ? async_ring(reader, fd->dup, &files, &buffers, err) : NULL;
	if (!facts)
		return error_context(err, "process %d (%s): descriptor %d (%s)", fd->process->pid,
				     fd->process->comm, fd->fd, fd->link);
	state->ino = (unsigned)fd->stat.st_ino;
	state->flags = facts->flags;
	state->sq_entries = facts->sq_entries;
	state->cq_entries = facts->cq_entries;
	state->submitter = (int)facts->submitter;
	state->eventfd_async = facts->eventfd_async;
	if (check_facts(fd, facts, err) < 0 || save_buffers(state, facts, buffers, err) < 0 ||
	    uring_note(fd->dump, state, facts, files, err) < 0 || read_memory(fd, state, err) < 0)
		return -1;
	return check_positions(fd, facts, state, err);
}

const struct file_kind kind_uring = {
	.name = "io_uring",
	.keeps = "setup, positions, submissions not taken, completions not read, registered files, "
		 "buffers, "
		 "eventfd and ring descriptors; rings of one thread (SINGLE_ISSUER, DEFER_TASKRUN)",
	.refuses = "requests under way, polling threads (SQPOLL), NO_MMAP, personalities, "
		   "restrictions, provided "
		   "buffers, registered files that no descriptor leads to",
	.shown_by = "uring_*",
	.xdr = (xdrproc_t)xdr_image_file_io_uring,
	.own_flags = true,
	.matches = uring_matches,
	.save = uring_save,
	.save_links = uring_save_links,
	.make = uring_make,
	.connect = uring_connect,
	.settle = uring_settle,
	.settle_task = uring_settle_task,
	.dump_end = uring_dump_end,
	.restore_end = uring_restore_end,
	.release = uring_release,
};
