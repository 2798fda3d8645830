/*
 * heirloom_held.c - areas that the restoring process holds itself, so that what is in them is one for all copies of a
 * tree.
 */
#include <stdlib.h>
#include <string.h>

#include "restorer/heirloom_private.h"
#include "store/scope.h"

static int no_memory(struct fsnap_error *err)
{
	return fail(err, FSNAP_E_NOMEM, ENOMEM, "shared memory of a template");
}

static bool is_made(const struct area *area, uint32_t who)
{
	return area->origin == who && area->like->kind == VMA_ANON;
}

/* What lay there before stays. */
static void lay_under(void *list, uint64_t page, uint64_t end, uint64_t old, uint64_t new)
{
	if (new != UINT64_MAX || old != UINT64_MAX)
		list_add(list, page, end, old != UINT64_MAX ? old : new);
}

static void add_under(struct page_list *all, const struct page_run *runs, size_t n)
{
	struct page_list both = { .exhausted = all->exhausted };
	compare(all->runs, all->n, runs, n, lay_under, &both);
	free(all->runs);
	*all = both;
}

/* What is shared; and, where that leaves room, what one of them has alone: the others drop it when they settle. */
static int list_all(const struct heirlooms *heirlooms, uint32_t who, struct page_list *all)
{
	for (size_t i = 0; i < heirlooms->n_legacies; i++) {
		const struct legacy *legacy = &heirlooms->legacies[i];
		struct page_list turn = { 0 };
		if (legacy->top != who || (i && legacy[-1].top == who && legacy[-1].turn == legacy->turn))
			continue;
		list_turn(heirlooms, who, legacy->turn, &turn);
		add_under(all, turn.runs, turn.n);
		all->exhausted |= turn.exhausted;
		free(turn.runs);
	}
	for (uint32_t i = who; i < heirlooms->relatives[who].end; i++) {
		size_t n;
		const image_mm *mm = heirlooms->relatives[i].mm;
		const struct page_run *runs = mm ? image_runs(heirlooms->image, mm->id, &n) : NULL;
		if (runs)
			add_under(all, runs, n);
	}
	return all->exhausted ? -1 : 0;
}

int heirlooms_made(const struct heirlooms *heirlooms, size_t process, struct memory_range **areas, size_t *n_areas,
		   struct page_run **laid, size_t *n_laid, struct fsnap_error *err)
{
	uint32_t who = heirlooms->number[process];
	const struct relative *relative = &heirlooms->relatives[who];
	struct page_list all = { 0 };
	*n_areas = 0;
	*areas = calloc(relative->n_areas + 1, sizeof(**areas));
	if (!*areas || list_all(heirlooms, who, &all) < 0) {
		free(all.runs);
		return no_memory(err);
	}
	for (size_t i = 0; i < relative->n_areas; i++)
		if (is_made(&relative->areas[i], who))
			(*areas)[(*n_areas)++] = (struct memory_range){ relative->areas[i].start, relative->areas[i].end };
	struct clip clip = { .ranges = *areas, .n = *n_areas };
	clip_runs(&clip, all.runs, all.n);
	free(all.runs);
	*laid = clip.list.runs;
	*n_laid = clip.list.n;
	return clip.list.exhausted ? no_memory(err) : 0;
}

static struct area *area_at(struct relative *relative, uint32_t who, const struct memory_range *range)
{
	for (size_t i = 0; i < relative->n_areas; i++) {
		struct area *area = &relative->areas[i];
		if (is_made(area, who) && area->start == range->start && area->end == range->end)
			return area;
	}
	return NULL;
}

bool heirlooms_present(struct heirlooms *heirlooms, size_t process, const struct memory_range *areas, size_t n_areas,
		       const struct page_run *laid, size_t n_laid)
{
	uint32_t who = heirlooms->number[process];
	struct relative *relative = &heirlooms->relatives[who];
	struct page_list list = { .runs = malloc((n_laid + 1) * sizeof(*laid)), .n = n_laid };
	for (size_t i = 0; i < n_areas; i++)
		if (!area_at(relative, who, &areas[i])) {
			free(list.runs);
			return false;
		}
	list.exhausted = !list.runs;
	if (list.runs && n_laid)
		memcpy(list.runs, laid, n_laid * sizeof(*laid));
	if (laid_set(relative, &list, NULL) < 0)
		return false;
	for (size_t i = 0; i < n_areas; i++)
		area_at(relative, who, &areas[i])->present = true;
	return true;
}

bool heirlooms_claims(const struct heirlooms *heirlooms, size_t process, u_int vma)
{
	const struct relative *relative = heirlooms ? &heirlooms->relatives[heirlooms->number[process]] : NULL;
	return relative && relative->tops && relative->tops[vma] != NOBODY;
}
