#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/dump.h"
#include "engine/procfs.h"
#include "store/scope.h"

/* PAGEMAP_SCAN, Linux 6.7: Documentation/admin-guide/mm/pagemap.rst. Debian 12's headers lack it. */
struct scan_region {
	uint64_t start, end, categories;
};

struct scan_argument {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define SCAN _IOWR('f', 16, struct scan_argument)
#define IS_FILE (1ull << 2)
#define IS_PRESENT (1ull << 3)
#define IS_SWAPPED (1ull << 4)
#define IS_ZERO (1ull << 5)
#define REGIONS 512
#define LARGE (4ull << 20)
#define ADDRESS_END 0x7ffffffff000ull

/* Bits of /proc/PID/pagemap. */
#define ENTRY_PRESENT (1ull << 63)
#define ENTRY_SWAPPED (1ull << 62)
#define ENTRY_FILE (1ull << 61)
#define ENTRY_EXCLUSIVE (1ull << 56)
#define ENTRY_PFN ((1ull << 55) - 1)

/* --- lists -------------------------------------------------------------------- */

int pages_add_run(struct dump *dump, const struct page_run *run, struct fsnap_error *err)
{
	if (dump->n_runs) {
		struct page_run *last = &dump->runs[dump->n_runs - 1];
		if (last->space == run->space && last->page + last->npages == run->page &&
		    last->at + last->npages == run->at && last->npages + (uint64_t)run->npages < UINT32_MAX) {
			last->npages += run->npages;
			return 0;
		}
	}
	struct page_run *runs = grow(dump->runs, dump->n_runs, sizeof(*runs), err);
	if (!runs)
		return -1;
	dump->runs = runs;
	dump->runs[dump->n_runs++] = *run;
	return 0;
}

static int add_job(struct dump *dump, const struct copy_job *job, struct fsnap_error *err)
{
	struct copy_job *last = dump->jobs + dump->n_jobs - 1;
	if (dump->n_jobs && last->process == job->process && last->shared == job->shared &&
	    last->page + last->npages == job->page && last->at + last->npages == job->at) {
		last->npages += job->npages;
		return 0;
	}
	struct copy_job *jobs = grow(dump->jobs, dump->n_jobs, sizeof(*jobs), err);
	if (!jobs)
		return -1;
	dump->jobs = jobs;
	dump->jobs[dump->n_jobs++] = *job;
	return 0;
}

uint64_t pages_take(struct dump *dump, uint64_t n)
{
	uint64_t at = dump->taken;
	dump->taken += n;
	dump->report->pages += n;
	return at;
}

/* Pages that nobody has stored yet: new image pages, and a copy to be made. */
static int store_range(struct dump *dump, struct process *process, uint64_t page, uint64_t n, bool shared,
		       struct fsnap_error *err)
{
	if (n > UINT32_MAX)
		return fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): more than 16 TiB in one piece",
			    process->pid, process->comm);
	uint64_t at = pages_take(dump, n);
	struct copy_job job = { process, page, at, n, shared };
	struct page_run run = { .page = page, .at = at, .npages = (uint32_t)n, .space = process->mm.id };
	return add_job(dump, &job, err) < 0 ? -1 : pages_add_run(dump, &run, err);
}

/* --- frames shared copy-on-write ------------------------------------------------ */

/* Open addressing, frame number -> image page + 1; doubles at three quarters. */
struct frames {
	size_t used, room;
	bool hidden; /* this user is not shown frame numbers */
	struct frame {
		uint64_t pfn, at;
	} *slot;
};

static struct frame *frame_slot(struct frames *frames, uint64_t pfn)
{
	size_t i = (pfn * 0x9e3779b97f4a7c15ull) >> 20 & (frames->room - 1);
	while (frames->slot[i].at && frames->slot[i].pfn != pfn)
		i = (i + 1) & (frames->room - 1);
	return &frames->slot[i];
}

static int frames_grow(struct frames *frames, struct fsnap_error *err)
{
	struct frames bigger = { .room = frames->room ? 2 * frames->room : 4096 };
	bigger.slot = calloc(bigger.room, sizeof(*bigger.slot));
	if (!bigger.slot)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "table of shared pages");
	for (size_t i = 0; i < frames->room; i++)
		if (frames->slot[i].at)
			*frame_slot(&bigger, frames->slot[i].pfn) = frames->slot[i];
	bigger.used = frames->used;
	bigger.hidden = frames->hidden;
	free(frames->slot);
	*frames = bigger;
	return 0;
}

