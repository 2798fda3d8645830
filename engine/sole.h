/*
 * sole.h - one restore of a tree at a time: two at once would both make the same names and put the same messages into
 * the same queues before either finds its process numbers taken.
 */
#ifndef ENGINE_SOLE_H
#define ENGINE_SOLE_H

#include "engine/restore.h"

/* From here on until sole_end(), or our death, this process alone restores a tree with these numbers in this PID
 * namespace (and network namespace). PID_TAKEN: somebody else does. */
int sole_begin(struct restore *restore, struct fsnap_error *err);
void sole_end(struct restore *restore);

#endif
