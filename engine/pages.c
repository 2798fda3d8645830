/*
 * pages.c - which pages of a process must be stored: what the kernel says of its page tables.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bpf/vmas_shape.h"
#include "engine/chain/chain.h"
#include "engine/live.h"
#include "engine/pagemap.h"
#include "engine/procfs.h"
#include "engine/secrets.h"
#include "engine/track/track.h"
#include "store/parallel.h"
#include "store/scope.h"

#define LARGE (4ull << 20)
#define ADDRESS_END 0x7ffffffff000ull

/* --- what looks like a swapped page ------------------------------------------------- */

/* Of an entry that says ENTRY_SWAPPED, the lowest five bits are the swap area and the next fifty the place
 * there. The last area is none: its entries are markers (PTE_MARKER_*, include/linux/swapops.h). */
#define MARKER_AREA 31
#define MARKER_POISON 2
#define MARKER_GUARD 4

enum swapped { SWAPPED_PAGE, SWAPPED_NOTHING, SWAPPED_GUARD, SWAPPED_POISON };

/* Linux 6.13 has guard regions, 6.15 says so with a bit of its own, which needs no privilege. */
static enum swapped what_is_swapped(uint64_t entry)
{
	uint64_t marker = (entry & ENTRY_PFN) >> 5;
	if (!(entry & ENTRY_SWAPPED))
		return SWAPPED_PAGE;
	if (entry & ENTRY_GUARD)
		return SWAPPED_GUARD;
	if ((entry & 31) != MARKER_AREA)
		return SWAPPED_PAGE;
	return marker & MARKER_GUARD ? SWAPPED_GUARD : marker & MARKER_POISON ? SWAPPED_POISON : SWAPPED_NOTHING;
}

/* Pages that are all of one sort; so many of them are in swap. */
static int take_swapped(struct dump *dump, struct process *process, int pagemap, enum swapped what,
			uint64_t swapped, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	switch (what) {
	case SWAPPED_PAGE:
		dump->report->kinds.swapped += swapped;
		if (pages_add_span(&process->n_swapped, &process->swapped, start, end, err) < 0)
			return -1;
		return pages_store(dump, process, pagemap, start, end, err);
	case SWAPPED_GUARD:
		return pages_add_span(&process->mm.guards.guards_len, &process->mm.guards.guards_val, start, end, err);
	case SWAPPED_POISON:
		fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): poisoned memory at %lx", process->pid,
		     process->comm, (unsigned long)start);
		return error_hint(err, "its content is lost: end the program, or let it unmap that page");
	case SWAPPED_NOTHING:
		break;
	}
	return 0;
}

static int sort_swapped(struct dump *dump, struct process *process, int pagemap, uint64_t start, uint64_t end,
			struct fsnap_error *err)
{
	uint64_t entries[1024];
	while (start < end) {
		uint64_t n = (end - start) / STORE_PAGE < 1024 ? (end - start) / STORE_PAGE : 1024;
		if (pread(pagemap, entries, n * 8, (off_t)(start / STORE_PAGE * 8)) != (ssize_t)(n * 8))
			return fail(err, FSNAP_E_SYSTEM, errno, "process %d (%s): pagemap", process->pid,
				    process->comm);
		for (uint64_t i = 0, first, swapped; i < n;) {
			enum swapped what = what_is_swapped(entries[first = i]);
			for (swapped = 0; i < n && what_is_swapped(entries[i]) == what; i++)
				swapped += (entries[i] & ENTRY_SWAPPED) != 0;
			if (take_swapped(dump, process, pagemap, what, swapped, start + first * STORE_PAGE,
					 start + i * STORE_PAGE, err) < 0)
				return -1;
		}
		start += n * STORE_PAGE;
	}
	return 0;
}

/* --- asking the kernel ------------------------------------------------------------------ */

