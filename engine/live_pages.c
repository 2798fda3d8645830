/*
 * live_pages.c - what of the copies made while the tree ran still holds, now that it stands still.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/chain/chain.h"
#include "engine/live.h"
#include "store/scope.h"

#define TABLE_PAGES (TRACK_TABLE / STORE_PAGE)

static struct live_space *find_space(const struct dump *dump, const struct process *process)
{
	size_t at = dump->live ? numbers_get(&dump->live->by_pid, process->pid) : NUMBERS_NONE;
	if (at == NUMBERS_NONE)
		return NULL;
	struct live_space *space = &dump->live->spaces[at];
	/* Another program in the same process, or another process with the same number. */
	if (dump->still && !space->judged) {
		space->judged = true;
		if (!space->member && !track_is_alive(&space->track))
			track_close(&space->track);
	}
	return space;
}

bool live_follows(const struct dump *dump, const struct process *process)
{
	const struct live_space *space = find_space(dump, process);
	return space && !space->evaded;
}

static bool overlaps(const image_span *span, uint64_t start, uint64_t end)
{
	return span->start < end && start < span->end;
}

bool live_watches(const struct dump *dump, const struct process *process, uint64_t start, uint64_t end)
{
	const struct live_space *space = find_space(dump, process);
	const struct track *track = !space ? NULL : space->member ? &space->member->track : &space->track;
	return track && track_has(track, start, end);
}

bool live_has(const struct dump *dump, const struct process *process, const image_vma *vma)
{
	const struct live_space *space = vma->kind == VMA_ANON ? find_space(dump, process) : NULL;
	return space && !space->member && !space->evaded && live_watches(dump, process, vma->start, vma->end);
}

uint64_t live_place(const struct dump *dump, const struct process *process, uint64_t page, uint64_t *n)
{
	const struct live_space *space = find_space(dump, process);
	return space ? held_find(&space->held, page, n) : HELD_NOWHERE;
}

/* --- judging ------------------------------------------------------------------------------ */

struct judgement {
	struct dump *dump;
	struct process *process;
	int pagemap;
	const struct live_space *space;
	struct track_table *table; /* asked for last */
	struct track_spans written;
	live_between_fn between; /* of what has no copy; NULL: it was not there, and is not */
	void *arg;
};

static int look(const struct judgement *judge, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	return start < end ? pages_scan(judge->dump, judge->process, judge->pagemap, start, end, err) : 0;
}

/* Pages of one run of copies, none of which was written: of each page table one is asked whether it is there. */
static int keep_run(struct judgement *judge, uint64_t page, uint64_t end, struct fsnap_error *err)
{
	for (uint64_t next; page < end; page = next) {
		next = (page / TABLE_PAGES + 1) * TABLE_PAGES;
		if (next > end)
			next = end;
		int is_there = track_has_table_of(judge->table, judge->pagemap, page * STORE_PAGE, err);
		if (is_there < 0 || (is_there && pages_keep(judge->dump, judge->process, judge->pagemap, page * STORE_PAGE,
							    next * STORE_PAGE, err) < 0))
			return -1;
	}
	return 0;
}

static int tell_between(const struct judgement *judge, uint64_t page, uint64_t end, struct fsnap_error *err)
{
	return judge->between && page < end ? judge->between(judge->arg, page * STORE_PAGE, end * STORE_PAGE, err) : 0;
}

/* A range in which nothing was written. */
static int keep(struct judgement *judge, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	const struct held *held = &judge->space->held;
	uint64_t first = start / STORE_PAGE, last = end / STORE_PAGE;
	for (size_t i = held_from(held, first); i < held->n_sorted && held->runs[i].page < last; i++) {
		const struct held_run *run = &held->runs[i];
		uint64_t page = run->page > first ? run->page : first;
		uint64_t stop = run->page + run->npages < last ? run->page + run->npages : last;
		if (tell_between(judge, first, page, err) < 0)
			return -1;
		first = stop;
		if ((run->spoiled ? look(judge, page * STORE_PAGE, stop * STORE_PAGE, err) :
				    keep_run(judge, page, stop, err)) < 0)
			return -1;
	}
	return tell_between(judge, first, last, err);
}

int live_keep(struct dump *dump, struct process *process, int pagemap, uint64_t start, uint64_t end,
	      struct track_table *table, live_between_fn between, void *arg, struct fsnap_error *err)
{
	struct judgement judge = { .dump = dump, .process = process, .pagemap = pagemap, .table = table,
				   .space = find_space(dump, process), .between = between, .arg = arg };
	if (!judge.space)
		return start < end ? between(arg, start, end, err) : 0;
	return start < end ? keep(&judge, start, end, err) : 0;
}

