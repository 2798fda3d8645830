#include "restorer/memory.h"

#include <linux/prctl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "restorer/stream.h"
#include "store/scope.h"

#define ADDRESS_END 0x7ffffffff000ull
#define HOLE_FROM 0x200000000ull /* above what programs without PIE use */
/* Where huge pages are: the kernel puts mappings of that size and more there (mm/huge_memory.c, thp_get_unmapped_area(),
 * Linux 6.7), and left remainders of a hole that begins elsewhere, which ring.c could not fill. */
#define HOLE_GRAIN (2ull << 20)
#define PIECES 1024		 /* IOV_MAX */
#define READ_MAX (4ull << 20)	 /* bytes per call: what the caches hold */
#define POPULATE_FROM 32	 /* pages: shorter runs are faulted in by the read itself */

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

static int by_start(const void *a, const void *b)
{
	const struct memory_range *left = a, *right = b;
	return left->start < right->start ? -1 : left->start > right->start;
}

uint64_t memory_find_hole(const image_mm *mms, size_t n, const struct memory_range *ours, size_t n_ours,
			  uint64_t size)
{
	size_t count = n_ours;
	for (size_t i = 0; i < n; i++)
		count += mms[i].vmas.vmas_len;
	cleanup_free struct memory_range *ranges = malloc((count + 1) * sizeof(*ranges));
	if (!ranges)
		return 0;
	memcpy(ranges, ours, n_ours * sizeof(*ours));
	size_t at = n_ours;
	for (size_t i = 0; i < n; i++)
		for (u_int j = 0; j < mms[i].vmas.vmas_len; j++)
			ranges[at++] = (struct memory_range){ mms[i].vmas.vmas_val[j].start,
							      mms[i].vmas.vmas_val[j].end };
	qsort(ranges, count, sizeof(*ranges), by_start);
	uint64_t hole = HOLE_FROM;
	for (size_t i = 0; i < count && ranges[i].start < hole + size; i++)
		if (ranges[i].end > hole)
			hole = (ranges[i].end + HOLE_GRAIN - 1) & ~(HOLE_GRAIN - 1);
	return hole + size <= ADDRESS_END ? hole : 0;
}

void memory_clear(struct plans *plans, uint32_t task, const struct memory_source *source)
{
	size_t n = 0, specials = source->n_specials < 14 ? source->n_specials : 14;
	cleanup_free struct memory_range *keep = calloc(16 + source->n_held, sizeof(*keep));
	if (!keep)
		return; /* what is made there will fail */
	keep[n++] = source->control;
	for (size_t i = 0; i < specials; i++)
		keep[n++] = (struct memory_range){ source->specials[i].start, source->specials[i].end };
	for (size_t i = 0; i < source->n_held; i++)
		keep[n++] = source->held[i];
	qsort(keep, n, sizeof(keep[0]), by_start);
	keep[n++] = (struct memory_range){ ADDRESS_END, ADDRESS_END };
	plan_note(plans, "drop what was inherited");
	uint64_t from = 0;
	for (size_t i = 0; i < n; i++) {
		if (keep[i].start > from)
			plan_call(plans, task, SYS_munmap, IMM(from), IMM(keep[i].start - from));
		from = keep[i].end;
	}
	memory_park(plans, task, source);
}

/* --- mappings ------------------------------------------------------------------ */

/* Are there stored pages in [start, end)? runs are sorted by page. */
static bool has_pages(const struct page_run *runs, size_t n, uint64_t start, uint64_t end)
{
	size_t low = 0, high = n;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if ((runs[middle].page + runs[middle].npages) * STORE_PAGE <= start)
			low = middle + 1;
		else
			high = middle;
	}
	return low < n && runs[low].page * STORE_PAGE < end;
}

static bool needs_write(const image_vma *vma, const struct page_run *runs, size_t n)
{
	return !(vma->prot & PROT_WRITE) && !(vma->flags & MAP_SHARED) &&
	       has_pages(runs, n, vma->start, vma->end);
}