/* What is in a range besides pages of its own, or may be. */
enum scan_what {
	SCAN_FILES = 1,	  /* files' pages, which are not to be stored */
	SCAN_HUGETLB = 2, /* huge pages of the system's pool */
	SCAN_ZEROES = 4,  /* pages of zeroes that differ from none: a userfaultfd has been told of them */
	SCAN_WRITTEN = 8, /* ... and only what was written (track/) is asked for: 1 ms per GiB that was not */
	SCAN_ASIDE = 16,  /* pages that the base has, perhaps: chain_aside.c */
};

static int take_region(struct dump *dump, struct process *process, int pagemap,
		       const struct scan_region *region, enum scan_what what, struct fsnap_error *err)
{
	image_mm *mm = &process->mm;
	if (region->categories & IS_SWAPPED)
		return sort_swapped(dump, process, pagemap, region->start, region->end, err);
	if (region->categories & IS_HUGE && !(what & SCAN_HUGETLB) &&
	    pages_add_span(&mm->huge.huge_len, &mm->huge.huge_val, region->start, region->end, err) < 0)
		return -1;
	int result = what & SCAN_ASIDE ? chain_aside(dump, process, pagemap, region, err) : 1;
	return result != 1 ? result : pages_store(dump, process, pagemap, region->start, region->end, err);
}

static struct scan_argument question(uint64_t start, uint64_t end, enum scan_what what, struct scan_region *regions,
				     uint64_t room)
{
	uint64_t unwanted = (what & SCAN_ZEROES ? 0 : IS_ZERO) | (what & SCAN_FILES ? IS_FILE : 0);
	return (struct scan_argument){
		.size = sizeof(struct scan_argument),
		.start = start,
		.end = end,
		.vec = (uintptr_t)regions,
		.vec_len = room,
		.category_inverted = unwanted,
		.category_mask = unwanted | (what & SCAN_WRITTEN ? IS_WRITTEN : 0),
		.category_anyof_mask = IS_PRESENT | IS_SWAPPED,
		.return_mask = IS_SWAPPED | IS_HUGE, /* neighbours that agree in these make one region */
	};
}

/* What of a region lies in `only`, which is sorted, as the regions come; NULL: all of it. */
static int take_within(struct dump *dump, struct process *process, int pagemap, const struct scan_region *region,
		       enum scan_what what, const struct track_spans *only, size_t *first, struct fsnap_error *err)
{
	struct scan_region part = *region;
	if (!only)
		return take_region(dump, process, pagemap, region, what, err);
	while (*first < only->n && only->spans[*first].end <= region->start)
		++*first;
	for (size_t i = *first; i < only->n && only->spans[i].start < region->end; i++) {
		const image_span *span = &only->spans[i];
		part.start = span->start > region->start ? span->start : region->start;
		part.end = span->end < region->end ? span->end : region->end;
		if (take_region(dump, process, pagemap, &part, what, err) < 0)
			return -1;
	}
	return 0;
}

/* Stores what [start, end) holds that is no file's and, as a rule, not the zero page. Telling files' pages apart costs
 * a look at each page's descriptor (24 ms per GiB, against 5), which large anonymous mappings need not
 * have. Returns 1 where the kernel cannot scan. */
static int scan_within(struct dump *dump, struct process *process, int pagemap, uint64_t start, uint64_t end,
		       enum scan_what what, const struct track_spans *only, struct fsnap_error *err)
{
	size_t first = 0;
	struct scan_region regions[REGIONS];
	struct scan_argument argument = question(start, end, what, regions, REGIONS);
	argument.return_mask |= what & SCAN_ASIDE ? chain_aside_asks(process) : 0;
	while (argument.start < end) {
		int n = ioctl(pagemap, SCAN, &argument);
		if (n < 0 && (errno == ENOTTY || errno == EINVAL) && argument.start == start)
			return 1;
		if (n < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "process %d (%s): PAGEMAP_SCAN",
				    process->pid, process->comm);
		for (int i = 0; i < n; i++)
			if (take_within(dump, process, pagemap, &regions[i], what, only, &first, err) < 0)
				return -1;
		argument.start = argument.walk_end;
	}
	return 0;
}

