#include "restorer/heirloom.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "restorer/heirloom_private.h"
#include "store/scope.h"

static int no_memory(struct fsnap_error *err)
{
	return fail(err, FSNAP_E_NOMEM, ENOMEM, "plan of shared memory");
}

/* --- the family ------------------------------------------------------------------------ */

/* Numbers in preorder: those it bears right behind a process, in the order of the list. */
static int number(struct heirlooms *heirlooms, const struct heir *heirs, struct fsnap_error *err)
{
	uint32_t n = heirlooms->n, next = 0;
	cleanup_free uint32_t *first = malloc((n + 1) * sizeof(*first)), *younger = calloc(n + 1, sizeof(*younger));
	heirlooms->number = calloc(n + 1, sizeof(*heirlooms->number));
	heirlooms->relatives = calloc(n + 1, sizeof(*heirlooms->relatives));
	if (!first || !younger || !heirlooms->number || !heirlooms->relatives)
		return no_memory(err);
	memset(first, 0xff, (n + 1) * sizeof(*first)); /* NOBODY; the last is the list of those nobody here bears */
	for (uint32_t i = n; i-- > 0;) {
		uint32_t *list = &first[heirs[i].bearer < 0 ? n : (uint32_t)heirs[i].bearer];
		younger[i] = *list;
		*list = i;
	}
	for (uint32_t at = first[n]; at != NOBODY;) {
		uint32_t bearer = heirs[at].bearer < 0 ? NOBODY : (uint32_t)heirs[at].bearer;
		heirlooms->number[at] = next;
		heirlooms->relatives[next++] = (struct relative){
			.mm = heirs[at].mm, .task = heirs[at].task,
			.parent = bearer == NOBODY ? NOBODY : heirlooms->number[bearer]
		};
		if (first[at] != NOBODY) {
			at = first[at];
			continue;
		}
		for (; at != NOBODY && younger[at] == NOBODY; at = heirs[at].bearer < 0 ? NOBODY :
											 (uint32_t)heirs[at].bearer)
			heirlooms->relatives[heirlooms->number[at]].end = next;
		if (at != NOBODY) {
			heirlooms->relatives[heirlooms->number[at]].end = next;
			at = younger[at];
		}
	}
	return 0;
}

static bool may_share(const struct heir *heirs, size_t n)
{
	size_t spaces = 0;
	for (size_t i = 0; i < n; i++)
		spaces += heirs[i].mm != NULL;
	return spaces > 1 && n < NOBODY;
}

int heirlooms_find(struct heirlooms **out, const struct image *image, const struct heir *heirs, size_t n,
		   struct fsnap_error *err)
{
	*out = NULL;
	if (!may_share(heirs, n))
		return 0;
	struct heirlooms *heirlooms = calloc(1, sizeof(*heirlooms));
	if (!heirlooms)
		return no_memory(err);
	heirlooms->image = image;
	heirlooms->n = (uint32_t)n;
	int result = number(heirlooms, heirs, err);
	if (result == 0)
		result = heirlooms_trace(heirlooms, err);
	if (result == 0 && heirlooms->n_legacies)
		result = heirlooms_place(heirlooms, err);
	if (result == 0 && heirlooms->n_legacies)
		*out = heirlooms;
	else
		heirlooms_free(heirlooms);
	return result;
}

void heirloom_drop(struct laid *laid)
{
	if (laid && --laid->users == 0)
		free(laid);
}

void heirlooms_free(struct heirlooms *heirlooms)
{
	if (!heirlooms)
		return;
	for (uint32_t i = 0; heirlooms->relatives && i < heirlooms->n; i++) {
		struct relative *relative = &heirlooms->relatives[i];
		for (size_t j = 0; j < relative->n_areas; j++)
			free(relative->areas[j].claims);
		free(relative->areas);
		free(relative->tops);
		free(relative->kept);
		free(relative->left);
		heirloom_drop(relative->laid);
	}
	free(heirlooms->relatives);
	free(heirlooms->number);
	free(heirlooms->legacies);
	free(heirlooms->claims);
	free(heirlooms);
}

/* --- lists of pages ---------------------------------------------------------------------- */

int laid_set(struct relative *relative, struct page_list *list, struct fsnap_error *err)
{
	struct laid *laid = malloc(sizeof(*laid) + list->n * sizeof(list->runs[0]));
	bool good = laid && !list->exhausted;
	if (good) {
		laid->users = 1;
		laid->n = list->n;
		if (list->n)
			memcpy(laid->runs, list->runs, list->n * sizeof(list->runs[0]));
		heirloom_drop(relative->laid);
		relative->laid = laid;
	} else {
		free(laid);
	}
	free(list->runs);
	return good ? 0 : no_memory(err);
}

/* --- enter --------------------------------------------------------------------------------------- */

static void make_areas(const struct relative *relative, uint32_t who, struct plans *plans,
		       const struct memory_source *source)
{
	for (size_t i = 0; i < relative->n_areas; i++) {
		const struct area *area = &relative->areas[i];
		if (area->origin != who || area->present)
			continue;
		image_vma vma = *area->like;
		vma.start = area->start;
		vma.end = area->end;
		vma.offset = vma.kind == VMA_FILE ? area->like->offset - area->like->start + area->start : 0;
		vma.prot = PROT_READ | PROT_WRITE;
		memory_map(plans, relative->task, source, &vma);
	}
}