static void map_vma(struct plans *plans, uint32_t task, const struct memory_source *source,
		    const image_vma *vma, bool write)
{
	int fd = -1;
	/* MAP_SHARED_VALIDATE (which contains MAP_SHARED) knows only the older flag. */
	unsigned flags = vma->flags | (vma->flags & MAP_SYNC ? MAP_FIXED : MAP_FIXED_NOREPLACE);
	if (vma->kind == VMA_FILE)
		fd = vma->advice & ADVICE_MAY_WRITE ? source->mapped_write_fd[vma->object] :
						      source->mapped_fd[vma->object];
	else if (vma->kind == VMA_SHARED)
		fd = source->ghost_fd[vma->object];
	else
		flags |= MAP_ANONYMOUS;
	plan_note(plans, "map %s", vma->name[0] ? vma->name : fd < 0 ? "anonymous memory" : "file");
	plan_call(plans, task, SYS_mmap, IMM(vma->start), IMM(vma->end - vma->start),
		  IMM(vma->prot | (write ? PROT_WRITE : 0)), IMM(flags), IMM(fd),
		  IMM(fd < 0 ? 0 : vma->offset));
	plan_accept_equal(plans, (int64_t)vma->start);
}

void memory_map(struct plans *plans, uint32_t task, const struct memory_source *source, const image_vma *vma)
{
	map_vma(plans, task, source, vma, false);
}

/* prctl(PR_SET_VMA): names a program gave its anonymous memory, private or shared. */
static void name_vma(struct plans *plans, uint32_t task, const image_vma *vma)
{
	bool named = strncmp(vma->name, "[anon:", 6) == 0 || strncmp(vma->name, "[anon_shmem:", 12) == 0;
	const char *begin = named ? strchr(vma->name, ':') + 1 : NULL, *end = strrchr(vma->name, ']');
	if (!named || !end || end < begin)
		return;
	cleanup_free char *name = strndup(begin, (size_t)(end - begin));
	if (!name)
		return;
	plan_call(plans, task, SYS_prctl, IMM(PR_SET_VMA), IMM(PR_SET_VMA_ANON_NAME), IMM(vma->start),
		  IMM(vma->end - vma->start), DATA(plans_data(plans, name, strlen(name) + 1, 1)));
	plan_accept_any(plans); /* a kernel without CONFIG_ANON_VMA_NAME: only /proc shows it */
}

/* --- content --------------------------------------------------------------------- */

/* Neighbouring image pages bound for scattered addresses: one read. */
struct batch {
	struct iovec pieces[PIECES];
	size_t n;
	struct image_place from; /* first image page */
	uint64_t at;		 /* its number */
	uint64_t npages; /* in all */
	struct memory_stretches *stretches; /* to be noted; NULL: nobody asks */
	bool exhausted;
};

/* Page faults one by one cost more than the copy: long pieces are populated by one call each, right before
 * they are read, while the pages that were cleared are still in the cache. */
static void populate(struct plans *plans, uint32_t task, const struct batch *batch)
{
	for (size_t i = 0; i < batch->n; i++) {
		const struct iovec *piece = &batch->pieces[i];
		if (piece->iov_len < POPULATE_FROM * STORE_PAGE)
			continue;
		plan_call(plans, task, SYS_madvise, IMM(piece->iov_base), IMM(piece->iov_len),
			  IMM(MADV_POPULATE_WRITE));
		plan_accept_any(plans); /* kernels before 5.14: the read faults them in */
	}
}

/* The last block that it reads of has come. */
static void await_staged(struct plans *plans, uint32_t task, const struct memory_source *source,
			 const struct batch *batch)
{
	uint32_t in;
	if (source->staged)
		plan_wait(plans, task, source->staged_barrier,
			  (uint32_t)image_block_of(source->image, batch->at + batch->npages - 1, &in) + 1);
}

static void note_stretch(const struct plans *plans, uint32_t task, struct batch *batch)
{
	struct memory_stretches *list = batch->stretches;
	if (!list)
		return;
	if (list->n == list->room) {
		size_t room = list->room ? 2 * list->room : 256;
		uint32_t *first = realloc(list->first, room * sizeof(*first));
		batch->exhausted = batch->exhausted || !first;
		if (!first)
			return;
		list->first = first;
		list->room = room;
	}
	list->first[list->n++] = plans_operations(plans, task);
}

static void flush(struct plans *plans, uint32_t task, const struct memory_source *source,
		  struct batch *batch)
{
	if (batch->n == 0)
		return;
	note_stretch(plans, task, batch);
	populate(plans, task, batch);
	await_staged(plans, task, source, batch);
	uint32_t pieces = plans_data(plans, batch->pieces, batch->n * sizeof(batch->pieces[0]), 8);
	plan_call(plans, task, SYS_preadv, IMM(source->image_fds[batch->from.file]), DATA(pieces), IMM(batch->n),
		  IMM(batch->from.offset), IMM(0));
	plan_accept_equal(plans, (int64_t)(batch->npages * STORE_PAGE));
	batch->n = batch->npages = 0;
}

