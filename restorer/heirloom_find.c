/*
 * heirloom_find.c - which frames, and which mappings, take part in sharing.
 *
 * Runs of the image that hold one frame at one address differ in their space only:
 * `at - page`, their delta, is the same. So all runs are sorted by delta and page,
 * and where two or more lie over each other their pages are shared.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "restorer/heirloom_private.h"
#include "store/scope.h"

struct edge { /* where a run begins or ends */
	uint64_t delta, page;
	uint32_t who;
	bool begins;
};

struct member { /* of those who share some pages */
	uint32_t who, vma;
};

struct sweep {
	struct heirlooms *heirlooms;
	uint64_t *twice; /* bit per image page: more than one run has it */
	struct edge *edges;
	size_t n_edges;
	uint64_t *present; /* bit per process */
	struct member *members;
};

/* --- runs that share anything -------------------------------------------------------- */

static void mark_run(const struct page_run *run, uint64_t *once, uint64_t *twice)
{
	for (uint64_t at = run->at; at < run->at + run->npages; at++) {
		uint64_t bit = 1ull << (at % 64);
		twice[at / 64] |= once[at / 64] & bit;
		once[at / 64] |= bit;
	}
}

static bool is_marked(const struct page_run *run, const uint64_t *twice)
{
	for (uint64_t at = run->at; at < run->at + run->npages; at++)
		if (twice[at / 64] & 1ull << (at % 64))
			return true;
	return false;
}

static const struct page_run *runs_of(const struct heirlooms *heirlooms, uint32_t who, size_t *n)
{
	const image_mm *mm = heirlooms->relatives[who].mm;
	*n = 0;
	return mm ? image_runs(heirlooms->image, mm->id, n) : NULL;
}

static int mark_all(struct sweep *sweep, struct fsnap_error *err)
{
	size_t n, words = image_page_space(sweep->heirlooms->image) / 64 + 1;
	cleanup_free uint64_t *once = calloc(words, sizeof(*once));
	sweep->twice = calloc(words, sizeof(*sweep->twice));
	if (!once || !sweep->twice)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "looking for shared pages");
	for (uint32_t who = 0; who < sweep->heirlooms->n; who++) {
		const struct page_run *runs = runs_of(sweep->heirlooms, who, &n);
		for (size_t i = 0; i < n; i++)
			mark_run(&runs[i], once, sweep->twice);
	}
	return 0;
}

static int by_delta(const void *a, const void *b)
{
	const struct edge *left = a, *right = b;
	if (left->delta != right->delta)
		return left->delta < right->delta ? -1 : 1;
	return left->page < right->page ? -1 : left->page > right->page;
}

static int collect_edges(struct sweep *sweep, struct fsnap_error *err)
{
	size_t room = 0, n;
	for (uint32_t who = 0; who < sweep->heirlooms->n; who++) {
		const struct page_run *runs = runs_of(sweep->heirlooms, who, &n);
		for (size_t i = 0; i < n; i++) {
			if (!is_marked(&runs[i], sweep->twice))
				continue;
			if (sweep->n_edges == room) {
				room = room ? 2 * room : 256;
				struct edge *edges = reallocarray(sweep->edges, room, sizeof(*edges));
				if (!edges)
					return fail(err, FSNAP_E_NOMEM, ENOMEM, "looking for shared pages");
				sweep->edges = edges;
			}
			uint64_t delta = runs[i].at - runs[i].page;
			struct edge *edge = &sweep->edges[sweep->n_edges];
			edge[0] = (struct edge){ delta, runs[i].page, who, true };
			edge[1] = (struct edge){ delta, runs[i].page + runs[i].npages, who, false };
			sweep->n_edges += 2;
		}
	}
	if (sweep->n_edges)
		qsort(sweep->edges, sweep->n_edges, sizeof(*sweep->edges), by_delta);
	return 0;
}

/* --- who shares, through which mappings --------------------------------------------------- */

