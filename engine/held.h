/*
 * held.h - copies of pages that the image has already, by address: runs that do not overlap.
 */
#ifndef ENGINE_HELD_H
#define ENGINE_HELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/error.h"

#define HELD_NOWHERE UINT64_MAX

struct held_run {
	uint64_t page, npages;
	uint64_t at;  /* image page */
	bool spoiled; /* that is its place, but what is there is no copy */
};

struct held { /* zeroed: empty */
	struct held_run *runs; /* sorted by page, but for those behind n_sorted */
	size_t n, n_sorted;
};

/* The place of `page`; HELD_NOWHERE: it has none. *n, pages asked for, becomes how many of them
 * this answer is about. Only of what is sorted. */
uint64_t held_find(const struct held *held, uint64_t page, uint64_t *n);

/* Adds what is not there yet; held_sort() before it is asked for. */
int held_add(struct held *held, uint64_t page, uint64_t npages, uint64_t at, struct fsnap_error *err);
void held_sort(struct held *held);

/* These could not be read. */
int held_spoil(struct held *held, uint64_t page, uint64_t npages, struct fsnap_error *err);

/* The first run that ends behind `page`; held->n: none. */
size_t held_from(const struct held *held, uint64_t page);

void held_free(struct held *held);

#endif
