/*
 * heirloom_pages.c - lists of pages and where in the image they come from.
 */
#include <stdlib.h>

#include "restorer/heirloom_private.h"

void list_add(struct page_list *list, uint64_t page, uint64_t end, uint64_t at)
{
	struct page_run *last = list->n ? &list->runs[list->n - 1] : NULL;
	if (page >= end)
		return;
	if (last && last->page + last->npages == page && last->at + last->npages == at &&
	    last->npages + (end - page) <= UINT32_MAX) {
		last->npages += (uint32_t)(end - page);
		return;
	}
	if (list->n == list->room) {
		size_t room = list->room ? 2 * list->room : 64;
		struct page_run *runs = reallocarray(list->runs, room, sizeof(*runs));
		if (!runs) {
			list->exhausted = true;
			return;
		}
		list->runs = runs;
		list->room = room;
	}
	list->runs[list->n++] = (struct page_run){ .page = page, .at = at, .npages = (uint32_t)(end - page) };
}

static uint64_t at_of(const struct page_run *run, uint64_t page)
{
	return run && run->page <= page ? run->at + (page - run->page) : UINT64_MAX;
}

/* Where, behind `page`, what the run says changes. */
static uint64_t change_of(const struct page_run *run, uint64_t page)
{
	if (!run)
		return UINT64_MAX;
	return run->page > page ? run->page : run->page + run->npages;
}

void compare(const struct page_run *a, size_t n_a, const struct page_run *b, size_t n_b,
		    compare_fn *tell, void *arg)
{
	size_t i = 0, j = 0; /* who has no pages has no array either */
	for (uint64_t page = 0; i < n_a || j < n_b;) {
		const struct page_run *in_a = i < n_a ? &a[i] : NULL, *in_b = j < n_b ? &b[j] : NULL;
		uint64_t change_a = change_of(in_a, page), change_b = change_of(in_b, page);
		uint64_t next = change_a < change_b ? change_a : change_b;
		tell(arg, page, next, at_of(in_a, page), at_of(in_b, page));
		page = next;
		i += in_a && in_a->page + in_a->npages <= page;
		j += in_b && in_b->page + in_b->npages <= page;
	}
}
