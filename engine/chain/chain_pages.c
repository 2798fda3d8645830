/*
 * chain_pages.c - of tracked memory, the pages that have changed since the base are stored, and the others referred
 * to. While the tree is frozen the kernel is asked for what was written (0.7 ms per GiB), and nothing else of what
 * was not.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/chain/chain.h"
#include "engine/live.h"
#include "engine/pagemap.h"
#include "engine/ranges.h"
#include "store/parallel.h"
#include "store/scope.h"

#define ASKED_BY_ONE 256   /* ranges: 0.2 ms, several times what making a thread costs */

/* --- referred to ----------------------------------------------------------------------------------- */

static int note_kept(struct chained *chained, const struct page_run *run, struct fsnap_error *err)
{
	struct page_run *kept = grow(chained->kept, chained->n_kept, sizeof(*kept), err);
	if (!kept)
		return -1;
	chained->kept = kept;
	kept[chained->n_kept++] = *run;
	return 0;
}

/* Of the base's huge pages those that are whole in [start, end), and its guard regions, whose entries are written
 * when one is made or removed. */
static int keep_spans(struct process *process, int pagemap, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	struct chained *chained = process->chained;
	image_mm *mm = &process->mm;
	for (; chained->huge_at < chained->n_huge && chained->huge[chained->huge_at].end <= start; chained->huge_at++)
		;
	for (size_t i = chained->huge_at; i < chained->n_huge && chained->huge[i].start < end; i++) {
		uint64_t from = chained->huge[i].start > start ? chained->huge[i].start : start;
		uint64_t to = chained->huge[i].end < end ? chained->huge[i].end : end;
		from = (from + TRACK_TABLE - 1) / TRACK_TABLE * TRACK_TABLE;
		to = to / TRACK_TABLE * TRACK_TABLE;
		if (from < to && pages_add_span(&mm->huge.huge_len, &mm->huge.huge_val, from, to, err) < 0)
			return -1;
	}
	for (size_t i = 0; i < chained->n_guards; i++) {
		uint64_t from = chained->guards[i].start > start ? chained->guards[i].start : start;
		uint64_t to = chained->guards[i].end < end ? chained->guards[i].end : end;
		for (uint64_t next; from < to; from = next) {
			next = (from / TRACK_TABLE + 1) * TRACK_TABLE < to ? (from / TRACK_TABLE + 1) * TRACK_TABLE : to;
			int is_there = track_has_table(pagemap, from, err);
			if (is_there < 0 || (is_there &&
			    pages_add_span(&mm->guards.guards_len, &mm->guards.guards_val, from, next, err) < 0))
				return -1;
		}
	}
	return 0;
}

int chain_refer(struct dump *dump, struct process *process, const struct page_run *base, uint64_t page, uint64_t end,
		struct fsnap_error *err)
{
	struct page_run run = { .page = page, .at = base->at + (page - base->page),
				.npages = (uint32_t)(end - page), .space = process->mm.id };
	if (note_kept(process->chained, &run, err) < 0)
		return -1;
	dump->report->referred_pages += run.npages;
	run.at |= STORE_REFERRED;
	return pages_add_run(dump, &run, err);
}

struct base {
	const struct page_run *runs;
	size_t n;
	size_t at; /* runs before are behind us */
	struct track_table table; /* asked for last */
	const struct track_spans *changes;
	size_t change; /* those before it are behind the table asked for last */
};

/* Nothing is told as written where there is no page table (pagemap_scan_pte_hole(), fs/proc/task_mmu.c). */
static bool was_written_in(struct base *base, uint64_t start, uint64_t end)
{
	const struct track_spans *changes = base->changes;
	while (base->change < changes->n && changes->spans[base->change].end <= start)
		base->change++;
	return base->change < changes->n && changes->spans[base->change].start < end;
}

static int has_table(struct base *base, int pagemap, uint64_t page, struct fsnap_error *err)
{
	uint64_t start = page * STORE_PAGE / TRACK_TABLE * TRACK_TABLE, number = start / TRACK_TABLE + 1;
	if (base->table.number != number && was_written_in(base, start, start + TRACK_TABLE))
		base->table = (struct track_table){ number, 1 };
	return track_has_table_of(&base->table, pagemap, page * STORE_PAGE, err);
}