static void add_piece(struct plans *plans, uint32_t task, const struct memory_source *source,
		      struct batch *batch, uint64_t page, uint64_t at, uint64_t npages)
{
	if (batch->n && (batch->n == PIECES || batch->at + batch->npages != at ||
			 batch->npages == batch->from.npages || /* the next page is in another file */
			 (batch->npages + npages) * STORE_PAGE > READ_MAX))
		flush(plans, task, source, batch);
	if (batch->n == 0) {
		batch->at = at;
		batch->from = image_locate(source->image, at);
	}
	batch->pieces[batch->n++] = (struct iovec){ (void *)(page * STORE_PAGE), npages * STORE_PAGE };
	batch->npages += npages;
}

int memory_fill(struct plans *plans, uint32_t task, const struct memory_source *source,
		const struct page_run *runs, size_t n, struct fsnap_error *err)
{
	return memory_fill_noting(plans, task, source, runs, n, NULL, err);
}

int memory_fill_noting(struct plans *plans, uint32_t task, const struct memory_source *source,
		       const struct page_run *runs, size_t n, struct memory_stretches *stretches,
		       struct fsnap_error *err)
{
	cleanup_free struct batch *batch = calloc(1, sizeof(*batch));
	if (!batch)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plan of a restore");
	batch->stretches = stretches;
	for (size_t i = 0; i < n; i++)
		for (uint64_t done = 0; done < runs[i].npages;) {
			uint64_t left = runs[i].npages - done, most = READ_MAX / STORE_PAGE;
			uint64_t now = left < most ? left : most;
			add_piece(plans, task, source, batch, runs[i].page + done, runs[i].at + done, now);
			done += now;
		}
	flush(plans, task, source, batch);
	return batch->exhausted ? fail(err, FSNAP_E_NOMEM, ENOMEM, "plan of a restore") : 0;
}

/* Small pages first, in memory that is not to have huge ones yet, whatever the system's setting: the first
 * of them would bring a huge page of zeroes, and what a userfaultfd is to find missing would be there.
 * Advising only parts would not do: the kernel would not make one mapping of them again. */
static int fill_in_order(struct plans *plans, uint32_t task, const struct memory_source *source,
			 const image_mm *mm, const struct page_run *runs, size_t n, struct fsnap_error *err)
{
	struct memory_division division;
	if (memory_divide(mm, runs, n, &division, err) < 0)
		return -1;
	/* Right after its end a thread's number is not yet free for the next. */
	int first = source->helper_number, second = first ? first + (int)source->helpers : 0;
	plan_note(plans, "no huge pages yet");
	plan_call(plans, task, SYS_prctl, IMM(PR_SET_THP_DISABLE), IMM(1));
	memory_expect_small(plans, task, mm);
	int result = memory_fill_by_crew(plans, task, source, first, division.small, division.n_small, err);
	plan_note(plans, "huge pages now");
	plan_call(plans, task, SYS_prctl, IMM(PR_SET_THP_DISABLE), IMM(0));
	memory_expect_huge(plans, task, mm);
	if (result == 0)
		result = memory_fill_by_crew(plans, task, source, second, division.huge, division.n_huge, err);
	memory_division_free(&division);
	return result;
}

/* --- the whole ------------------------------------------------------------------------ */

static void move_here(struct plans *plans, uint32_t task, const image_vma *vma, uint64_t from)
{
	uint64_t size = vma->end - vma->start;
	plan_note(plans, "held %s", vma->name[0] ? vma->name : "anonymous memory");
	plan_call(plans, task, SYS_mremap, IMM(from), IMM(size), IMM(size), IMM(MREMAP_MAYMOVE | MREMAP_FIXED),
		  IMM(vma->start));
	plan_accept_equal(plans, (int64_t)vma->start);
}

/* The few pages of it that come now, before it is watched; a huge page would bring others as zeroes. */
static int leave_room(struct plans *plans, uint32_t task, const struct memory_source *source, const image_mm *mm,
		      const struct memory_part *part, struct fsnap_error *err)
{
	plan_note(plans, "pages that cannot wait");
	plan_call(plans, task, SYS_prctl, IMM(PR_SET_THP_DISABLE), IMM(1));
	int result = memory_fill(plans, task, source, part->stream->first, part->stream->n_first, err);
	plan_call(plans, task, SYS_prctl, IMM(PR_SET_THP_DISABLE), IMM(0));
	stream_watch(plans, task, mm, part->stream, part->seat);
	return result;
}