/* What tracking has lost sight of counts as written. */
static int add_doubts(const struct live_space *space, uint64_t start, uint64_t end, struct track_spans *written,
		      struct fsnap_error *err)
{
	for (u_int i = 0; i < space->n_doubts; i++) {
		const image_span *doubt = &space->doubts[i];
		if (overlaps(doubt, start, end) &&
		    track_note(written, doubt->start > start ? doubt->start : start,
			       doubt->end < end ? doubt->end : end, err) < 0)
			return -1;
	}
	if (space->n_doubts)
		track_sort(written);
	return 0;
}

int live_doubts(const struct dump *dump, const struct process *process, uint64_t start, uint64_t end,
		struct track_spans *written, struct fsnap_error *err)
{
	const struct live_space *space = find_space(dump, process);
	return space ? add_doubts(space, start, end, written, err) : 0;
}

/* A range that was registered: what was written is looked at anew, what lies between is kept. */
static int judge_range(struct judgement *judge, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	judge->written.n = 0;
	int asked = track_written(judge->pagemap, start, end, track_note, &judge->written, err);
	if (asked == TRACK_LOST)
		return look(judge, start, end, err);
	if (asked < 0 || add_doubts(judge->space, start, end, &judge->written, err) < 0)
		return -1;
	/* All that was written in one question, where it need not be asked range by range. Only what is in the list, or a page
	 * that an agent has written meanwhile would be stored twice: here, and as kept. */
	bool together = judge->space->n_doubts == 0;
	if (together && judge->written.n &&
	    pages_scan_written(judge->dump, judge->process, judge->pagemap, start, end, &judge->written,
			       err) < 0)
		return -1;
	for (size_t i = 0; i < judge->written.n; i++) {
		const image_span *written = &judge->written.spans[i];
		uint64_t from = written->start > start ? written->start : start;
		if (written->end <= start)
			continue;
		if (keep(judge, start, from, err) < 0 ||
		    (!together && look(judge, from, written->end, err) < 0))
			return -1;
		start = written->end;
	}
	return keep(judge, start, end, err);
}

/* --- huge pages --------------------------------------------------------------------------- */

/* Those of a mapping that were huge before, and those from `from` on in the list, which are huge now. */
int live_huge(const struct dump *dump, struct process *process, const image_vma *vma, u_int from,
	      struct fsnap_error *err)
{
	const struct live_space *space = find_space(dump, process);
	image_mm *mm = &process->mm;
	if (!space)
		return 0;
	size_t n = mm->huge.huge_len - from, room = n + space->n_huge;
	cleanup_free image_span *all = room ? malloc(room * sizeof(*all)) : NULL;
	if (!room)
		return 0;
	if (!all)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "huge pages");
	if (n)
		memcpy(all, mm->huge.huge_val + from, n * sizeof(*all));
	mm->huge.huge_len = from;
	for (u_int i = 0; i < space->n_huge; i++)
		if (overlaps(&space->huge[i], vma->start, vma->end))
			all[n++] = space->huge[i];
	track_sort(&(struct track_spans){ all, n });
	uint64_t done = vma->start;
	for (size_t i = 0; i < n; i++) {
		uint64_t start = all[i].start > done ? all[i].start : done;
		uint64_t end = all[i].end < vma->end ? all[i].end : vma->end;
		if (start < end && pages_add_span(&mm->huge.huge_len, &mm->huge.huge_val, start, end, err) < 0)
			return -1;
		done = end > done ? end : done;
	}
	return 0;
}

/* --- a mapping ------------------------------------------------------------------------------ */

int live_pages(struct dump *dump, struct process *process, int pagemap, const image_vma *vma,
	       struct fsnap_error *err)
{
	struct track_table table = { 0 };
	struct judgement judge = { .dump = dump, .process = process, .pagemap = pagemap, .table = &table,
				   .space = find_space(dump, process) };
	const struct track *track = &judge.space->track;
	u_int huge = process->mm.huge.huge_len;
	uint64_t done = vma->start;
	int result = 0;
	for (size_t i = 0; i < track->n_spans && result == 0; i++) {
		const image_span *span = &track->spans[i];
		if (!overlaps(span, vma->start, vma->end))
			continue;
		uint64_t start = span->start > done ? span->start : done;
		uint64_t end = span->end < vma->end ? span->end : vma->end;
		result = look(&judge, done, start, err);
		if (result == 0)
			result = judge_range(&judge, start, end, err);
		done = end;
	}
	if (result == 0)
		result = look(&judge, done, vma->end, err);
	free(judge.written.spans);
	return result < 0 ? -1 : live_huge(dump, process, vma, huge, err);
}