/* Pages of the base in [start, end), which is not written. They are still there if their page table is: where
 * MADV_DONTNEED has freed that, nothing was written, and nothing is there. */
static int keep(struct dump *dump, struct process *process, int pagemap, struct base *base, uint64_t start,
		uint64_t end, struct fsnap_error *err)
{
	uint64_t page = start / STORE_PAGE, last = end / STORE_PAGE;
	while (page < last) {
		while (base->at < base->n && base->runs[base->at].page + base->runs[base->at].npages <= page)
			base->at++;
		const struct page_run *run = base->at < base->n ? &base->runs[base->at] : NULL;
		if (!run || run->page >= last)
			break;
		uint64_t from = run->page > page ? run->page : page;
		uint64_t to = run->page + run->npages < last ? run->page + run->npages : last;
		uint64_t table = (from * STORE_PAGE / TRACK_TABLE + 1) * (TRACK_TABLE / STORE_PAGE);
		to = to < table ? to : table;
		int is_there = has_table(base, pagemap, from, err);
		if (is_there < 0 || (is_there && chain_refer(dump, process, run, from, to, err) < 0))
			return -1;
		page = to;
	}
	return keep_spans(process, pagemap, start, end, err);
}

/* --- a mapping ------------------------------------------------------------------------------------------ */

static int lose(struct chained *chained, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	image_span *lost = grow(chained->lost, chained->n_lost, sizeof(*lost), err);
	if (!lost)
		return -1;
	chained->lost = lost;
	lost[chained->n_lost++] = (image_span){ start, end };
	return 0;
}

/* The next image cannot build on this one for what is not in it. */
int chain_withhold(struct process *process, const image_vma *vma, struct fsnap_error *err)
{
	return process->chained ? lose(process->chained, vma->start, vma->end, err) : 0;
}

/* What is in a range that was written; most are of a page or two. */
struct answer {
	struct scan_region regions[2];
	int n; /* -1: not known */
};

struct asking {
	int pagemap;
	const image_span *spans;
	struct answer *answers;
};

static void ask_some(void *arg, uint64_t first, uint64_t n)
{
	const struct asking *asking = arg;
	for (uint64_t i = first; i < first + n; i++)
		asking->answers[i].n = pages_ask(asking->pagemap, asking->spans[i].start, asking->spans[i].end,
						 asking->answers[i].regions, 2);
}

/* By as many threads as there are processors: it stands still meanwhile. NULL: each is asked in its turn. */
static struct answer *ask_ahead(int pagemap, const struct track_spans *changes)
{
	struct asking asking = { pagemap, changes->spans, NULL };
	if (changes->n < 2 * ASKED_BY_ONE || !(asking.answers = malloc(changes->n * sizeof(*asking.answers))))
		return NULL;
	parallel_for(changes->n, ASKED_BY_ONE, ask_some, &asking);
	return asking.answers;
}

/* The part of a range that lies behind what was met before. */
static int store_written(struct dump *dump, struct process *process, int pagemap, const struct answer *answer,
			 const image_span *span, uint64_t from, struct fsnap_error *err)
{
	if (!answer || answer->n < 0 || from != span->start)
		return pages_scan(dump, process, pagemap, from, span->end, err);
	for (int i = 0; i < answer->n; i++)
		if (pages_take_region(dump, process, pagemap, &answer->regions[i], err) < 0)
			return -1;
	return 0;
}

/* What of a range that was written has not been stored already. `stored` is sorted, as the ranges come. */
static int store_rest(struct dump *dump, struct process *process, int pagemap, const struct track_spans *stored,
		      size_t *next, uint64_t from, uint64_t to, struct fsnap_error *err)
{
	for (; from < to; ++*next) {
		const image_span *span = *next < stored->n ? &stored->spans[*next] : NULL;
		uint64_t gap = span && span->start < to ? span->start : to;
		if (from < gap && pages_scan(dump, process, pagemap, from, gap, err) < 0)
			return -1;
		if (!span || span->end > to)
			return 0; /* it has more, for a later range */
		from = span->end > from ? span->end : from;
	}
	return 0;
}

