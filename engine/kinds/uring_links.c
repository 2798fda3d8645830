/*
 * uring_links.c - what ties a ring of io_uring to the rest of the tree: requests of the threads that have
 * it, and registered files, of which the kernel only tells identities. They are those of descriptors
 * that somebody in the tree has, or nobody can get at them.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpf/async.h"
#include "engine/kinds/table.h"
#include "engine/kinds/uring_look.h"
#include "engine/kinds/uring_parts.h"
#include "store/scope.h"

/* What is turned into files of the image: the kernel's identities of what is registered. */
struct registered {
	const image_file_io_uring *state;
	uint64_t identity; /* of the ring */
	uint64_t eventfd;  /* its number among eventfds + 1, 0: none */
	uint32_t sq_head, cq_tail;
	struct uring_found *found;
	uint64_t files[];
};

struct uring_dump {
	struct uring_shape shape;
	size_t n;
	struct registered **rings;
};

static struct uring_dump *of_dump(struct dump *dump)
{
	struct uring_dump **slot = (struct uring_dump **)dump_scratch(dump, &kind_uring);
	if (!*slot)
		*slot = calloc(1, sizeof(**slot));
	return *slot;
}

struct uring_shape *uring_shape(struct dump *dump)
{
	struct uring_dump *own = of_dump(dump);
	if (own)
		uring_know(dump, &own->shape);
	return own ? &own->shape : NULL;
}

static void free_found(struct uring_found *found)
{
	free(found->groups);
	free(found->buffers);
	free(found->personalities);
	free(found);
}

int uring_note(struct dump *dump, const image_file_io_uring *state, const struct async_ring *facts,
	       const __u64 *files, struct uring_found *found, struct fsnap_error *err)
{
	struct uring_dump *own = of_dump(dump);
	size_t n = facts->n_files < ASYNC_TABLE ? facts->n_files : ASYNC_TABLE;
	struct registered *registered = malloc(sizeof(*registered) + n * sizeof(uint64_t));
	struct registered **rings = own ? realloc(own->rings, (own->n + 1) * sizeof(*rings)) : NULL;
	if (rings)
		own->rings = rings;
	if (!registered || !rings) {
		free(registered);
		free_found(found);
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	}
	*registered = (struct registered){ state, facts->identity, (uint64_t)facts->eventfd + 1, facts->sq_head,
					   facts->cq_tail, found };
	memcpy(registered->files, files, n * sizeof(uint64_t));
	rings[own->n++] = registered;
	return 0;
}

bool uring_is_known(struct dump *dump, uint64_t identity)
{
	const struct uring_dump *own = *dump_scratch(dump, &kind_uring);
	for (size_t i = 0; own && i < own->n; i++)
		if (own->rings[i]->identity == identity)
			return true;
	return false;
}

void uring_dump_end(void *scratch)
{
	struct uring_dump *own = scratch;
	for (size_t i = 0; i < own->n; i++) {
		free_found(own->rings[i]->found);
		free(own->rings[i]);
	}
	free(own->rings);
}

/* --- threads ---------------------------------------------------------------------- */

static int add_index(image_file_io_uring *state, unsigned tid, unsigned index,
		     struct fsnap_error *err)
{
	image_ring_index *array = realloc(state->registered.registered_val,
					  (state->registered.registered_len + 1) * sizeof(*array));
	if (!array)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	state->registered.registered_val = array;
	array[state->registered.registered_len++] = (image_ring_index){ (int)tid, index };
	return 0;
}

/* The threads of a process that has it: requests are counted by thread, not by ring. */
static int check_threads(struct dump *dump, const image_file *file, const struct process *process,
			 uint64_t identity, image_file_io_uring *state, struct fsnap_error *err)
{
	size_t n;
	const struct async_thread *threads =
		async_threads(dump_async(dump, err), process->pid, &n, err);
	if (!threads)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (threads[i].in_flight > 0)
			return refuse_file(
				dump, file, err,
				"Try again when they are done: what waits for a connection or a "
				"timeout has to be cancelled before.",
				"io_uring: thread %u of process %d has %d requests under way",
				threads[i].tid, process->pid, threads[i].in_flight);
		for (unsigned j = 0; j < ASYNC_RINGS; j++)
			if (threads[i].rings[j] == identity &&
			    add_index(state, threads[i].tid, j, err) < 0)
				return -1;
	}
	return 0;
}

static bool has_file(const struct process *process, unsigned file)
{
	for (u_int i = 0; i < process->image.fds.fds_len; i++)
		if (process->image.fds.fds_val[i].file == file)
			return true;
	return false;
}

static int check_holders(struct dump *dump, const image_file *file, uint64_t identity,
			 image_file_io_uring *state, struct fsnap_error *err)
{
	const struct tree *tree = dump_tree(dump);
	for (size_t i = 0; i < tree->n_processes; i++)
		if (has_file(tree->processes[i], file->id) &&
		    check_threads(dump, file, tree->processes[i], identity, state, err) < 0)
			return -1;
	return 0;
}

/* --- files -------------------------------------------------------------------------- */

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

static void name_file(image_file_io_uring *state, const struct wanted *wanted, size_t count,
		      uint64_t file, unsigned id)
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
static int name_files(struct dump *dump, const struct wanted *wanted, size_t count,
		      image_file_io_uring *state, struct fsnap_error *err)
{
	const struct tree *tree = dump_tree(dump);
	for (size_t i = 0; i < tree->n_processes; i++) {
		const struct process *process = tree->processes[i];
		size_t n;
		if (process->image.zombie)
			continue;
		const struct async_descriptor *fds =
			async_descriptors(dump_async(dump, err), process->pid, &n, err);
		if (!fds)
			return -1;
		for (size_t j = 0; j < n; j++)
			name_file(state, wanted, count, fds[j].file,
				  dump_file_of_fd(dump, process, (int)fds[j].fd));
	}
	return 0;
}

