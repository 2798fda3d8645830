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

#define KNOWN                                                                                               \
	(IORING_SETUP_IOPOLL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_ATTACH_WQ |            \
	 IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN |                      \
	 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SQE128 | IORING_SETUP_CQE32 | IORING_SETUP_SINGLE_ISSUER | \
	 IORING_SETUP_DEFER_TASKRUN | SETUP_NO_SQARRAY)

/* --- the memory of a ring ------------------------------------------------------------ */

int ring_setup(const image_file_io_uring *state, unsigned more_flags, struct io_uring_params *params)
{
	*params = (struct io_uring_params){
		.flags = (state->flags & ~(unsigned)IORING_SETUP_ATTACH_WQ) | more_flags,
		.cq_entries = state->cq_entries,
	};
	return (int)syscall(SYS_io_uring_setup, state->sq_entries, params);
}

int ring_map(struct ring *ring, int fd, const struct io_uring_params *params, bool write, struct fsnap_error *err)
{
	int prot = write ? PROT_READ | PROT_WRITE : PROT_READ;
	*ring = (struct ring){
		.params = *params,
		.sqe = sizeof(struct io_uring_sqe) << !!(params->flags & IORING_SETUP_SQE128),
		.cqe = sizeof(struct io_uring_cqe) << !!(params->flags & IORING_SETUP_CQE32),
	};
	size_t array = params->flags & SETUP_NO_SQARRAY ? 0 : params->sq_off.array + params->sq_entries * 4;
	ring->rings_size = params->cq_off.cqes + params->cq_entries * ring->cqe;
	ring->rings_size = ring->rings_size > array ? ring->rings_size : array;
	ring->sqes_size = params->sq_entries * ring->sqe;
	/* One mapping holds both rings: IORING_FEAT_SINGLE_MMAP, Linux 5.4. */
	ring->rings = mmap(NULL, ring->rings_size, prot, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQ_RING);
	ring->sqes = mmap(NULL, ring->sqes_size, prot, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES);
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

static int refuse(const struct fd_view *fd, struct fsnap_error *err, const char *hint, const char *what)
{
	return refuse_fd(fd, err, hint, "an io_uring %s", what);
}

static int check_facts(const struct fd_view *fd, const struct async_ring *facts, struct fsnap_error *err)
{
	static const struct {
		unsigned flag;
		const char *what;
	} odd[] = {
		{ IORING_SETUP_SQPOLL, "with a polling thread (IORING_SETUP_SQPOLL), which only the process that "
				       "makes a ring can have" },
		{ SETUP_NO_MMAP, "in memory of the program's own (IORING_SETUP_NO_MMAP)" },
		{ SETUP_REGISTERED_FD_ONLY, "without a descriptor (IORING_SETUP_REGISTERED_FD_ONLY)" },
		{ ~(unsigned)KNOWN, "set up in a way that is not known here" },
	};
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
		if (facts->flags & odd[i].flag)
			return refuse(fd, err, "Run the program without it: it cannot be saved yet.", odd[i].what);
	if (facts->restricted)
		return refuse(fd, err, "The kernel does not tell what is allowed.", "with restrictions");
	if (facts->personalities)
		return refuse(fd, err, "Dump while it has none.", "with registered credentials (personalities)");
	if (facts->buffer_lists)
		return refuse(fd, err, "Dump while it has none.", "with provided buffers");
	if (facts->odd)
		return refuse(fd, err, "Dump while it has none.", "with tagged files or buffers of the kernel's");
	if (facts->n_files > ASYNC_TABLE || facts->n_buffers > ASYNC_TABLE)
		return refuse(fd, err, "Register fewer.", "with more than 4096 registered files or buffers");
	return 0;
}

/* Of the threads of a process, which has what to do with it? Requests are counted by thread, not ring. */
static int check_threads(const struct fd_view *fd, struct async_reader *reader, uint64_t identity,
			 image_file_io_uring *state, struct fsnap_error *err)
{
	size_t n;
	const struct async_thread *threads = async_threads(reader, fd->process->pid, &n, err);
	if (!threads)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (threads[i].in_flight > 0)
			return refuse_fd(fd, err, "Try again when they are done: what waits for a connection or a "
					 "timeout has to be cancelled before.",
					 "io_uring: thread %u has %d requests under way", threads[i].tid,
					 threads[i].in_flight);
		for (unsigned j = 0; j < ASYNC_RINGS; j++) {
			if (threads[i].rings[j] != identity)
				continue;
			image_ring_index *array = realloc(state->registered.registered_val,
							  (state->registered.registered_len + 1) * sizeof(*array));
			if (!array)
				return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
			state->registered.registered_val = array;
			array[state->registered.registered_len++] = (image_ring_index){ (int)threads[i].tid, j };
		}
	}
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
		unread = p->cq_entries; /* the program has written nonsense: the kernel takes it so */
	state->sqes.sqes_val = copy_of(ring->sqes, ring->sqes_size);
	state->sqes.sqes_len = (u_int)ring->sqes_size;
	size_t array = p->flags & SETUP_NO_SQARRAY ? 0 : p->sq_entries * 4;
	state->array.array_val = copy_of(ring->rings + p->sq_off.array, array);
	state->array.array_len = (u_int)array;
	state->cqes.cqes_val = malloc(unread * ring->cqe + 1);
	if (!state->sqes.sqes_val || !state->array.array_val || !state->cqes.cqes_val)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	for (uint32_t i = 0; i < unread; i++)
		memcpy(state->cqes.cqes_val + i * ring->cqe, ring_cqe(ring, state->cq_tail - unread + i), ring->cqe);
	state->cqes.cqes_len = (u_int)(unread * ring->cqe);
	return 0;
}