void pages_forget(struct dump *dump)
{
	struct frames *frames = dump->frames;
	if (frames)
		free(frames->slot);
	free(frames);
	dump->frames = NULL;
}

/* Stores one page that others may share: refers to its frame's copy, or makes the first. */
static int store_shared_page(struct dump *dump, struct process *process, uint64_t page, uint64_t pfn,
			     struct fsnap_error *err)
{
	struct frames *frames = dump->frames;
	if (4 * (frames->used + 1) > 3 * frames->room && frames_grow(frames, err) < 0)
		return -1;
	struct frame *slot = frame_slot(frames, pfn);
	if (slot->at) {
		struct page_run run = { .page = page, .at = slot->at - 1, .npages = 1,
					.space = process->mm.id };
		dump->report->shared_pages++;
		return pages_add_run(dump, &run, err);
	}
	*slot = (struct frame){ pfn, dump->taken + 1 };
	frames->used++;
	return store_range(dump, process, page, 1, true, err);
}

/* Does the process map the page alone? Swapped pages count as its own. */
static bool is_own(uint64_t entry)
{
	return (entry & ENTRY_EXCLUSIVE) || !(entry & ENTRY_PRESENT);
}

/* Pages that others map, too: by their frame, where the kernel shows its number. */
static int store_shared(struct dump *dump, struct process *process, uint64_t page, const uint64_t *entries,
			uint64_t n, struct fsnap_error *err)
{
	struct frames *frames = dump->frames;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t pfn = entries[i] & ENTRY_PFN;
		if (!pfn && !frames->hidden && dump->tree.n_processes > 1) {
			frames->hidden = true;
			dump_note(dump, "memory that processes share copy-on-write is saved as a copy for each: "
					"only root is shown which it is");
		}
		if ((pfn ? store_shared_page(dump, process, page + i, pfn, err) :
			   store_range(dump, process, page + i, 1, true, err)) < 0)
			return -1;
	}
	return 0;
}

/* Splits a range into pages that only this process maps and pages that may be shared. */
static int store_by_frame(struct dump *dump, struct process *process, int pagemap, uint64_t page,
			  uint64_t n, struct fsnap_error *err)
{
	uint64_t entries[1024];
	while (n) {
		uint64_t batch = n < 1024 ? n : 1024;
		if (pread(pagemap, entries, batch * 8, (off_t)(page * 8)) != (ssize_t)(batch * 8))
			return fail(err, FSNAP_E_SYSTEM, errno, "process %d (%s): pagemap", process->pid,
				    process->comm);
		for (uint64_t i = 0; i < batch;) {
			uint64_t first = i;
			while (i < batch && is_own(entries[i]))
				i++;
			if (i > first && store_range(dump, process, page + first, i - first, false, err) < 0)
				return -1;
			for (first = i; i < batch && !is_own(entries[i]);)
				i++;
			if (store_shared(dump, process, page + first, entries + first, i - first, err) < 0)
				return -1;
		}
		page += batch;
		n -= batch;
	}
	return 0;
}

/* --- finding pages ---------------------------------------------------------------- */

static int store_pages(struct dump *dump, struct process *process, int pagemap, uint64_t start,
		       uint64_t end, struct fsnap_error *err)
{
	uint64_t page = start / STORE_PAGE, n = (end - start) / STORE_PAGE;
	if (dump->tree.n_processes > 1 || process->shares)
		return store_by_frame(dump, process, pagemap, page, n, err);
	return store_range(dump, process, page, n, false, err);
}

/* Stores what [start, end) holds that is no file's and not the zero page. Telling files' pages apart costs
 * a look at each page's descriptor (24 ms per GiB, against 5), which large anonymous mappings need not
 * have. Returns 1 where the kernel cannot scan. */
