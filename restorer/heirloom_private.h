/*
 * heirloom_private.h - what a `struct heirlooms` is made of; only for heirloom*.c.
 *
 * Processes are numbered anew, in preorder: a subtree is an interval, an ancestor
 * has a smaller number than its descendants, and the nearest common ancestor of
 * many is that of the first and the last.
 */
#ifndef RESTORER_HEIRLOOM_PRIVATE_H
#define RESTORER_HEIRLOOM_PRIVATE_H

#include <stdbool.h>

#include "restorer/heirloom.h"

#define NOBODY UINT32_MAX

/* Frames [page + delta, ...) of the image at addresses [page, end), which several processes have. */
struct legacy {
	uint64_t page, end;
	uint64_t delta;
	const image_vma *like; /* a mapping of one of those who have it */
	uint32_t top;	       /* who lays it: their nearest common ancestor */
	uint32_t turn;	       /* the child of `top` before whose birth it is laid */
};

/* A mapping that holds heirlooms. */
struct claim {
	uint32_t who, vma;
	uint32_t top; /* the highest ancestor that lays something of it */
	uint64_t start, end;
	const image_vma *like;
};

/* A mapping, or room for several, that is passed on, as one process has it. */
struct area {
	uint64_t start, end;
	const image_vma *like;
	uint32_t origin;       /* who makes it; the others inherit it */
	bool present;	       /* it need not be made: heirlooms_present() */
	struct claim **claims; /* of this process and its descendants, by (who, start) */
	size_t n_claims;
};

/* Image pages that lie at their addresses at some point of a plan; shared by all who were born there. */
struct laid {
	unsigned users;
	size_t n;
	struct page_run runs[]; /* by page */
};

struct relative {
	const image_mm *mm;
	uint32_t task;
	uint32_t parent, end; /* its bearer, or NOBODY; its subtree is [its own number, end) */
	uint32_t *tops;	      /* by mapping: claim.top, NOBODY; NULL: it has no part */
	struct area *areas;   /* by address */
	size_t n_areas;
	struct laid *laid;    /* what it has at this point of its plan */
	bool *kept;	      /* by mapping: is it there when the process has settled? */
	struct page_run *left; /* pages memory_build() has to bring */
	size_t n_left;
};

struct heirlooms {
	const struct image *image;
	struct relative *relatives;
	uint32_t *number; /* of the processes as the caller counts them */
	uint32_t n;
	struct legacy *legacies; /* by (top, turn, page) */
	size_t n_legacies;
	struct claim *claims;
	size_t n_claims;
};

/* heirloom_pages.c: a growing list of runs, by page; running out of memory is remembered. */
struct page_list {
	struct page_run *runs;
	size_t n, room;
	bool exhausted;
};

/* Adds image pages from `at` on for [page, end), which must not lie before those it has. */
void list_add(struct page_list *list, uint64_t page, uint64_t end, uint64_t at);

/* Tells what two lists say about each stretch of pages: UINT64_MAX where one has nothing. */
typedef void compare_fn(void *arg, uint64_t page, uint64_t end, uint64_t at_a, uint64_t at_b);
void compare(const struct page_run *a, size_t n_a, const struct page_run *b, size_t n_b,
	     compare_fn *tell, void *arg);

/* heirloom_settle.c: what is unmapped of what a process has. */
struct giving {
	struct plans *plans;
	uint32_t task;
	struct memory_range ours; /* control memory and what is parked behind it: never in a hole */
	struct memory_range pending;
};

/* Unmaps of `have` what is not in `keep`; both by address, the latter within the former. */
void give_back(struct giving *giving, const struct memory_range *have, size_t n_have,
	       const struct memory_range *keep, size_t n_keep);

/* The areas of a process, malloc'ed; without those that `but` has to make. */
struct memory_range *ranges_of(const struct relative *relative, uint32_t but, size_t *n);
struct memory_range ours_of(const struct memory_source *source);

/* The part of some pages that lies in some ranges; clip_add() is called by page. */
struct clip {
	const struct memory_range *ranges;
	size_t n, next;
	struct page_list list;
};

void clip_runs(struct clip *clip, const struct page_run *runs, size_t n);
void clip_laid(struct clip *clip, const struct laid *laid);

/* heirloom.c: one user less; another list; what is laid before the birth of process `turn`. */
void heirloom_drop(struct laid *laid);
int laid_set(struct relative *relative, struct page_list *list, struct fsnap_error *err);
int list_turn(const struct heirlooms *heirlooms, uint32_t top, uint32_t turn, struct page_list *list);

/* heirloom_find.c: fills legacies and claims. */
int heirlooms_trace(struct heirlooms *heirlooms, struct fsnap_error *err);

/* heirloom_area.c: gives every process its areas. */
int heirlooms_place(struct heirlooms *heirlooms, struct fsnap_error *err);
bool heirloom_alike(const image_vma *a, const image_vma *b);

#endif
