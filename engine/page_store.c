/*
 * page_store.c - pages that must be stored get their place in the image: those that only
 * one process has, each for itself; of those that several share, each physical frame once.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/chain/chain.h"
#include "engine/live.h"
#include "engine/pagemap.h"
#include "store/scope.h"

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

int pages_add_job(struct dump *dump, const struct copy_job *job, struct fsnap_error *err)
{
	struct copy_job *last = dump->n_jobs ? &dump->jobs[dump->n_jobs - 1] : NULL;
	if (last && last->process == job->process && last->shared == job->shared &&
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

int pages_add_span(u_int *count, image_span **spans, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	if (*count && (*spans)[*count - 1].end == start) {
		(*spans)[*count - 1].end = end;
		return 0;
	}
	image_span *more = grow(*spans, *count, sizeof(*more), err);
	if (!more)
		return -1;
	*spans = more;
	more[(*count)++] = (image_span){ start, end };
	return 0;
}

uint64_t pages_take(struct dump *dump, uint64_t n)
{
	uint64_t at = dump->taken;
	dump->taken += n;
	dump->report->pages += n;
	repeats_note(dump, at, n);
	return at;
}

/* How pages get into the image. */
struct storing {
	struct dump *dump;
	struct process *process;
	int pagemap;
	bool kept; /* they are there already, at the places they were given */
};

/* Where a page goes; *n: how many from there on. Those that were copied once stay where they are. */
static uint64_t place(const struct storing *storing, uint64_t page, uint64_t *n)
{
	uint64_t at = live_place(storing->dump, storing->process, page, n);
	return at == HELD_NOWHERE ? pages_take(storing->dump, *n) : at;
}

static int store_at(const struct storing *storing, uint64_t page, uint64_t n, uint64_t at, bool shared,
		    struct fsnap_error *err)
{
	struct copy_job job = { storing->process, page, at, n, shared };
	struct page_run run = { .page = page, .at = at, .npages = (uint32_t)n,
				.space = storing->process->mm.id };
	return (!storing->kept && pages_add_job(storing->dump, &job, err) < 0) ?
		       -1 : pages_add_run(storing->dump, &run, err);
}

/* Pages that nobody has stored yet. */
static int store_range(const struct storing *storing, uint64_t page, uint64_t n, bool shared,
		       struct fsnap_error *err)
{
	if (n > UINT32_MAX)
		return fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): more than 16 TiB in one piece",
			    storing->process->pid, storing->process->comm);
	for (uint64_t now; n; page += now, n -= now) {
		now = n;
		uint64_t at = place(storing, page, &now);
		if (store_at(storing, page, now, at, shared, err) < 0)
			return -1;
	}
	return 0;
}

/* --- frames shared copy-on-write ------------------------------------------------ */