/* A ring of our own tells where things are in one that was set up the same. */
static int read_memory(const struct fd_view *fd, image_file_io_uring *state, struct fsnap_error *err)
{
	struct io_uring_params params;
	struct ring ring;
	cleanup_fd int model = ring_setup(state, IORING_SETUP_R_DISABLED, &params);
	if (model < 0)
		return refuse_fd(fd, err, "Allow it: sysctl kernel.io_uring_disabled=0.",
				 "an io_uring, but this process may make none (%s)", strerror(errno));
	if (params.sq_entries != state->sq_entries || params.cq_entries != state->cq_entries)
		return refuse(fd, err, "It cannot be saved.", "of a size that cannot be set up again");
	if (ring_map(&ring, fd->dup, &params, false, err) < 0)
		return -1;
	int result = save_memory(&ring, state, err);
	ring_unmap(&ring);
	return result;
}

static int check_positions(const struct fd_view *fd, const struct async_ring *facts,
			   const image_file_io_uring *state, struct fsnap_error *err)
{
	uint32_t turns = (facts->sq_head > facts->cq_tail ? facts->sq_head : facts->cq_tail) / state->sq_entries;
	if (state->sq_head != facts->sq_head || state->cq_tail != facts->cq_tail)
		return refuse(fd, err, "Try again in a moment.", "in the midst of a submission");
	if (state->sq_flags & IORING_SQ_CQ_OVERFLOW)
		return refuse(fd, err, "Dump when the program has read them.", "with completions that did not fit in");
	if (!uring_has_issuer(state))
		return 0;
	if (facts->cq_tail > facts->sq_head)
		return refuse(fd, err, "Run the program without IORING_SETUP_SINGLE_ISSUER.",
			      "of one thread, with more completions than submissions: its position cannot be "
			      "reached by its thread alone");
	if (turns > TURNS)
		return refuse(fd, err, "Run the program without IORING_SETUP_SINGLE_ISSUER, or with a larger ring.",
			      "of one thread that was used too long: its position is only reached by use");
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
			(image_ring_buffer){ buffers[i].address, buffers[i].length, buffers[i].tag };
	return 0;
}

/* What save_links() turns into files of the image: the kernel's identities of what is registered. */
struct registered {
	const image_file_io_uring *state;
	uint64_t eventfd; /* its number among eventfds + 1, 0: none */
	uint64_t files[];
};

struct pending { /* by ring */
	size_t n;
	struct registered **rings;
};

static int note_registered(const struct fd_view *fd, const image_file_io_uring *state,
			   const struct async_ring *facts, const __u64 *files, struct fsnap_error *err)
{
	struct pending **slot = (struct pending **)dump_scratch(fd->dump, &kind_uring);
	struct registered *registered = malloc(sizeof(*registered) + facts->n_files * sizeof(uint64_t));
	if (!*slot)
		*slot = calloc(1, sizeof(**slot));
	struct registered **rings =
		*slot ? realloc((*slot)->rings, ((*slot)->n + 1) * sizeof(*rings)) : NULL;
	if (rings)
		(*slot)->rings = rings;
	if (!registered || !rings) {
		free(registered);
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	}
	registered->state = state;
	registered->eventfd = (uint64_t)(facts->eventfd + 1);
	memcpy(registered->files, files, facts->n_files * sizeof(uint64_t));
	rings[(*slot)->n++] = registered;
	return 0;
}

