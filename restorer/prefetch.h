/*
 * prefetch.h - getting image pages from the disk before anybody waits for them.
 */
#ifndef RESTORER_PREFETCH_H
#define RESTORER_PREFETCH_H

#include "store/store.h"

struct prefetch;

/* Starts reading the image's pages, in order, in the background; NULL where that brings nothing (the
 * image lies in memory, or is small). Never an error: a restore works without. */
struct prefetch *prefetch_start(const struct image *image);
void prefetch_end(struct prefetch *prefetch);

#endif
