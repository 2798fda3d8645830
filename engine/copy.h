/*
 * copy.h - target memory -> image: copy_inside.c what helpers inside the target can copy, copy.c the rest.
 */
#ifndef ENGINE_COPY_H
#define ENGINE_COPY_H

#include "engine/dump.h"
#include "store/scope.h"

#define CHUNK_PAGES (4 * (uint64_t)STORE_BLOCK_PAGES) /* what a worker takes at a time: 4 MiB */
#define WORKERS_MAX 16
#define INSIDE_ABOVE 8192 /* pages of a process: sending the agent in once more costs as much as copying some 2000 */

/* Copies what can be copied from inside of processes that stand still. done[i]: chunk i is in the image, and its
 * sums are known. *pages: how many these are. What it could not copy is no error. */
int copy_inside(struct dump *dump, bool *done, uint64_t *pages, struct fsnap_error *err);

/* Image pages [at, end), whole blocks, from outside, with their sums. */
int copy_chunk(struct dump *dump, uint64_t at, uint64_t end, struct fsnap_error *err);

/* Processors that we may use. */
unsigned copy_crew_size(void);

#endif
