/*
 * uring_links.c - what ties a ring of io_uring to the rest of the tree: requests of the threads that have
 * it, and registered files, of which the kernel only tells identities. They are those of descriptors
 * that somebody in the tree has, or nobody can get at them.
 */
#include <stdlib.h>
#include <string.h>

#include "bpf/async.h"
#include "engine/kinds/table.h"
#include "engine/kinds/uring_parts.h"
#include "store/scope.h"

/* What is turned into files of the image: the kernel's identities of what is registered. */
struct registered {
	const image_file_io_uring *state;
	uint64_t identity; /* of the ring */
	uint64_t eventfd;  /* its number among eventfds + 1, 0: none */
	uint64_t files[];
};

struct pending { /* by ring */
	size_t n;
	struct registered **rings;
};

int uring_note(struct dump *dump, const image_file_io_uring *state, const struct async_ring *facts,
	       const __u64 *files, struct fsnap_error *err)
{
	struct pending **slot = (struct pending **)dump_scratch(dump, &kind_uring);
	struct registered *registered =
		malloc(sizeof(*registered) + facts->n_files * sizeof(uint64_t));
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
	registered->identity = facts->identity;
	registered->eventfd = (uint64_t)facts->eventfd + 1;
	memcpy(registered->files, files, facts->n_files * sizeof(uint64_t));
	rings[(*slot)->n++] = registered;
	return 0;
}

void uring_dump_end(void *scratch)
{
	struct pending *pending = scratch;
	for (size_t i = 0; i < pending->n; i++)
		free(pending->rings[i]);
	free(pending->rings);
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

int uring_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_io_uring *state = out;
	const struct pending *pending = *dump_scratch(dump, &kind_uring);
	const struct registered *registered = NULL;
	for (size_t i = 0; pending && i < pending->n; i++)
		if (pending->rings[i]->state == state)
			registered = pending->rings[i];
	if (!registered)
		return 0;
	if (check_holders(dump, file, registered->identity, state, err) < 0)
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