static void uring_dump_end(void *scratch)
{
	struct pending *pending = scratch;
	for (size_t i = 0; i < pending->n; i++)
		free(pending->rings[i]);
	free(pending->rings);
}

static int uring_save(const struct fd_view *fd, image_file *file, void *out, struct fsnap_error *err)
{
	(void)file;
	image_file_io_uring *state = out;
	const __u64 *files;
	const struct async_buffer *buffers;
	struct async_reader *reader = dump_async(fd->dump, err);
	const struct async_ring *facts = reader ? async_ring(reader, fd->dup, &files, &buffers, err) : NULL;
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
	    note_registered(fd, state, facts, files, err) < 0 || read_memory(fd, state, err) < 0 ||
	    check_positions(fd, facts, state, err) < 0)
		return -1;
	return check_threads(fd, reader, facts->identity, state, err);
}

/* --- what is registered ------------------------------------------------------------------------ */

struct wanted { /* the file at place `at` of the table */
	uint64_t file;
	u_int at;
};

static int by_file(const void *a, const void *b)
{
	const struct wanted *one = a, *two = b;
	return one->file < two->file ? -1 : one->file > two->file;
}

static size_t list_wanted(const struct registered *registered, u_int n, struct wanted *wanted)
{
	size_t count = 0;
	for (u_int i = 0; i < n; i++)
		if (registered->files[i])
			wanted[count++] = (struct wanted){ registered->files[i], i };
	qsort(wanted, count, sizeof(*wanted), by_file);
	return count;
}

static void name_file(image_file_io_uring *state, const struct wanted *wanted, size_t count, uint64_t file,
		      unsigned id)
{
	size_t low = 0, high = count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (wanted[middle].file < file)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < count && wanted[low].file == file; low++)
		state->files.files_val[wanted[low].at] = id;
}

/* The files of the image that have these identities: who in the tree has a descriptor of them? */
static int name_files(struct dump *dump, const struct wanted *wanted, size_t count, image_file_io_uring *state,
		      struct fsnap_error *err)
{
	const struct tree *tree = dump_tree(dump);
	for (size_t i = 0; i < tree->n_processes; i++) {
		const struct process *process = tree->processes[i];
		size_t n;
		if (process->image.zombie)
			continue;
		const struct async_descriptor *fds = async_descriptors(dump_async(dump, err), process->pid, &n, err);
		if (!fds)
			return -1;
		for (size_t j = 0; j < n; j++)
			name_file(state, wanted, count, fds[j].file,
				  dump_file_of_fd(dump, process, (int)fds[j].fd));
	}
	return 0;
}

static int name_eventfd(struct dump *dump, const struct registered *registered, image_file_io_uring *state)
{
	image_file *file;
	const image_file_eventfd *other;
	for (size_t i = 0; registered->eventfd && (other = dump_file_state(dump, "eventfd", i, &file)); i++)
		if (other->id + 1u == registered->eventfd)
			state->eventfd = file->id;
	return registered->eventfd && !state->eventfd ? -1 : 0;
}

static int uring_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_io_uring *state = out;
	const struct pending *pending = *dump_scratch(dump, &kind_uring);
	const struct registered *registered = NULL;
	for (size_t i = 0; pending && i < pending->n; i++)
		if (pending->rings[i]->state == state)
			registered = pending->rings[i];
	if (!registered)
		return 0;
	if (name_eventfd(dump, registered, state) < 0)
		return refuse_file(dump, file, err, "Keep a descriptor of it open.",
				   "an io_uring whose eventfd no process of the tree has");
	cleanup_free struct wanted *wanted = malloc((state->files.files_len + 1) * sizeof(*wanted));
	if (!wanted)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	size_t count = list_wanted(registered, state->files.files_len, wanted);
	if (count && name_files(dump, wanted, count, state, err) < 0)
		return -1;
	for (u_int i = 0; i < state->files.files_len; i++)
		if (registered->files[i] && !state->files.files_val[i])
			return refuse_file(dump, file, err, "Keep a descriptor of it open: no call leads to it.",
					   "an io_uring whose registered file %u no process of the tree has open", i);
	return 0;
}

const struct file_kind kind_uring = {
	.name = "io_uring",
	.keeps = "setup, positions, submissions not taken, completions not read, registered files, buffers, "
		 "eventfd and ring descriptors; rings of one thread (SINGLE_ISSUER, DEFER_TASKRUN)",
	.refuses = "requests under way, polling threads (SQPOLL), NO_MMAP, personalities, restrictions, provided "
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