/* Open addressing, frame number -> image page + 1; doubles at three quarters. */
struct frames {
	size_t used, room;
	bool hidden; /* this user is not shown frame numbers */
	uint64_t zeroes; /* the kernel's page of zeroes: what it is mapped as is as good as nothing */
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
	bigger.zeroes = frames->zeroes;
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
static int store_shared_page(const struct storing *storing, uint64_t page, uint64_t pfn,
			     struct fsnap_error *err)
{
	struct dump *dump = storing->dump;
	struct frames *frames = dump->frames;
	if (4 * (frames->used + 1) > 3 * frames->room && frames_grow(frames, err) < 0)
		return -1;
	struct frame *slot = frame_slot(frames, pfn);
	if (slot->at) {
		struct page_run run = { .page = page, .at = slot->at - 1, .npages = 1,
					.space = storing->process->mm.id };
		dump->report->shared_pages++;
		return pages_add_run(dump, &run, err);
	}
	uint64_t one = 1, at = place(storing, page, &one);
	*slot = (struct frame){ pfn, at + 1 };
	frames->used++;
	return store_at(storing, page, 1, at, true, err);
}

/* The frame an anonymous page has that was only read; 0: not shown. PAGEMAP_SCAN leaves it out itself. */
static uint64_t zero_frame(void)
{
	uint64_t entry = 0;
	char *page = mmap(NULL, STORE_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cleanup_fd int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (page == MAP_FAILED)
		return 0;
	if (pagemap >= 0 && *(volatile char *)page == 0 &&
	    pread(pagemap, &entry, sizeof(entry), (off_t)((uintptr_t)page / STORE_PAGE * sizeof(entry))) < 0)
		entry = 0;
	munmap(page, STORE_PAGE);
	return entry & ENTRY_PFN;
}

/* Does the process map the page alone? Swapped pages count as its own. */
static bool is_own(uint64_t entry)
{
	return (entry & ENTRY_EXCLUSIVE) || !(entry & ENTRY_PRESENT);
}

static int refer(struct dump *dump, struct process *process, uint64_t page, uint64_t at, struct fsnap_error *err)
{
	struct page_run run = { .page = page, .at = at | STORE_REFERRED, .npages = 1, .space = process->mm.id };
	dump->report->shared_pages++;
	return pages_add_run(dump, &run, err);
}

/* Pages that others map, too: by their frame, where the kernel shows its number. */
static int store_shared(const struct storing *storing, uint64_t page, const uint64_t *entries, uint64_t n,
			struct fsnap_error *err)
{
	struct dump *dump = storing->dump;
	struct frames *frames = dump->frames;
	if (!frames) {
		if (!(dump->frames = frames = calloc(1, sizeof(*frames))))
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "table of shared pages");
		frames->zeroes = zero_frame();
	}
	uint64_t kept[1024]; /* in the base of a chain */
	if (n)
		chain_frames(dump, storing->process, page, entries, n, kept);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t pfn = entries[i] & ENTRY_PFN;
		if (kept[i] != UINT64_MAX) {
			if (refer(dump, storing->process, page + i, kept[i], err) < 0)
				return -1;
			continue;
		}
		if (pfn && pfn == frames->zeroes)
			continue;
		if (!pfn && !frames->hidden && dump->tree.n_processes > 1) {
			frames->hidden = true;
			dump_note(dump, "memory that processes share copy-on-write is saved as a copy for each: "
					"only root is shown which it is");
		}
		if ((pfn ? store_shared_page(storing, page + i, pfn, err) :
			   store_range(storing, page + i, 1, true, err)) < 0)
			return -1;
	}
	return 0;
}

/* Splits a range into pages that only this process maps and pages that may be shared. */
static int store_by_frame(const struct storing *storing, uint64_t page, uint64_t n, struct fsnap_error *err)
{
	const struct process *process = storing->process;
	uint64_t entries[1024];
	while (n) {
		uint64_t batch = n < 1024 ? n : 1024;
		if (pread(storing->pagemap, entries, batch * 8, (off_t)(page * 8)) != (ssize_t)(batch * 8))
			return fail(err, FSNAP_E_SYSTEM, errno, "process %d (%s): pagemap", process->pid,
				    process->comm);
		for (uint64_t i = 0; i < batch;) {
			uint64_t first = i;
			while (i < batch && is_own(entries[i]))
				i++;
			if (i > first && store_range(storing, page + first, i - first, false, err) < 0)
				return -1;
			for (first = i; i < batch && !is_own(entries[i]);)
				i++;
			if (store_shared(storing, page + first, entries + first, i - first, err) < 0)
				return -1;
		}
		page += batch;
		n -= batch;
	}
	return 0;
}

static int store(const struct storing *storing, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	uint64_t page = start / STORE_PAGE, n = (end - start) / STORE_PAGE;
	if (storing->dump->withholds)
		return 0;
	if (storing->dump->tree.n_processes > 1 || storing->process->shares)
		return store_by_frame(storing, page, n, err);
	return store_range(storing, page, n, false, err);
}

int pages_store(struct dump *dump, struct process *process, int pagemap, uint64_t start, uint64_t end,
		struct fsnap_error *err)
{
	return store(&(struct storing){ dump, process, pagemap, false }, start, end, err);
}

int pages_keep(struct dump *dump, struct process *process, int pagemap, uint64_t start, uint64_t end,
	       struct fsnap_error *err)
{
	return store(&(struct storing){ dump, process, pagemap, true }, start, end, err);
}