/* Private memory that mmap(2) makes and fork(2) passes on page by page. */
static bool heritable(const image_vma *vma)
{
	return (vma->kind == VMA_ANON || vma->kind == VMA_FILE) && (vma->flags & MAP_TYPE) == MAP_PRIVATE &&
	       !(vma->flags & ~(unsigned)(MAP_TYPE | MAP_GROWSDOWN | MAP_NORESERVE));
}

bool heirloom_alike(const image_vma *a, const image_vma *b)
{
	return a->kind == b->kind && a->flags == b->flags && a->object == b->object &&
	       (a->kind == VMA_ANON || a->offset - a->start == b->offset - b->start);
}

/* Number of the mapping at `address`, or NOBODY. */
static uint32_t vma_at(const image_mm *mm, uint64_t address)
{
	u_int low = 0, high = mm->vmas.vmas_len;
	while (low < high) {
		u_int middle = low + (high - low) / 2;
		if (mm->vmas.vmas_val[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < mm->vmas.vmas_len && mm->vmas.vmas_val[low].start <= address ? low : NOBODY;
}

static const image_vma *vma_of(const struct heirlooms *heirlooms, const struct member *member)
{
	return &heirlooms->relatives[member->who].mm->vmas.vmas_val[member->vma];
}

/* Those present that have alike mappings at `page`; *end is moved to where one of the mappings ends. */
static size_t find_members(struct sweep *sweep, uint64_t page, uint64_t *end)
{
	const struct heirlooms *heirlooms = sweep->heirlooms;
	struct member *members = sweep->members;
	size_t n = 0;
	for (uint32_t word = 0; word <= heirlooms->n / 64; word++)
		for (uint64_t bits = sweep->present[word]; bits; bits &= bits - 1) {
			uint32_t who = word * 64 + (uint32_t)__builtin_ctzll(bits);
			members[n] = (struct member){ who, vma_at(heirlooms->relatives[who].mm,
								  page * STORE_PAGE) };
			if (members[n].vma == NOBODY)
				continue;
			const image_vma *vma = vma_of(heirlooms, &members[n]);
			if (vma->end / STORE_PAGE < *end)
				*end = vma->end / STORE_PAGE;
			if (heritable(vma) && (n == 0 || heirloom_alike(vma, vma_of(heirlooms, &members[0]))))
				n++;
		}
	return n;
}

static bool is_below(const struct heirlooms *heirlooms, uint32_t who, uint32_t ancestor)
{
	return who >= ancestor && who < heirlooms->relatives[ancestor].end;
}

static int add_legacy(struct heirlooms *heirlooms, const struct legacy *legacy, struct fsnap_error *err)
{
	struct legacy *last = heirlooms->n_legacies ? &heirlooms->legacies[heirlooms->n_legacies - 1] : NULL;
	if (last && last->delta == legacy->delta && last->end == legacy->page &&
	    last->top == legacy->top && last->turn == legacy->turn && heirloom_alike(last->like, legacy->like)) {
		last->end = legacy->end;
		return 0;
	}
	if ((heirlooms->n_legacies & (heirlooms->n_legacies - 1)) == 0) { /* a power of two: full */
		size_t room = heirlooms->n_legacies ? 2 * heirlooms->n_legacies : 1;
		struct legacy *legacies = reallocarray(heirlooms->legacies, room, sizeof(*legacies));
		if (!legacies)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "shared pages");
		heirlooms->legacies = legacies;
	}
	heirlooms->legacies[heirlooms->n_legacies++] = *legacy;
	return 0;
}

/* The mapping is to be inherited from as far up as the highest of those who lay something of it. */
static int claim(struct heirlooms *heirlooms, const struct member *member, uint32_t top,
		 struct fsnap_error *err)
{
	struct relative *relative = &heirlooms->relatives[member->who];
	if (!relative->tops) {
		size_t n = relative->mm->vmas.vmas_len;
		relative->tops = malloc(n * sizeof(*relative->tops));
		if (!relative->tops)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "shared mappings");
		memset(relative->tops, 0xff, n * sizeof(*relative->tops)); /* NOBODY */
	}
	if (relative->tops[member->vma] == NOBODY)
		heirlooms->n_claims++;
	if (top < relative->tops[member->vma])
		relative->tops[member->vma] = top;
	return 0;
}

/* Frames at [page, end) that at least two of those present have. */
static int share(struct sweep *sweep, uint64_t delta, uint64_t page, uint64_t end, struct fsnap_error *err)
{
	struct heirlooms *heirlooms = sweep->heirlooms;
	const struct relative *relatives = heirlooms->relatives;
	for (uint64_t next; page < end; page = next) {
		next = end;
		size_t n = find_members(sweep, page, &next);
		if (n < 2)
			continue;
		uint32_t top = sweep->members[0].who;
		while (top != NOBODY && !is_below(heirlooms, sweep->members[n - 1].who, top))
			top = relatives[top].parent;
		if (top == NOBODY) /* of two families */
			continue;
		uint32_t turn = sweep->members[sweep->members[0].who == top].who;
		while (relatives[turn].parent != top)
			turn = relatives[turn].parent;
		struct legacy legacy = { page, next, delta, vma_of(heirlooms, &sweep->members[0]), top, turn };
		if (add_legacy(heirlooms, &legacy, err) < 0)
			return -1;
		for (size_t i = 0; i < n; i++)
			if (claim(heirlooms, &sweep->members[i], top, err) < 0)
				return -1;
	}
	return 0;
}

static int sweep_over(struct sweep *sweep, struct fsnap_error *err)
{
	uint32_t present = 0;
	for (size_t i = 0; i < sweep->n_edges; i++) {
		const struct edge *edge = &sweep->edges[i];
		uint64_t *word = &sweep->present[edge->who / 64], bit = 1ull << (edge->who % 64);
		present += edge->begins ? 1 : -1u;
		/* A run that ends where the next one begins: in whatever order they come, bits are right. */
		*word ^= bit;
		if (present >= 2 && edge->page < edge[1].page &&
		    share(sweep, edge->delta, edge->page, edge[1].page, err) < 0)
			return -1;
	}
	return 0;
}

/* --- the whole --------------------------------------------------------------------------------- */

static int by_turn(const void *a, const void *b)
{
	const struct legacy *left = a, *right = b;
	if (left->top != right->top)
		return left->top < right->top ? -1 : 1;
	if (left->turn != right->turn)
		return left->turn < right->turn ? -1 : 1;
	return left->page < right->page ? -1 : left->page > right->page;
}

static int list_claims(struct heirlooms *heirlooms, struct fsnap_error *err)
{
	heirlooms->claims = calloc(heirlooms->n_claims + 1, sizeof(*heirlooms->claims));
	if (!heirlooms->claims)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "shared mappings");
	struct claim *next = heirlooms->claims;
	for (uint32_t who = 0; who < heirlooms->n; who++) {
		const struct relative *relative = &heirlooms->relatives[who];
		for (uint32_t i = 0; relative->tops && i < relative->mm->vmas.vmas_len; i++) {
			const image_vma *vma = &relative->mm->vmas.vmas_val[i];
			if (relative->tops[i] != NOBODY)
				*next++ = (struct claim){ who, i, relative->tops[i], vma->start, vma->end, vma };
		}
	}
	qsort(heirlooms->legacies, heirlooms->n_legacies, sizeof(*heirlooms->legacies), by_turn);
	return 0;
}

int heirlooms_trace(struct heirlooms *heirlooms, struct fsnap_error *err)
{
	struct sweep sweep = { .heirlooms = heirlooms };
	int result = mark_all(&sweep, err);
	if (result == 0)
		result = collect_edges(&sweep, err);
	if (result == 0 && sweep.n_edges) {
		sweep.present = calloc(heirlooms->n / 64 + 1, sizeof(*sweep.present));
		sweep.members = calloc(heirlooms->n + 1, sizeof(*sweep.members));
		result = !sweep.present || !sweep.members ?
				 fail(err, FSNAP_E_NOMEM, ENOMEM, "shared pages") : sweep_over(&sweep, err);
	}
	free(sweep.twice);
	free(sweep.edges);
	free(sweep.present);
	free(sweep.members);
	return result < 0 || !heirlooms->n_legacies ? result : list_claims(heirlooms, err);
}
