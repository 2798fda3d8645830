/*
 * template.h - an image held ready: open, verified, its memory in this process, copies forked from it.
 *
 * The root of a restored tree is forked by whoever restores it, and begins by dropping what it inherited.  Of a
 * template it keeps the private memory: every copy has it copy-on-write, and nothing is copied until somebody writes.
 * All else is made for each copy as in any restore.
 *
 *	at home		memory of a tree of one process lies here at the addresses where it belongs
 *	in the stash	what cannot: in trees of several, all of them, in a gap that none of them uses; each
 *			process moves its own home (mremap(2)) and drops the rest
 *	areas		pages that processes of the tree share among themselves lie where the root would lay them
 *			for its descendants (restorer/heirloom.h); what is in them of one process alone is copied
 *
 * What must hold: a mapping comes back as one mapping, so it is held as a whole or not at all; held are ordinary
 * private anonymous ones about which nothing was said that a fork, or the pages' being huge, would change.
 *
 *	template.c	the calls, and what a copy is told of it
 *	template_hold.c	what is held, and where
 */
#ifndef ENGINE_TEMPLATE_H
#define ENGINE_TEMPLATE_H

#include "engine/fsnap.h"
#include "engine/keeper.h"
#include "engine/model.h"
#include "restorer/heirloom.h"
#include "restorer/memory.h"

/* Of one address space. */
struct template_space {
	uint64_t *at; /* by mapping: where it lies here; 0: it is not held */
	struct memory_range *held; /* the mappings that are, where they belong, by address */
	size_t n_held;
};

struct fsnap_template {
	struct store *store;
	struct image *image;
	struct template_space *spaces; /* as the model's */
	size_t n_spaces;
	struct memory_range *kept; /* of this process: those at home, the stash; behind them, the areas */
	size_t n_kept;
	struct memory_range stash; /* empty: there is none */
	struct memory_range *areas;
	size_t n_areas;
	struct page_run *laid; /* in the areas */
	size_t n_laid;
	struct keeper *keeper; /* keeper.h; NULL: there is none */
	bool damaged;  /* while it is filled: the image lacks pages */
	size_t bytes;  /* of mappings and areas, held */
	size_t stored; /* of pages in them */
};

/* template_hold.c: fills what stands behind `image`. */
int template_hold(struct fsnap_template *template, const struct model *model, struct fsnap_error *err);
void template_let_go(struct fsnap_template *template);

/* When heirlooms of a copy are known, before its plans are written: what the root is to keep of what it inherits.
 * Returns whether areas are among it. */
bool template_offer(const struct fsnap_template *template, struct heirlooms *heirlooms, struct memory_source *source);

/* What memory_build() is still to do for an address space of which heirlooms have brought `part`. What this allocates is
 * freed by template_part_free(), when the plan is written. */
struct template_part {
	bool *inherited;
	uint64_t *from;
	struct page_run *runs;
};
int template_part(const struct fsnap_template *template, const struct keeper *keeper, const struct image *image,
		  size_t space, const image_mm *mm, struct memory_part *part, struct template_part *own,
		  struct fsnap_error *err);
void template_part_free(struct template_part *own);

/* Runs of what is not in ranges, both by address; a run may begin or end within a range. Returns how many there are: at
 * most two more for each range. */
size_t template_list_rest(struct page_run *list, const struct page_run *runs, size_t n, const struct memory_range *ranges,
			  size_t n_ranges);

#endif