struct walk {
	struct dump *dump;
	struct process *process;
	int pagemap;
	struct base base;
};

/* Where there is no base, a mark may be of a dump that came to nothing, and those of guard regions cannot be washed off
 * (change_pte_range(), mm/mprotect.c). */
static int keep_base(void *arg, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	struct walk *walk = arg;
	if (!walk->process->chained->based)
		return pages_scan(walk->dump, walk->process, walk->pagemap, start, end, err);
	return keep(walk->dump, walk->process, walk->pagemap, &walk->base, start, end, err);
}

/* What was not written is what the base says, or, in a live dump, what was copied before it stood still. `stored`: what of
 * the changes has been stored; NULL: nothing. */
static int walk(struct dump *dump, struct process *process, int pagemap, const struct track_spans *changes,
		const struct track_spans *stored, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	const struct track_spans none = { 0 }; /* what is doubtful in a live dump was perhaps written before, and given back since */
	struct walk walk = { dump, process, pagemap, { .changes = live_follows(dump, process) ? &none : changes } };
	uint64_t at = start;
	size_t next = 0;
	if (process->chained->based)
		walk.base.runs = image_runs(dump->parent, process->chained->member->space, &walk.base.n);
	cleanup_free struct answer *answers = stored ? NULL : ask_ahead(pagemap, changes);
	for (size_t i = 0; i < changes->n; i++) {
		const image_span *change = &changes->spans[i];
		uint64_t from = change->start > at ? change->start : at, to = change->end;
		if (to <= at)
			continue;
		if (live_keep(dump, process, pagemap, at, from, &walk.base.table, keep_base, &walk, err) < 0)
			return -1;
		int result = stored ? store_rest(dump, process, pagemap, stored, &next, from, to, err) :
				      store_written(dump, process, pagemap, answers ? &answers[i] : NULL, change, from, err);
		if (result < 0)
			return -1;
		at = to;
	}
	return live_keep(dump, process, pagemap, at, end, &walk.base.table, keep_base, &walk, err);
}

/* One question for all that was written takes 1 ms per GiB, one for each range of it 0.7 us, and half that by two threads. */
static bool are_many(const struct dump *dump, const struct process *process, uint64_t bytes)
{
	const struct chained *chained = process->chained;
	return chained->based && chained->n_changes > chained->bytes >> 19 && bytes >= TRACK_TABLE && !live_follows(dump, process);
}

/* Part of a mapping that was registered, as we know. From here on all of it counts as not written. Where changes are many,
 * those of `stored` are stored by one question; a page of a stack that an agent's frame is laid into behind that one
 * (finder.c) is among the changes only. */
static int tracked_part(struct dump *dump, struct process *process, int pagemap, uint64_t start, uint64_t end,
			struct fsnap_error *err)
{
	struct track_spans changes = { 0 }, stored = { 0 };
	bool many = are_many(dump, process, end - start) &&
		    track_written(pagemap, start, end, track_note, &stored, NULL) == 0; /* not lost, and noted */
	chain_begin(dump);
	int result = many ? pages_scan_written(dump, process, pagemap, start, end, &stored, err) : 0;
	if (result == 0)
		result = track_renew(&process->chained->member->track, start, end, track_note, &changes, err);
	if (result == TRACK_LOST && lose(process->chained, start, end, err) < 0)
		result = -1;
	if (result == TRACK_LOST || (result == 0 && !process->chained->based && !live_follows(dump, process)))
		result = pages_scan(dump, process, pagemap, start, end, err);
	else if (result == 0 && live_doubts(dump, process, start, end, &changes, err) < 0)
		result = -1;
	else if (result == 0)
		result = walk(dump, process, pagemap, &changes, many ? &stored : NULL, start, end, err);
	free(changes.spans);
	free(stored.spans);
	return result;
}

/* What was written was met before what was not. */
static void sort_from(image_span *spans, u_int n, u_int from)
{
	if (n > from)
		track_sort(&(struct track_spans){ spans + from, n - from });
}