/* What is brought by the plan, and where mappings have to be opened for it. */
struct content {
	const struct page_run *runs, *first;
	size_t n, n_first;
};

static struct content content_of(const struct memory_source *source, const image_mm *mm,
				 const struct memory_part *part)
{
	struct content content = { 0 };
	if (part->stream)
		return (struct content){ part->stream->now, part->stream->first, part->stream->n_now,
					 part->stream->n_first };
	content.runs = part->inherited ? part->runs : image_runs(source->image, mm->id, &content.n);
	if (part->inherited)
		content.n = part->n_runs;
	return content;
}

static bool must_open(const image_vma *vma, const struct content *content)
{
	return needs_write(vma, content->runs, content->n) || needs_write(vma, content->first, content->n_first);
}

int memory_build(struct plans *plans, uint32_t task, const struct memory_source *source,
		 const image_mm *mm, const struct memory_part *part, struct fsnap_error *err)
{
	const bool *inherited = part->inherited;
	const struct content content = content_of(source, mm, part);
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		if (vma->kind == VMA_SPECIAL || vma->kind == VMA_RING)
			continue;
		if (vma->kind == VMA_AIO) {
			if (memory_aio(plans, task, source, mm, vma, err) < 0)
				return -1;
			continue;
		}
		if (vma->kind == VMA_SYSV) {
			memory_attach(plans, task, source, mm, i);
			continue;
		}
		if (!inherited || !inherited[i])
			map_vma(plans, task, source, vma, must_open(vma, &content));
		else if (part->from && part->from[i])
			move_here(plans, task, vma, part->from[i]);
		if (!part->settled || !inherited || !inherited[i])
			name_vma(plans, task, vma);
	}
	if (part->leftover.end) {
		plan_note(plans, "what others of the tree have");
		plan_call(plans, task, SYS_munmap, IMM(part->leftover.start), IMM(part->leftover.end - part->leftover.start));
	}
	if (memory_rings(plans, task, source, mm, err) < 0)
		return -1;
	if (part->stream && leave_room(plans, task, source, mm, part, err) < 0)
		return -1;
	plan_note(plans, "content of memory");
	if (fill_in_order(plans, task, source, mm, content.runs, content.n, err) < 0)
		return -1;
	plan_note(plans, "protection as it was");
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		bool open = inherited && inherited[i] ? vma->prot != (PROT_READ | PROT_WRITE) && !part->settled :
							vma->kind != VMA_SPECIAL && must_open(vma, &content);
		if (open)
			plan_call(plans, task, SYS_mprotect, IMM(vma->start), IMM(vma->end - vma->start),
				  IMM(vma->prot));
	}
	memory_advise(plans, task, mm, inherited, part->stream ? part->stream->vma : NULL);
	return 0;
}

/* A program that restores itself: its tasks are of that program already, and the kernel refuses to set what is
 * mapped (replace_mm_exe_file() in kernel/fork.c, EBUSY). */
static bool is_our_program(int fd)
{
	struct stat theirs, ours;
	return fstat(fd, &theirs) == 0 && stat("/proc/self/exe", &ours) == 0 && theirs.st_ino == ours.st_ino &&
	       theirs.st_dev == ours.st_dev;
}

void memory_fields(struct plans *plans, uint32_t task, const struct memory_source *source,
		   const image_mm *mm)
{
	int exe = source->mapped_fd[mm->exe];
	struct prctl_mm_map map = {
		.start_code = mm->start_code, .end_code = mm->end_code,
		.start_data = mm->start_data, .end_data = mm->end_data,
		.start_brk = mm->start_brk, .brk = mm->brk, .start_stack = mm->start_stack,
		.arg_start = mm->arg_start, .arg_end = mm->arg_end,
		.env_start = mm->env_start, .env_end = mm->env_end,
		.auxv_size = mm->auxv.auxv_len,
		.exe_fd = source->exe_stays || is_our_program(exe) ? ~0u : (uint32_t)exe,
	};
	plan_note(plans, "heap, stack, arguments, executable (PR_SET_MM_MAP)");
	uint32_t ref = plans_data(plans, &map, sizeof(map), 8);
	plans_pointer(plans, ref + offsetof(struct prctl_mm_map, auxv),
		      plans_data(plans, mm->auxv.auxv_val, mm->auxv.auxv_len, 8));
	plan_call(plans, task, SYS_prctl, IMM(PR_SET_MM), IMM(PR_SET_MM_MAP), DATA(ref), IMM(sizeof(map)));
}
