/*
 * uring_pages.c - where a program has the memory that the kernel holds for a ring of io_uring: it remembers pages, not
 * addresses. A page is known by the address of its struct page; those lie one behind the other (Documentation/mm/
 * memory-model.rst, vmemmap), so a single one whose number is known, of memory of our own, tells the numbers of all.
 * And which number a program has where, /proc/PID/pagemap says.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/kinds/uring_look.h"
#include "engine/kinds/uring_parts.h"
#include "engine/pagemap.h"
#include "store/scope.h"

#define STRUCT_PAGE 64 /* bytes; checked */
#define ENTRIES 8192u  /* of pagemap, read at once */
#define MOST 512u      /* regions of a ring that are searched for */

/* --- numbers of pages ------------------------------------------------------------------- */

static uint64_t frame_at(int pagemap, uint64_t address)
{
	uint64_t entry = 0;
	if (pread(pagemap, &entry, sizeof(entry), (off_t)(address / STORE_PAGE * 8)) != sizeof(entry) ||
	    !(entry & ENTRY_PRESENT))
		return 0;
	return entry & ENTRY_PFN;
}

/* Two pages of ours, registered with a ring of ours. */
static void learn(struct dump *dump, struct uring_shape *shape, const char *memory)
{
	image_file_io_uring plain = { .sq_entries = 1, .cq_entries = 2 };
	struct io_uring_params params;
	struct iovec vectors[2] = { { (void *)memory, STORE_PAGE }, { (void *)(memory + STORE_PAGE), STORE_PAGE } };
	cleanup_fd int ring = ring_setup(&plain, 0, &params);
	cleanup_fd int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (ring < 0 || pagemap < 0 ||
	    syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, vectors, 2) < 0)
		return;
	uint64_t pages[2], frames[2];
	for (unsigned i = 0; i < 2; i++) {
		pages[i] = uring_page_of(dump, shape, ring, i);
		frames[i] = frame_at(pagemap, (uintptr_t)vectors[i].iov_base);
	}
	shape->page = pages[0];
	shape->frame = frames[0];
	shape->has_frames = pages[0] && pages[1] && frames[0] && frames[1] &&
			    (int64_t)(pages[1] - pages[0]) == (int64_t)(frames[1] - frames[0]) * STRUCT_PAGE;
}

static bool know_frames(struct dump *dump, struct uring_shape *shape)
{
	if (shape->has_frames)
		return true;
	char *memory = mmap(NULL, 2 * STORE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
			    -1, 0);
	if (memory == MAP_FAILED)
		return false;
	learn(dump, shape, memory);
	munmap(memory, 2 * STORE_PAGE);
	return shape->has_frames;
}

static uint64_t frame_of(const struct uring_shape *shape, uint64_t page)
{
	return shape->frame + (uint64_t)((int64_t)(page - shape->page) / STRUCT_PAGE);
}

/* --- a process ---------------------------------------------------------------------------- */

struct sought {
	uint64_t frame, last; /* of the first and of the last page */
	uint32_t pages;
	uint64_t address; /* found; 0: not yet */
};

static bool is_ordinary(const image_vma *vma)
{
	return vma->kind == VMA_ANON || vma->kind == VMA_FILE || vma->kind == VMA_SHARED || vma->kind == VMA_SYSV;
}

static void search_entries(int pagemap, const uint64_t *entries, size_t n, uint64_t address, struct sought *sought,
			   size_t n_sought)
{
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < n_sought && (entries[i] & ENTRY_PRESENT); j++) {
			uint64_t at = address + i * STORE_PAGE;
			if ((entries[i] & ENTRY_PFN) == sought[j].frame && !sought[j].address &&
			    frame_at(pagemap, at + (sought[j].pages - 1) * (uint64_t)STORE_PAGE) == sought[j].last)
				sought[j].address = at;
		}
}

static size_t count_left(const struct sought *sought, size_t n)
{
	size_t left = 0;
	for (size_t i = 0; i < n; i++)
		left += !sought[i].address;
	return left;
}