int chain_pages(struct dump *dump, struct process *process, int pagemap, const image_vma *vma,
		struct fsnap_error *err)
{
	const struct track *track = process->chained ? &process->chained->member->track : NULL;
	if (!track || vma->kind != VMA_ANON || !track_is_alive(track))
		return 1;
	uint64_t at = vma->start;
	u_int huge = process->mm.huge.huge_len, guards = process->mm.guards.guards_len;
	bool any = false;
	for (size_t i = 0; i < track->n_spans; i++) {
		uint64_t from = track->spans[i].start > vma->start ? track->spans[i].start : vma->start;
		uint64_t to = track->spans[i].end < vma->end ? track->spans[i].end : vma->end;
		if (from >= to)
			continue;
		any = true;
		if ((at < from && pages_scan(dump, process, pagemap, at, from, err) < 0) ||
		    tracked_part(dump, process, pagemap, from, to, err) < 0)
			return -1;
		at = to;
	}
	if (!any)
		return 1;
	if (at < vma->end && pages_scan(dump, process, pagemap, at, vma->end, err) < 0)
		return -1;
	sort_from(process->mm.huge.huge_val, process->mm.huge.huge_len, huge);
	sort_from(process->mm.guards.guards_val, process->mm.guards.guards_len, guards);
	return live_huge(dump, process, vma, huge, err);
}

/* --- children ------------------------------------------------------------------------------------------------- */

static uint64_t end_of(const void *kept)
{
	const struct page_run *run = kept;
	return run->page + run->npages;
}

static uint64_t kept_at(const struct chained *chained, uint64_t page)
{
	size_t i = ranges_beyond(chained->kept, chained->n_kept, sizeof(*chained->kept), end_of, page);
	if (i == chained->n_kept || chained->kept[i].page > page)
		return UINT64_MAX;
	return chained->kept[i].at + (page - chained->kept[i].page);
}

/* Kept pages of others are not looked at; but here is one with the same frame at the same address. */
void chain_frames(struct dump *dump, const struct process *process, uint64_t page, const uint64_t *entries,
		  uint64_t n, uint64_t *at)
{
	memset(at, 0xff, n * sizeof(*at));
	const struct process *parent = tree_find(&dump->tree, process->ppid);
	for (; parent && dump->parent; parent = tree_find(&dump->tree, parent->ppid)) {
		uint64_t theirs[1024];
		if (!parent->chained || !parent->chained->n_kept)
			continue;
		cleanup_fd int pagemap = openat(parent->proc, "pagemap", O_RDONLY | O_CLOEXEC);
		ssize_t got = pagemap < 0 ? -1 : pread(pagemap, theirs, n * 8, (off_t)(page * 8));
		for (uint64_t i = 0; got > 0 && i < (uint64_t)got / 8; i++)
			if (at[i] == UINT64_MAX && (theirs[i] & ENTRY_PRESENT) && (theirs[i] & ENTRY_PFN) &&
			    ((theirs[i] ^ entries[i]) & ENTRY_PFN) == 0)
				at[i] = kept_at(parent->chained, page + i);
	}
}

/* --- before the freeze ----------------------------------------------------------------------------------------- */

struct changes {
	uint64_t pages, ranges;
};

static int count_pages(void *arg, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	struct changes *changes = arg;
	(void)err;
	changes->pages += (end - start) / STORE_PAGE;
	changes->ranges++;
	return 0;
}

uint64_t chain_estimate(const struct process *process)
{
	struct chained *chained = process->chained;
	if (!chained || !chained->based)
		return UINT64_MAX;
	struct changes changes = { 0 };
	const struct track *track = &chained->member->track;
	for (size_t i = 0; i < track->n_spans; i++) {
		chained->bytes += track->spans[i].end - track->spans[i].start;
		if (track_changed(track->pagemap, track->spans[i].start, track->spans[i].end, count_pages, &changes, NULL) < 0)
			return UINT64_MAX;
	}
	chained->n_changed = changes.pages;
	chained->n_changes = changes.ranges;
	return changes.pages + chained->untracked;
}
