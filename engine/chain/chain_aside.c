/*
 * chain_aside.c - pages of their own in mappings of files, and in small ones: relocated data of libraries, mostly. Of a
 * process that a watch saves they are watched like the rest, but asked for in one go with what lies around them.
 *
 * Of files' pages the mark alone does not tell. One that was given back leaves its mark to what is there next, and the first
 * write to that takes two faults, one that brings the page and one that takes the mark away: between them it looks like the
 * page of the base. So they are the base's only while no page of the process was taken away since (bpf/vmas.h): else
 * they are stored, and compared with it (repeats.c), as where nothing is watched.
 */
#include "engine/chain/chain.h"
#include "engine/pagemap.h"
#include "engine/ranges.h"

bool chain_is_aside(const struct process *process, const image_vma *vma)
{
	return process->chained && track_is_aside(&process->chained->member->track, vma->start, vma->end);
}

uint64_t chain_aside_asks(const struct process *process)
{
	return process->chained && process->chained->member->track.n_aside ? IS_WATCHED | IS_WRITTEN : 0;
}

static void note(struct chained *chained, const struct scan_region *region)
{
	if (chained->aside.from == chained->aside.to)
		chained->aside.from = region->start;
	chained->aside.to = region->end;
}

/* What the base has of [page, end); the rest is new. */
static int divide(struct dump *dump, struct process *process, int pagemap, uint64_t page, uint64_t end, struct fsnap_error *err)
{
	struct chained *chained = process->chained;
	size_t n;
	const struct page_run *runs = image_runs(dump->parent, chained->member->space, &n);
	while (page < end) {
		while (chained->aside.at < n && runs[chained->aside.at].page + runs[chained->aside.at].npages <= page)
			chained->aside.at++;
		const struct page_run *run = chained->aside.at < n ? &runs[chained->aside.at] : NULL;
		bool has = run && run->page <= page;
		uint64_t limit = has ? run->page + run->npages : run ? run->page : end, to = limit < end ? limit : end;
		if ((has ? chain_refer(dump, process, run, page, to, err) :
			   pages_store(dump, process, pagemap, page * STORE_PAGE, to * STORE_PAGE, err)) < 0)
			return -1;
		page = to;
	}
	return 0;
}

int chain_aside(struct dump *dump, struct process *process, int pagemap, const struct scan_region *region,
		struct fsnap_error *err)
{
	struct chained *chained = process->chained;
	if (!chained || !(region->categories & IS_WATCHED))
		return 1;
	if (region->categories & IS_WRITTEN)
		note(chained, region);
	if (region->categories & IS_WRITTEN || !chained->based || !chained->untouched)
		return 1;
	return divide(dump, process, pagemap, region->start / STORE_PAGE, region->end / STORE_PAGE, err);
}

int chain_aside_take(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	struct chained *chained = process->chained;
	if (!chained || chained->aside.from == chained->aside.to)
		return 0;
	chain_begin(dump);
	uint64_t from = chained->aside.from, to = chained->aside.to;
	chained->aside.from = chained->aside.to = 0;
	return track_take_aside(&chained->member->track, from, to, err) < 0 ? -1 : 0;
}