int pages_ask(int pagemap, uint64_t start, uint64_t end, struct scan_region *regions, size_t room)
{
	struct scan_argument argument = question(start, end, 0, regions, room);
	int n = ioctl(pagemap, SCAN, &argument);
	return n >= 0 && argument.walk_end >= end ? n : -1;
}

/* --- large ranges: by as many threads as there are processors, a window of pieces at a time -------------- */

#define PIECE (32ull << 20) /* bytes: 0.1 ms; none ends within a huge page */
#define PIECES 256
#define ASKED_BY_ONE 4 /* pieces, at least: making a thread costs half of one */

struct piece {
	uint64_t start, end;
	struct scan_region regions[16]; /* most are of one */
	int n; /* -1: there are more, or it is not known */
};

struct window {
	int pagemap;
	struct piece *pieces;
	size_t n;
};

static void ask_some(void *arg, uint64_t first, uint64_t n)
{
	const struct window *window = arg;
	for (struct piece *piece = window->pieces + first; piece < window->pieces + first + n; piece++)
		piece->n = pages_ask(window->pagemap, piece->start, piece->end, piece->regions,
				     sizeof(piece->regions) / sizeof(piece->regions[0]));
}

static int take_piece(struct dump *dump, struct process *process, int pagemap, const struct piece *piece,
		      struct fsnap_error *err)
{
	if (piece->n < 0)
		return scan_within(dump, process, pagemap, piece->start, piece->end, 0, NULL, err);
	for (int i = 0; i < piece->n; i++)
		if (take_region(dump, process, pagemap, &piece->regions[i], 0, err) < 0)
			return -1;
	return 0;
}

static int scan_range(struct dump *dump, struct process *process, int pagemap, uint64_t start,
		      uint64_t end, enum scan_what what, struct fsnap_error *err)
{
	struct window window = { .pagemap = pagemap };
	if (what || end - start < 2 * ASKED_BY_ONE * PIECE)
		return scan_within(dump, process, pagemap, start, end, what, NULL, err);
	cleanup_free struct piece *pieces = window.pieces = malloc(PIECES * sizeof(*pieces));
	if (!pieces)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "process %d (%s): its pages", process->pid, process->comm);
	while (start < end) {
		for (window.n = 0; window.n < PIECES && start < end; start = pieces[window.n++].end)
			pieces[window.n] = (struct piece){
				.start = start, .end = end - start < PIECE ? end : (start / PIECE + 1) * PIECE };
		parallel_for(window.n, ASKED_BY_ONE, ask_some, &window);
		for (size_t i = 0; i < window.n; i++) {
			int result = take_piece(dump, process, pagemap, &pieces[i], err);
			if (result)
				return result;
		}
	}
	return 0;
}

int pages_scan(struct dump *dump, struct process *process, int pagemap, uint64_t start, uint64_t end,
	       struct fsnap_error *err)
{
	return scan_range(dump, process, pagemap, start, end, 0, err);
}

int pages_scan_written(struct dump *dump, struct process *process, int pagemap, uint64_t start, uint64_t end,
		       const struct track_spans *only, struct fsnap_error *err)
{
	return scan_within(dump, process, pagemap, start, end, SCAN_WRITTEN, only, err);
}

/* What lies between mappings with a rule of their own: mostly text of libraries, which need not be looked through where it
 * is known to hold no page of the process' own. */
struct gaps {
	const struct vmas_range *bare;
	size_t n, at;
};

static int scan_gap(struct dump *dump, struct process *process, int pagemap, struct gaps *gaps, uint64_t start,
		    uint64_t end, struct fsnap_error *err)
{
	while (start < end) {
		while (gaps->at < gaps->n && gaps->bare[gaps->at].end <= start)
			gaps->at++;
		const struct vmas_range *bare = gaps->at < gaps->n ? &gaps->bare[gaps->at] : NULL;
		uint64_t to = bare && bare->start < end ? bare->start : end;
		int result = start < to ? scan_range(dump, process, pagemap, start, to, SCAN_FILES | SCAN_ASIDE, err) : 0;
		if (result)
			return result;
		start = bare && bare->start < end ? bare->end : end;
	}
	return chain_aside_take(dump, process, err);
}