static int scan_range(struct dump *dump, struct process *process, int pagemap, uint64_t start,
		      uint64_t end, bool files, struct fsnap_error *err)
{
	struct scan_region regions[REGIONS];
	uint64_t unwanted = IS_ZERO | (files ? IS_FILE : 0);
	struct scan_argument argument = {
		.size = sizeof(argument),
		.start = start,
		.end = end,
		.vec = (uintptr_t)regions,
		.vec_len = REGIONS,
		.category_inverted = unwanted,
		.category_mask = unwanted,
		.category_anyof_mask = IS_PRESENT | IS_SWAPPED,
		.return_mask = IS_ZERO, /* never set in what is wanted: neighbours make one region */
	};
	while (argument.start < end) {
		int n = ioctl(pagemap, SCAN, &argument);
		if (n < 0 && (errno == ENOTTY || errno == EINVAL) && argument.start == start)
			return 1;
		if (n < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "process %d (%s): PAGEMAP_SCAN",
				    process->pid, process->comm);
		for (int i = 0; i < n; i++)
			if (store_pages(dump, process, pagemap, regions[i].start, regions[i].end, err) < 0)
				return -1;
		argument.start = argument.walk_end;
	}
	return 0;
}

/* The whole address space: large anonymous mappings one by one, what lies between in one go. */
static int scan(struct dump *dump, struct process *process, int pagemap, struct fsnap_error *err)
{
	uint64_t from = 0;
	int result = 0;
	for (u_int i = 0; i < process->mm.vmas.vmas_len && result == 0; i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		if (vma->kind != VMA_ANON || vma->end - vma->start < LARGE)
			continue;
		result = scan_range(dump, process, pagemap, from, vma->start, true, err);
		if (result == 0)
			result = scan_range(dump, process, pagemap, vma->start, vma->end, false, err);
		from = vma->end;
	}
	return result ? result : scan_range(dump, process, pagemap, from, ADDRESS_END, true, err);
}

/* The same from /proc/PID/pagemap, mapping by mapping, for kernels before 6.7. */
static int read_pagemap(struct dump *dump, struct process *process, int pagemap, const image_vma *vma,
			struct fsnap_error *err)
{
	uint64_t entries[1024];
	uint64_t page = vma->start / STORE_PAGE, end = vma->end / STORE_PAGE;
	while (page < end) {
		uint64_t batch = end - page < 1024 ? end - page : 1024;
		if (pread(pagemap, entries, batch * 8, (off_t)(page * 8)) != (ssize_t)(batch * 8))
			return fail(err, FSNAP_E_SYSTEM, errno, "process %d (%s): pagemap", process->pid,
				    process->comm);
		for (uint64_t i = 0; i < batch; i++) {
			uint64_t first = i;
			while (i < batch && (entries[i] & (ENTRY_PRESENT | ENTRY_SWAPPED)) &&
			       !(entries[i] & ENTRY_FILE))
				i++;
			if (i > first && store_pages(dump, process, pagemap, (page + first) * STORE_PAGE,
						     (page + i) * STORE_PAGE, err) < 0)
				return -1;
		}
		page += batch;
	}
	return 0;
}

static bool may_hold_pages(const image_vma *vma)
{
	return vma->kind == VMA_ANON || (vma->kind == VMA_FILE && (vma->flags & MAP_PRIVATE));
}

int pages_find(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	cleanup_fd int pagemap = openat(process->proc, "pagemap", O_RDONLY | O_CLOEXEC);
	if (pagemap < 0)
		return fail(err, FSNAP_E_PERMISSION, errno, "process %d (%s): pagemap", process->pid,
			    process->comm);
	if (!dump->frames && !(dump->frames = calloc(1, sizeof(struct frames))))
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "table of shared pages");
	int result = getenv("FSNAP_NO_PAGEMAP_SCAN") ? 1 : scan(dump, process, pagemap, err);
	for (u_int i = 0; result == 1 && i < process->mm.vmas.vmas_len; i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		if (may_hold_pages(vma) && read_pagemap(dump, process, pagemap, vma, err) < 0)
			return -1;
	}
	return result < 0 ? -1 : 0;
}

uint64_t pages_estimate(const struct dump *dump)
{
	uint64_t bytes = dump->tree.processes[0]->dirty;
	for (size_t i = 0; i < dump->known.n_processes; i++)
		bytes += dump->known.processes[i]->dirty;
	/* What they dirty until they are frozen comes on top: an eighth, and something for small ones. */
	return bytes / STORE_PAGE * 9 / 8 + 32 * (1 + dump->known.n_processes);
}