int heirlooms_enter(struct heirlooms *heirlooms, struct plans *plans, const struct memory_source *source,
		    size_t process, struct fsnap_error *err)
{
	if (!heirlooms)
		return 0;
	uint32_t who = heirlooms->number[process];
	struct relative *relative = &heirlooms->relatives[who];
	if (!relative->mm && relative->end == who + 1) /* it ends, and bears nobody */
		return 0;
	size_t n_have = 0, n_keep;
	cleanup_free struct memory_range *keep = ranges_of(relative, who, &n_keep);
	cleanup_free struct memory_range *have =
		relative->parent != NOBODY ? ranges_of(&heirlooms->relatives[relative->parent], NOBODY, &n_have) : NULL;
	struct clip clip = { .ranges = keep, .n = n_keep };
	struct giving giving = { .plans = plans, .task = relative->task, .ours = ours_of(source) };
	if (!keep || (relative->parent != NOBODY && !have))
		return no_memory(err);
	plan_note(plans, "inherited, and for nobody here");
	give_back(&giving, have, n_have, keep, n_keep);
	plan_note(plans, "room for pages to be inherited");
	make_areas(relative, who, plans, source);
	clip_laid(&clip, relative->laid);
	return laid_set(relative, &clip.list, err);
}

/* --- lay, born ------------------------------------------------------------------------- */

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* Legacies of one turn, as runs; where two want the same address, the first has it. */
int list_turn(const struct heirlooms *heirlooms, uint32_t top, uint32_t turn, struct page_list *list)
{
	const struct relative *relative = &heirlooms->relatives[top];
	size_t low = 0, high = heirlooms->n_legacies;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct legacy *legacy = &heirlooms->legacies[middle];
		if (legacy->top < top || (legacy->top == top && legacy->turn < turn))
			low = middle + 1;
		else
			high = middle;
	}
	uint64_t done = 0;
	for (size_t area = 0; low < heirlooms->n_legacies; low++) {
		const struct legacy *legacy = &heirlooms->legacies[low];
		if (legacy->top != top || legacy->turn != turn)
			break;
		while (area < relative->n_areas && relative->areas[area].end <= legacy->page * STORE_PAGE)
			area++;
		for (size_t i = area; i < relative->n_areas; i++) {
			const struct area *at = &relative->areas[i];
			if (at->start >= legacy->end * STORE_PAGE)
				break;
			/* Given up by all who wanted it? Another sort of area is in the way. */
			if (!heirloom_alike(at->like, legacy->like))
				continue;
			uint64_t page = larger(larger(legacy->page, at->start / STORE_PAGE), done);
			uint64_t end = legacy->end < at->end / STORE_PAGE ? legacy->end : at->end / STORE_PAGE;
			list_add(list, page, end, page + legacy->delta);
			done = larger(done, end);
		}
	}
	return list->exhausted ? -1 : 0;
}

/* The newer of the two. */
static void lay_over(void *list, uint64_t page, uint64_t end, uint64_t old, uint64_t new)
{
	if (new != UINT64_MAX || old != UINT64_MAX)
		list_add(list, page, end, new != UINT64_MAX ? new : old);
}

/* What is new about it. */
static void lay_new(void *list, uint64_t page, uint64_t end, uint64_t old, uint64_t new)
{
	if (new != UINT64_MAX && new != old)
		list_add(list, page, end, new);
}

static int lay(struct plans *plans, const struct memory_source *source, struct relative *relative,
	       const struct page_list *turn, struct fsnap_error *err)
{
	struct page_list new = { 0 }, all = { 0 };
	compare(relative->laid->runs, relative->laid->n, turn->runs, turn->n, lay_new, &new);
	compare(relative->laid->runs, relative->laid->n, turn->runs, turn->n, lay_over, &all);
	plan_note(plans, "pages to be inherited");
	int result = new.exhausted ? no_memory(err) :
				     memory_fill(plans, relative->task, source, new.runs, new.n, err);
	free(new.runs);
	return laid_set(relative, &all, err) < 0 ? -1 : result;
}

int heirlooms_lay(struct heirlooms *heirlooms, struct plans *plans, const struct memory_source *source,
		  size_t process, size_t child, struct fsnap_error *err)
{
	struct page_list turn = { 0 };
	if (!heirlooms || !heirlooms->relatives[heirlooms->number[process]].laid)
		return 0;
	uint32_t who = heirlooms->number[process];
	int result = list_turn(heirlooms, who, heirlooms->number[child], &turn) < 0 ? no_memory(err) : 0;
	if (result == 0 && turn.n)
		result = lay(plans, source, &heirlooms->relatives[who], &turn, err);
	free(turn.runs);
	return result;
}

void heirlooms_born(struct heirlooms *heirlooms, size_t process, size_t child)
{
	struct laid *laid = heirlooms ? heirlooms->relatives[heirlooms->number[process]].laid : NULL;
	if (!laid)
		return;
	laid->users++;
	heirlooms->relatives[heirlooms->number[child]].laid = laid;
}