static int name_eventfd(struct dump *dump, const struct registered *registered,
			image_file_io_uring *state)
{
	image_file *file;
	const image_file_eventfd *other;
	for (size_t i = 0;
	     registered->eventfd && (other = dump_file_state(dump, "eventfd", i, &file)); i++)
		if (other->id + 1u == registered->eventfd)
			state->eventfd = file->id;
	return registered->eventfd && !state->eventfd ? -1 : 0;
}

/* --- memory of the program's ----------------------------------------------------------- */

static int read_groups(const struct process *owner, image_file_io_uring *state, struct fsnap_error *err)
{
	for (u_int i = 0; i < state->groups.groups_len; i++) {
		image_ring_group *group = &state->groups.groups_val[i];
		size_t size = uring_group_bytes(group);
		if (group->flags & BUFFERS_OF_KERNEL)
			continue;
		group->memory.memory_val = malloc(size);
		group->memory.memory_len = group->memory.memory_val ? (u_int)size : 0;
		if (!group->memory.memory_val)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
		if (pread(owner->mem, group->memory.memory_val, size, (off_t)group->address) != (ssize_t)size)
			return fail(err, FSNAP_E_SYSTEM, errno, "buffers provided to an io_uring");
	}
	return 0;
}

static int read_ring(struct dump *dump, const image_file *file, const struct registered *registered,
		     const struct process *owner, image_file_io_uring *state, struct fsnap_error *err)
{
	struct ring ring = registered->found->ring;
	const char *hint;
	int mem = fcntl(owner->mem, F_DUPFD_CLOEXEC, 3);
	if (mem < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "the memory of an io_uring");
	int result = ring_fetch(&ring, mem, state->rings_address, state->sqes_address, err) < 0 ?
			     -1 : uring_save_memory(&ring, state, err);
	ring_unmap(&ring);
	const char *what = result < 0 ? NULL : uring_check_positions(state, registered->sq_head, registered->cq_tail,
								     &hint);
	return what ? refuse_file(dump, file, err, hint, "an io_uring %s", what) : result;
}

static int save_memory(struct dump *dump, const image_file *file, const struct registered *registered,
		       image_file_io_uring *state, struct fsnap_error *err)
{
	const struct process *owner;
	if (uring_find_memory(dump, file, registered->found, state, &owner, err) < 0)
		return -1;
	if (!owner)
		return 0;
	if (read_groups(owner, state, err) < 0)
		return -1;
	return state->flags & SETUP_NO_MMAP ? read_ring(dump, file, registered, owner, state, err) : 0;
}

/* --- credentials ------------------------------------------------------------------------- */

static int name_poller(struct dump *dump, const image_file *file, const struct registered *registered,
		       image_file_io_uring *state, struct fsnap_error *err)
{
	const struct process *owner = tree_find(dump_tree(dump), state->sq_owner);
	if (!(state->flags & IORING_SETUP_SQPOLL))
		return 0;
	if (!owner || !has_file(owner, file->id) || (state->owner && state->owner != state->sq_owner))
		return refuse_file(dump, file, err, "Only the process that makes a ring can have its thread: let that "
				   "process keep it open.", "an io_uring whose polling thread is of a process that has "
				   "ended, or does not have it any more");
	state->sq_tid = uring_who_has(dump, uring_shape(dump), owner, registered->found->creds);
	if (state->sq_tid)
		return 0;
	return refuse_file(dump, file, err, "Let a thread of the process that made it keep them.",
			   "an io_uring whose polling thread has credentials that no thread of its process has");
}

static int name_personalities(struct dump *dump, const image_file *file, const struct registered *registered,
			      image_file_io_uring *state, struct fsnap_error *err)
{
	const struct tree *tree = dump_tree(dump);
	for (u_int i = 0; i < state->personalities.personalities_len; i++) {
		image_ring_personality *personality = &state->personalities.personalities_val[i];
		for (size_t j = 0; j < tree->n_processes && !personality->tid; j++)
			personality->tid = uring_who_has(dump, uring_shape(dump), tree->processes[j],
							 registered->found->personalities[i]);
		if (!personality->tid)
			return refuse_file(dump, file, err, "Let a thread keep them.",
					   "an io_uring with registered credentials (personality %u) that no thread has",
					   personality->id);
	}
	return 0;
}

int uring_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_io_uring *state = out;
	const struct uring_dump *own = *dump_scratch(dump, &kind_uring);
	const struct registered *registered = NULL;
	for (size_t i = 0; own && i < own->n; i++)
		if (own->rings[i]->state == state)
			registered = own->rings[i];
	if (!registered)
		return 0;
	if (check_holders(dump, file, registered->identity, state, err) < 0 ||
	    save_memory(dump, file, registered, state, err) < 0 ||
	    name_poller(dump, file, registered, state, err) < 0 ||
	    name_personalities(dump, file, registered, state, err) < 0)
		return -1;
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
			return refuse_file(dump, file, err,
					   "Keep a descriptor of it open: no call leads to it.",
					   "an io_uring whose registered file %u no process of the "
					   "tree has open",
					   i);
	return 0;
}
