/*
 * template.h - an image held ready: open, verified, its memory in this process, copies forked from it.
 *
 * The root of a restored tree is forked by whoever restores it, and begins by dropping what it inherited.  Of a
 * template it keeps the private memory, which lies here at the addresses where it belongs: every copy has it
 * copy-on-write, and nothing is copied until somebody writes.  All else is made for each copy as in any restore.
 *
 * What must hold: a mapping comes back as one mapping, so it is held as a whole or not at all; held are ordinary
 * private anonymous ones about which nothing was said that a fork, or the pages' being huge, would change; what lies
 * at an address that this process uses is not held, and copied as ever.  Trees of several processes are not held: a
 * child would have to give back what is its parent's.
 */
#ifndef ENGINE_TEMPLATE_H
#define ENGINE_TEMPLATE_H

#include "engine/fsnap.h"
#include "engine/model.h"
#include "restorer/memory.h"

struct fsnap_template {
	struct store *store;
	struct image *image;
	struct memory_range *ranges; /* held, by address */
	size_t n_ranges;
	bool *inherited; /* by mapping of the one address space */
	struct page_run *runs; /* of its pages that are not held */
	size_t n_runs;
	size_t bytes; /* held */
};

/* For memory_build(); all zero: nothing is held. */
struct memory_part template_part(const struct fsnap_template *template);

#endif
