/*
 * page_kinds.h - of what sort the pages of an image are, for the reports.
 */
#ifndef ENGINE_PAGE_KINDS_H
#define ENGINE_PAGE_KINDS_H

#include "engine/fsnap.h"
#include "image.h"
#include "store/store.h"

/* Adds pages of an address space; those of one run may be of several mappings. */
void page_kinds_add(struct fsnap_page_kinds *kinds, const image_mm *mm, const struct page_run *runs, size_t n);

/* The same, of what processes share, or of files without a name. */
void page_kinds_add_ghost(struct fsnap_page_kinds *kinds, const image_ghost *ghost, const struct page_run *runs,
			  size_t n);

#endif
