/*
 * pending.h - pages of address spaces that are still to come from the image: which, and where they belong by now.
 *
 * A *segment* is a piece of a run that lies within one block of the image (the unit that checksums
 * cover), with a bit for each of its pages that has not arrived. Segments are found by address (a fault), and
 * by block (a block has been read: who wants pages of it?). What the program does to its memory
 * changes them: pages that it throws away are not wanted any more, what it moves is wanted elsewhere, and a
 * child wants what its parent wants.
 *
 * Nothing here calls the allocator: it works in the child of a process with threads. What must hold: within a
 * space, segments do not overlap, and its index has them by address.
 */
#ifndef RESTORER_PENDING_H
#define RESTORER_PENDING_H

#include "store/store.h"

#define PENDING_NONE UINT32_MAX

struct segment {
	uint64_t page;	    /* address / STORE_PAGE, now */
	uint64_t block;	    /* of the image, */
	uint32_t in;	    /* and which page of it */
	uint64_t wanted[4]; /* bit n: page + n has not arrived */
	uint32_t space;
	uint32_t npages;
	uint32_t next; /* of its block, PENDING_NONE: the last */
};

struct pending_space {
	uint32_t *index; /* segments by address */
	size_t n, room;
	uint64_t left;	 /* pages that are wanted */
};

struct pending {
	const struct image *image;
	struct segment *segments;
	size_t n, room;
	struct pending_space *spaces;
	size_t n_spaces, space_room;
	uint32_t *first; /* segment by block */
	uint64_t left;	 /* of all spaces */
};

/* All that can fail, fails for want of memory, with -1. */
int pending_open(struct pending *pending, const struct image *image);
/* A new space that wants runs, sorted by page; returns its number, in order. */
int64_t pending_add(struct pending *pending, const struct page_run *runs, size_t n);
/* A new space that wants what another one still does. */
int64_t pending_fork(struct pending *pending, uint32_t space);

/* Where the page is wanted: its segment; PENDING_NONE: it is not. */
uint32_t pending_find(const struct pending *pending, uint32_t space, uint64_t page);
/* The next pages of a segment that are wanted, from its page number `from` on: their number, at most
 * `most`, the first in *first. */
uint32_t pending_next(const struct segment *segment, uint32_t from, uint32_t most, uint32_t *first);

/* They are there: */
void pending_arrived(struct pending *pending, uint32_t segment, uint32_t first, uint32_t n);
/* Pages [page, end) are not wanted any more. */
void pending_forget(struct pending *pending, uint32_t space, uint64_t page, uint64_t end);
/* [from, from + n) is now at `to`, where nothing was. */
int pending_move(struct pending *pending, uint32_t space, uint64_t from, uint64_t to, uint64_t n);

#endif
