/*
 * heirloom_area.c - where heirlooms are kept: from the top down, every process gets
 * the areas it inherits, which shrink to what its subtree claims of them, and
 * those it makes itself.
 */
#include <stdlib.h>
#include <string.h>

#include "restorer/heirloom_private.h"
#include "store/scope.h"

static int no_memory(struct fsnap_error *err)
{
	return fail(err, FSNAP_E_NOMEM, ENOMEM, "areas of shared memory");
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

/* The parent's areas as its child has them. Room is left for as many more areas. */
static int inherit(struct heirlooms *heirlooms, uint32_t who, size_t more, struct fsnap_error *err)
{
	struct relative *relative = &heirlooms->relatives[who];
	const struct relative *parent =
		relative->parent != NOBODY ? &heirlooms->relatives[relative->parent] : NULL;
	relative->areas = calloc((parent ? parent->n_areas : 0) + more + 1, sizeof(*relative->areas));
	if (!relative->areas)
		return no_memory(err);
	for (size_t i = 0; parent && i < parent->n_areas; i++) {
		const struct area *theirs = &parent->areas[i];
		size_t first = claims_before(theirs, who), end = claims_before(theirs, relative->end);
		if (first == end)
			continue;
		struct area *area = &relative->areas[relative->n_areas++];
		*area = (struct area){ .start = UINT64_MAX, .like = theirs->like, .n_claims = end - first,
				       .claims = calloc(end - first, sizeof(struct claim *)) };
		if (!area->claims)
			return no_memory(err);
		for (size_t j = 0; j < area->n_claims; j++) {
			struct claim *claim = area->claims[j] = theirs->claims[first + j];
			area->start = claim->start < area->start ? claim->start : area->start;
			area->end = claim->end > area->end ? claim->end : area->end;
		}
	}
	return 0;
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

/* A claim on what this process lays: inside an area it has inherited, in one it makes for those before, or in a
 * new one. One that fits nowhere is given up: its mapping is built like any other. Claims come by address. */
static int place_claim(struct relative *relative, size_t inherited, struct claim *claim,
		       struct fsnap_error *err)
{
	struct area *area = area_behind(relative->areas, inherited, claim->start);
	if (area && area->start < claim->end) {
		bool inside = area->start <= claim->start && claim->end <= area->end;
		return inside && heirloom_alike(area->like, claim->like) ? attach(area, claim, err) : 0;
	}
	area = relative->n_areas > inherited ? &relative->areas[relative->n_areas - 1] : NULL;
	if (area && claim->start < area->end)
		return heirloom_alike(area->like, claim->like) ? attach(area, claim, err) : 0;
	area = &relative->areas[relative->n_areas++];
	*area = (struct area){ .start = claim->start, .end = claim->end, .like = claim->like, .fresh = true };
	return attach(area, claim, err);
}

static int by_address(const void *a, const void *b)
{
	const struct area *left = a, *right = b;
	return left->start < right->start ? -1 : left->start > right->start;
}

int heirlooms_place(struct heirlooms *heirlooms, struct fsnap_error *err)
{
	size_t next = 0;
	for (uint32_t who = 0; who < heirlooms->n; who++) {
		struct relative *relative = &heirlooms->relatives[who];
		size_t first = next;
		while (next < heirlooms->n_claims && heirlooms->claims[next].top == who)
			next++;
		if (inherit(heirlooms, who, next - first, err) < 0)
			return -1;
		size_t inherited = relative->n_areas;
		for (size_t i = first; i < next; i++)
			if (place_claim(relative, inherited, &heirlooms->claims[i], err) < 0)
				return -1;
		qsort(relative->areas, relative->n_areas, sizeof(*relative->areas), by_address);
		for (size_t i = 0; i < relative->n_areas; i++)
			qsort(relative->areas[i].claims, relative->areas[i].n_claims, sizeof(struct claim *),
			      by_heir);
	}
	return 0;
}
