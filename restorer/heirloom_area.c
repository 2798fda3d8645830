/*
 * heirloom_area.c - where heirlooms are kept: from the top down, every process gets
 * the areas it inherits, which shrink to what its subtree claims of them, and
 * those it makes itself.
 */
#include <stdlib.h>
#include <string.h>

#include "restorer/heirloom_private.h"
#include "store/scope.h"

#define PASSES 16

static int no_memory(struct fsnap_error *err)
{
	return fail(err, FSNAP_E_NOMEM, ENOMEM, "areas of shared memory");
}

static int by_top(const void *a, const void *b)
{
	const struct claim *left = a, *right = b;
	if (left->top != right->top)
		return left->top < right->top ? -1 : 1;
	if (left->start != right->start)
		return left->start < right->start ? -1 : 1;
	return left->who < right->who ? -1 : left->who > right->who;
}

static int by_heir(const void *a, const void *b)
{
	const struct claim *left = *(struct claim *const *)a, *right = *(struct claim *const *)b;
	if (left->who != right->who)
		return left->who < right->who ? -1 : 1;
	return left->start < right->start ? -1 : left->start > right->start;
}

/* How many of the area's claims are those of processes before `who`. */
static size_t claims_before(const struct area *area, uint32_t who)
{
	size_t low = 0, high = area->n_claims;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (area->claims[middle]->who < who)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int attach(struct area *area, struct claim *claim, struct fsnap_error *err)
{
	struct claim **claims = reallocarray(area->claims, area->n_claims + 1, sizeof(*claims));
	if (!claims)
		return no_memory(err);
	area->claims = claims;
	claims[area->n_claims++] = claim;
	if (claim->end > area->end)
		area->end = claim->end;
	return 0;
}

static int by_address(const void *a, const void *b)
{
	const struct claim *left = *(struct claim *const *)a, *right = *(struct claim *const *)b;
	return left->start < right->start ? -1 : left->start > right->start;
}

/* What claims[0..n) cover of the parent's area. What lies between is not passed on, and may be of use for
 * others. */
static int inherit_area(struct relative *relative, const struct area *theirs, struct claim **claims, size_t n,
			struct fsnap_error *err)
{
	cleanup_free struct claim **sorted = calloc(n + 1, sizeof(*sorted));
	if (!sorted)
		return no_memory(err);
	memcpy(sorted, claims, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), by_address);
	for (size_t i = 0; i < n; i++) {
		struct area *area = i ? &relative->areas[relative->n_areas - 1] : NULL;
		if (!area || sorted[i]->start > area->end) {
			area = &relative->areas[relative->n_areas++];
			*area = (struct area){ .start = sorted[i]->start, .end = sorted[i]->end,
					       .like = theirs->like, .origin = theirs->origin };
		}
		if (attach(area, sorted[i], err) < 0)
			return -1;
	}
	return 0;
}

/* The parent's areas as its child has them. Room is left for as many more areas. */
static int inherit(struct heirlooms *heirlooms, uint32_t who, size_t more, struct fsnap_error *err)
{
	struct relative *relative = &heirlooms->relatives[who];
	const struct relative *parent =
		relative->parent != NOBODY ? &heirlooms->relatives[relative->parent] : NULL;
	size_t n = parent ? parent->n_areas : 0;
	for (size_t i = 0; i < n; i++)
		more += claims_before(&parent->areas[i], relative->end) - claims_before(&parent->areas[i], who);
	relative->areas = calloc(more + 1, sizeof(*relative->areas));
	if (!relative->areas)
		return no_memory(err);
	for (size_t i = 0; i < n; i++) {
		const struct area *theirs = &parent->areas[i];
		size_t first = claims_before(theirs, who), end = claims_before(theirs, relative->end);
		if (inherit_area(relative, theirs, theirs->claims + first, end - first, err) < 0)
			return -1;
	}
	return 0;
}

/* The first of areas[0..n), which are sorted, that ends behind `address`. */
static struct area *area_behind(struct area *areas, size_t n, uint64_t address)
{
	size_t low = 0, high = n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (areas[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < n ? &areas[low] : NULL;
}

enum placed { PLACED, GIVEN_UP, RAISED, FAILED };

/* A claim on what this process lays: inside an area it has inherited, in one it makes for those before, or in a
 * new one. One that reaches out of an inherited area is raised to who makes that: it was one mapping once. What
 * fits nowhere is given up: the mapping is built like any other. Claims come by address. */
static enum placed place_claim(struct relative *relative, uint32_t who, size_t inherited, struct claim *claim,
			       struct fsnap_error *err)
{
	struct area *area = area_behind(relative->areas, inherited, claim->start);
	if (area && area->start < claim->end) {
		if (!heirloom_alike(area->like, claim->like))
			return GIVEN_UP;
		if (claim->start < area->start || claim->end > area->end) {
			claim->top = area->origin;
			return RAISED;
		}
		return attach(area, claim, err) < 0 ? FAILED : PLACED;
	}
	area = relative->n_areas > inherited ? &relative->areas[relative->n_areas - 1] : NULL;
	if (area && claim->start < area->end) {
		if (!heirloom_alike(area->like, claim->like))
			return GIVEN_UP;
	} else {
		area = &relative->areas[relative->n_areas++];
		*area = (struct area){ .start = claim->start, .end = claim->end, .like = claim->like,
				       .origin = who };
	}
	return attach(area, claim, err) < 0 ? FAILED : PLACED;
}

static int by_start(const void *a, const void *b)
{
	const struct area *left = a, *right = b;
	return left->start < right->start ? -1 : left->start > right->start;
}

static void forget_areas(struct heirlooms *heirlooms)
{
	for (uint32_t who = 0; who < heirlooms->n; who++) {
		struct relative *relative = &heirlooms->relatives[who];
		for (size_t i = 0; i < relative->n_areas; i++)
			free(relative->areas[i].claims);
		free(relative->areas);
		relative->areas = NULL;
		relative->n_areas = 0;
	}
}

/* Once through the family; RAISED if it has to be done again. */
static enum placed place_all(struct heirlooms *heirlooms, struct fsnap_error *err)
{
	enum placed result = PLACED;
	size_t next = 0;
	for (uint32_t who = 0; who < heirlooms->n; who++) {
		struct relative *relative = &heirlooms->relatives[who];
		size_t first = next;
		while (next < heirlooms->n_claims && heirlooms->claims[next].top == who)
			next++;
		if (inherit(heirlooms, who, next - first, err) < 0)
			return FAILED;
		size_t inherited = relative->n_areas;
		for (size_t i = first; i < next; i++) {
			enum placed placed = place_claim(relative, who, inherited, &heirlooms->claims[i], err);
			if (placed == FAILED)
				return FAILED;
			if (placed == RAISED)
				result = RAISED;
		}
		qsort(relative->areas, relative->n_areas, sizeof(*relative->areas), by_start);
		for (size_t i = 0; i < relative->n_areas; i++)
			qsort(relative->areas[i].claims, relative->areas[i].n_claims, sizeof(struct claim *),
			      by_heir);
	}
	return result;
}

/* Every pass raises at least one claim, and none can rise for ever; but few passes do for any real tree, and
 * the rest is only given up. */
int heirlooms_place(struct heirlooms *heirlooms, struct fsnap_error *err)
{
	for (int passes = 0; passes < PASSES; passes++) {
		forget_areas(heirlooms);
		qsort(heirlooms->claims, heirlooms->n_claims, sizeof(*heirlooms->claims), by_top);
		enum placed result = place_all(heirlooms, err);
		if (result != RAISED)
			return result == FAILED ? -1 : 0;
	}
	return 0;
}
