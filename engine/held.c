#include "engine/held.h"

#include <stdlib.h>

#include "engine/dump.h"
#include "engine/ranges.h"

static uint64_t end_of(const void *run)
{
	const struct held_run *held = run;
	return held->page + held->npages;
}

size_t held_from(const struct held *held, uint64_t page)
{
	return ranges_beyond(held->runs, held->n_sorted, sizeof(*held->runs), end_of, page);
}

uint64_t held_find(const struct held *held, uint64_t page, uint64_t *n)
{
	size_t i = held_from(held, page);
	const struct held_run *run = i < held->n_sorted ? &held->runs[i] : NULL;
	if (!run || run->page > page) {
		if (run && run->page - page < *n)
			*n = run->page - page;
		return HELD_NOWHERE;
	}
	uint64_t inside = page - run->page;
	if (run->npages - inside < *n)
		*n = run->npages - inside;
	return run->at + inside;
}

static int append(struct held *held, const struct held_run *run, struct fsnap_error *err)
{
	struct held_run *runs = grow(held->runs, held->n, sizeof(*runs), err);
	if (!runs)
		return -1;
	held->runs = runs;
	runs[held->n++] = *run;
	return 0;
}

static bool continues(const struct held_run *a, const struct held_run *b)
{
	return a->page + a->npages == b->page && a->at + a->npages == b->at && a->spoiled == b->spoiled;
}

int held_add(struct held *held, uint64_t page, uint64_t npages, uint64_t at, struct fsnap_error *err)
{
	struct held_run run = { page, npages, at, false };
	struct held_run *last = held->n > held->n_sorted ? &held->runs[held->n - 1] : NULL;
	if (!last || !continues(last, &run))
		return append(held, &run, err);
	last->npages += npages;
	return 0;
}

static int by_page(const void *a, const void *b)
{
	const struct held_run *x = a, *y = b;
	return x->page < y->page ? -1 : x->page > y->page;
}

void held_sort(struct held *held)
{
	if (held->n == held->n_sorted)
		return;
	qsort(held->runs, held->n, sizeof(*held->runs), by_page);
	size_t kept = 0;
	for (size_t i = 1; i < held->n; i++) {
		if (continues(&held->runs[kept], &held->runs[i]))
			held->runs[kept].npages += held->runs[i].npages;
		else
			held->runs[++kept] = held->runs[i];
	}
	held->n = held->n_sorted = kept + 1;
}

/* Cuts the run at `page`, so that one begins there. */
static int cut(struct held *held, uint64_t page, struct fsnap_error *err)
{
	size_t i = held_from(held, page);
	struct held_run *run = i < held->n_sorted ? &held->runs[i] : NULL;
	if (!run || run->page >= page)
		return 0;
	uint64_t inside = page - run->page;
	struct held_run rest = { page, run->npages - inside, run->at + inside, run->spoiled };
	run->npages = inside;
	if (append(held, &rest, err) < 0)
		return -1;
	qsort(held->runs, held->n, sizeof(*held->runs), by_page);
	held->n_sorted = held->n;
	return 0;
}

int held_spoil(struct held *held, uint64_t page, uint64_t npages, struct fsnap_error *err)
{
	held_sort(held);
	if (cut(held, page, err) < 0 || cut(held, page + npages, err) < 0)
		return -1;
	for (size_t i = held_from(held, page); i < held->n && held->runs[i].page < page + npages; i++)
		held->runs[i].spoiled = true;
	return 0;
}

void held_free(struct held *held)
{
	free(held->runs);
	*held = (struct held){ 0 };
}