/* Are all of them there? */
static bool search(const struct process *process, struct sought *sought, size_t n)
{
	cleanup_fd int pagemap = openat(process->proc, "pagemap", O_RDONLY | O_CLOEXEC);
	cleanup_free uint64_t *entries = malloc(ENTRIES * sizeof(*entries));
	for (size_t i = 0; i < n; i++)
		sought[i].address = 0;
	for (u_int i = 0; pagemap >= 0 && entries && i < process->mm.vmas.vmas_len && count_left(sought, n); i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		for (uint64_t at = vma->start; is_ordinary(vma) && at < vma->end; at += ENTRIES * STORE_PAGE) {
			uint64_t left = (vma->end - at) / STORE_PAGE, want = left < ENTRIES ? left : ENTRIES;
			ssize_t got = pread(pagemap, entries, want * 8, (off_t)(at / STORE_PAGE * 8));
			if (got > 0)
				search_entries(pagemap, entries, (size_t)got / 8, at, sought, n);
		}
	}
	return !count_left(sought, n);
}

/* Is what was registered still where it was? */
static bool has_buffers(const struct process *process, const struct uring_shape *shape,
			const image_file_io_uring *state, const struct uring_found *found)
{
	cleanup_fd int pagemap = openat(process->proc, "pagemap", O_RDONLY | O_CLOEXEC);
	for (u_int i = 0; i < state->buffers.buffers_len; i++) {
		const image_ring_buffer *buffer = &state->buffers.buffers_val[i];
		const struct uring_buffer *where = &found->buffers[i];
		if (buffer->length && frame_at(pagemap, buffer->address) !=
					      frame_of(shape, where->page) + where->offset / STORE_PAGE)
			return false;
	}
	return true;
}

static bool has_file(const struct process *process, unsigned file)
{
	for (u_int i = 0; i < process->image.fds.fds_len; i++)
		if (process->image.fds.fds_val[i].file == file)
			return true;
	return false;
}

/* --- a ring --------------------------------------------------------------------------------- */

static void add(struct sought *sought, size_t *n, const struct uring_shape *shape, const struct uring_region *region)
{
	if (region->first && *n < MOST)
		sought[(*n)++] = (struct sought){ frame_of(shape, region->first), frame_of(shape, region->last),
						  region->count, 0 };
}

static size_t list(struct sought *sought, const struct uring_shape *shape, const image_file_io_uring *state,
		   const struct uring_found *found)
{
	size_t n = 0;
	if (state->flags & SETUP_NO_MMAP) {
		add(sought, &n, shape, &found->rings);
		add(sought, &n, shape, &found->sqes);
	}
	for (u_int i = 0; i < state->groups.groups_len; i++)
		add(sought, &n, shape, &found->groups[i]);
	return n;
}

static void take(const struct sought *sought, image_file_io_uring *state, const struct uring_found *found)
{
	size_t at = 0;
	if (state->flags & SETUP_NO_MMAP) {
		state->rings_address = sought[at++].address;
		state->sqes_address = sought[at++].address;
	}
	for (u_int i = 0; i < state->groups.groups_len; i++)
		if (found->groups[i].first)
			state->groups.groups_val[i].address = sought[at++].address;
}

int uring_find_memory(struct dump *dump, const image_file *file, const struct uring_found *found,
		      image_file_io_uring *state, const struct process **owner, struct fsnap_error *err)
{
	struct uring_shape *shape = uring_shape(dump);
	const struct tree *tree = dump_tree(dump);
	cleanup_free struct sought *sought = calloc(MOST, sizeof(*sought));
	*owner = NULL;
	if (!shape || !sought)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "an io_uring");
	bool any = state->flags & SETUP_NO_MMAP || state->buffers.buffers_len;
	for (u_int i = 0; i < state->groups.groups_len; i++)
		any |= found->groups[i].first != 0;
	if (!any || !shape->known)
		return 0;
	if (!know_frames(dump, shape))
		return refuse_file(dump, file, err, "It takes root to be told the numbers of pages.",
				   "an io_uring that uses memory of the program's, and nobody tells where");
	size_t n = list(sought, shape, state, found);
	for (size_t i = 0; i < tree->n_processes && !*owner; i++)
		if (has_file(tree->processes[i], file->id) && has_buffers(tree->processes[i], shape, state, found) &&
		    search(tree->processes[i], sought, n))
			*owner = tree->processes[i];
	if (!*owner)
		return refuse_file(dump, file, err, "Let a process that has the ring keep the memory mapped that it was "
				   "given.", "an io_uring that uses memory of the program's which no process that has it "
				   "has mapped any more");
	take(sought, state, found);
	state->owner = (*owner)->pid;
	return 0;
}
