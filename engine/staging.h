/*
 * staging.h - an image on a disk, for an eager restore: read past the page cache, in large pieces of which many are under
 * way, into memory that the tasks then copy from as it fills.
 *
 * The pieces are blocks, as checksums cover them: each is compared when it has come, and only then told to the tasks,
 * whose plans wait for the last block that a read of theirs needs (BARRIER_STAGED). An image in memory, one that is in
 * the page cache by half, one that builds on others, a compressed or encrypted one, a small one, or where this takes too much memory, is read as any
 * file: nothing of what is read directly is in the page cache afterwards, for the next restore. FSNAP_DIRECT and
 * FSNAP_NO_DIRECT in the environment: whatever its size; never.
 */
#ifndef ENGINE_STAGING_H
#define ENGINE_STAGING_H

#include <stdbool.h>

#include "store/error.h"

struct restore;
struct staging; /* NULL: not in use */

bool staging_wanted(const struct restore *restore);
/* Before plans are written, when the descriptors that they use are there: those of the image are ours from then on.
 * Where it cannot be had, nothing changes. */
void staging_begin(struct restore *restore);
/* While tasks run: all blocks, in order. */
int staging_read(struct restore *restore, struct fsnap_error *err);
void staging_end(struct restore *restore);

#endif