int pages_take_region(struct dump *dump, struct process *process, int pagemap, const struct scan_region *region,
		      struct fsnap_error *err)
{
	return take_region(dump, process, pagemap, region, 0, err);
}

static bool is_watched(const struct process *process, const image_vma *vma, u_int *next)
{
	const struct userfaults *faults = &process->userfaults;
	while (*next < faults->n_ranges && faults->ranges[*next].watch.end <= vma->start)
		++*next;
	return *next < faults->n_ranges && faults->ranges[*next].watch.start < vma->end;
}

/* The whole address space: mappings with a rule of their own, among them large anonymous ones, one by one;
 * what lies between in one go. */
static int scan(struct dump *dump, struct process *process, int pagemap, struct fsnap_error *err)
{
	uint64_t from = 0;
	u_int next = 0;
	int result = 0;
	struct gaps gaps = { 0 };
	gaps.bare = readers_bare(dump, process, &gaps.n);
	for (u_int i = 0; i < process->mm.vmas.vmas_len && result == 0; i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		enum scan_what what = (vma->flags & MAP_HUGETLB ? SCAN_HUGETLB : 0) |
				      (is_watched(process, vma, &next) ? SCAN_ZEROES : 0);
		bool secret = secrets_are_in(dump, vma);
		bool tracked = process->chained && !what && vma->kind == VMA_ANON && !secret && !chain_is_aside(process, vma);
		bool live = !what && live_has(dump, process, vma);
		if ((vma->kind != VMA_ANON || vma->end - vma->start < LARGE) && !what && !live && !tracked && !secret)
			continue;
		what |= vma->kind != VMA_ANON ? SCAN_FILES : 0;
		dump->repeats.likely = true;
		result = scan_gap(dump, process, pagemap, &gaps, from, vma->start, err);
		dump->repeats.likely = !tracked;
		dump->withholds = secret;
		int chained = result == 0 && tracked ? chain_pages(dump, process, pagemap, vma, err) : 1;
		dump->repeats.likely = chained == 1;
		if (result == 0)
			result = chained != 1 ? chained :
				 live ? live_pages(dump, process, pagemap, vma, err) :
					scan_range(dump, process, pagemap, vma->start, vma->end, what, err);
		dump->withholds = false;
		if (secret && live)
			secrets_wipe(dump, process, vma);
		if (secret && result == 0)
			result = chain_withhold(process, vma, err);
		from = vma->end;
	}
	dump->repeats.likely = true;
	if (result == 0)
		result = scan_gap(dump, process, pagemap, &gaps, from, ADDRESS_END, err);
	dump->repeats.likely = false;
	return result;
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
			if (i > first && sort_swapped(dump, process, pagemap, (page + first) * STORE_PAGE,
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
		return fail(err, procfs_code(errno), errno, "process %d (%s): pagemap", process->pid,
			    process->comm);
	int result = getenv("FSNAP_NO_PAGEMAP_SCAN") ? 1 : scan(dump, process, pagemap, err);
	for (u_int i = 0; result == 1 && i < process->mm.vmas.vmas_len; i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		dump->withholds = secrets_are_in(dump, vma);
		if (may_hold_pages(vma) && read_pagemap(dump, process, pagemap, vma, err) < 0)
			return -1;
	}
	dump->withholds = false;
	return result < 0 || userfaults_pages(process, pagemap, err) < 0 ? -1 : 0;
}

static uint64_t estimate(const struct process *process)
{
	uint64_t changed = chain_estimate(process);
	return changed < process->dirty / STORE_PAGE ? changed * STORE_PAGE : process->dirty;
}

uint64_t pages_estimate(const struct dump *dump)
{
	uint64_t bytes = estimate(dump->tree.processes[0]);
	for (size_t i = 0; i < dump->known.n_processes; i++)
		bytes += estimate(dump->known.processes[i]);
	/* What they dirty until they are frozen comes on top: an eighth, and something for small ones. */
	return bytes / STORE_PAGE * 9 / 8 + 32 * (1 + dump->known.n_processes);
}
