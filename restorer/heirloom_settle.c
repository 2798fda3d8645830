/*
 * heirloom_settle.c - a process gives up what it has only passed on, and keeps what is its own.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "restorer/heirloom_private.h"
#include "store/scope.h"

/* --- giving back ------------------------------------------------------------------------------- */

static void give_pending(struct giving *giving)
{
	if (giving->pending.start < giving->pending.end)
		plan_call(giving->plans, giving->task, SYS_munmap, IMM(giving->pending.start),
			  IMM(giving->pending.end - giving->pending.start));
	giving->pending = (struct memory_range){ 0, 0 };
}

/* Between two pieces with nothing kept between them there is nothing at all, but perhaps what is ours. */
static void give(struct giving *giving, uint64_t start, uint64_t end)
{
	struct memory_range *pending = &giving->pending;
	if (start >= end)
		return;
	if (pending->start < pending->end &&
	    (giving->ours.start >= end || giving->ours.end <= pending->end)) {
		pending->end = end;
		return;
	}
	give_pending(giving);
	*pending = (struct memory_range){ start, end };
}

void give_back(struct giving *giving, const struct memory_range *have, size_t n_have,
	       const struct memory_range *keep, size_t n_keep)
{
	size_t next = 0;
	for (size_t i = 0; i < n_have; i++) {
		uint64_t from = have[i].start;
		for (; next < n_keep && keep[next].start < have[i].end; next++) {
			give(giving, from, keep[next].start);
			give_pending(giving);
			from = keep[next].end;
		}
		give(giving, from, have[i].end);
	}
	give_pending(giving);
}

struct memory_range *ranges_of(const struct relative *relative, uint32_t but, size_t *n)
{
	struct memory_range *ranges = calloc(relative->n_areas + 1, sizeof(*ranges));
	*n = 0;
	for (size_t i = 0; ranges && i < relative->n_areas; i++)
		if (relative->areas[i].origin != but || relative->areas[i].present)
			ranges[(*n)++] = (struct memory_range){ relative->areas[i].start,
								relative->areas[i].end };
	return ranges;
}

struct memory_range ours_of(const struct memory_source *source)
{
	return (struct memory_range){ source->control.start, source->parked.end };
}

/* --- pages it has already --------------------------------------------------------------------- */

static void clip_add(struct clip *clip, uint64_t page, uint64_t end, uint64_t at)
{
	while (clip->next < clip->n && clip->ranges[clip->next].end / STORE_PAGE <= page)
		clip->next++;
	for (size_t i = clip->next; i < clip->n && clip->ranges[i].start / STORE_PAGE < end; i++) {
		uint64_t from = clip->ranges[i].start / STORE_PAGE, to = clip->ranges[i].end / STORE_PAGE;
		from = from > page ? from : page;
		list_add(&clip->list, from, to < end ? to : end, at + (from - page));
	}
}

void clip_runs(struct clip *clip, const struct page_run *runs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		clip_add(clip, runs[i].page, runs[i].page + runs[i].npages, runs[i].at);
}

void clip_laid(struct clip *clip, const struct laid *laid)
{
	if (laid)
		clip_runs(clip, laid->runs, laid->n);
}

struct settling {
	struct plans *plans;
	uint32_t task;
	struct page_list left;
};

static void settle_pages(void *arg, uint64_t page, uint64_t end, uint64_t own, uint64_t laid)
{
	struct settling *settling = arg;
	if (own == UINT64_MAX && laid != UINT64_MAX)
		plan_call(settling->plans, settling->task, SYS_madvise, IMM(page * STORE_PAGE),
			  IMM((end - page) * STORE_PAGE), IMM(MADV_DONTNEED));
	if (own != UINT64_MAX && own != laid)
		list_add(&settling->left, page, end, own);
}

/* The mappings of the process that are there, by address. */
static int list_kept(struct relative *relative, uint32_t who, struct memory_range **ranges, size_t *n,
		     struct fsnap_error *err)
{
	u_int vmas = relative->mm->vmas.vmas_len;
	*n = 0;
	*ranges = calloc(vmas + 1, sizeof(**ranges));
	relative->kept = calloc(vmas + 1, sizeof(*relative->kept));
	if (!*ranges || !relative->kept)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plan of shared memory");
	for (size_t i = 0; i < relative->n_areas; i++)
		for (size_t j = 0; j < relative->areas[i].n_claims; j++) {
			const struct claim *claim = relative->areas[i].claims[j];
			if (claim->who == who)
				relative->kept[claim->vma] = true;
		}
	for (u_int i = 0; i < vmas; i++)
		if (relative->kept[i])
			(*ranges)[(*n)++] = (struct memory_range){ relative->mm->vmas.vmas_val[i].start,
								   relative->mm->vmas.vmas_val[i].end };
	return 0;
}

static int settle(struct heirlooms *heirlooms, struct plans *plans, const struct memory_source *source,
		  uint32_t who, struct fsnap_error *err)
{
	struct relative *relative = &heirlooms->relatives[who];
	struct settling settling = { .plans = plans, .task = relative->task };
	size_t n_have, n_keep, n;
	const struct page_run *runs = image_runs(heirlooms->image, relative->mm->id, &n);
	cleanup_free struct memory_range *have = ranges_of(relative, NOBODY, &n_have), *keep = NULL;
	if (!have || list_kept(relative, who, &keep, &n_keep, err) < 0)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plan of shared memory");
	struct giving giving = { .plans = plans, .task = relative->task, .ours = ours_of(source) };
	plan_note(plans, "passed on, and not its own");
	give_back(&giving, have, n_have, keep, n_keep);
	struct clip clip = { .ranges = keep, .n = n_keep };
	clip_laid(&clip, relative->laid);
	plan_note(plans, "pages it does not have");
	compare(runs, n, clip.list.runs, clip.list.n, settle_pages, &settling);
	free(clip.list.runs);
	heirloom_drop(relative->laid);
	relative->laid = NULL;
	relative->left = settling.left.runs;
	relative->n_left = settling.left.n;
	if (clip.list.exhausted || settling.left.exhausted)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plan of shared memory");
	return 0;
}

int heirlooms_settle(struct heirlooms *heirlooms, struct plans *plans, const struct memory_source *source,
		     size_t process, struct memory_part *part, struct fsnap_error *err)
{
	*part = (struct memory_part){ 0 };
	struct relative *relative = heirlooms ? &heirlooms->relatives[heirlooms->number[process]] : NULL;
	if (!relative || !relative->mm || !relative->n_areas)
		return 0;
	if (settle(heirlooms, plans, source, heirlooms->number[process], err) < 0)
		return -1;
	*part = (struct memory_part){ .inherited = relative->kept, .runs = relative->left, .n_runs = relative->n_left };
	return 0;
}
