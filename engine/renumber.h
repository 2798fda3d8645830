/*
 * renumber.h - a tree that comes back with other numbers than it had: PIDs and TIDs as the kernel gives them.
 *
 * The image, and all of the restore, go on calling everybody by the number they had.  Plans take the new ones from
 * control memory when they run (plan_number() in restorer/plan.h); the engine asks restore_number() once the tree
 * is born.  What the program itself remembers is corrected where it is known to be a number of its threads
 * (renumber_memory()); what it keeps in variables of its own, in files and messages, is the program's.
 */
#ifndef ENGINE_RENUMBER_H
#define ENGINE_RENUMBER_H

#include <stdbool.h>
#include <sys/types.h>

#include "engine/kinds/kinds.h" /* restore_number() */
#include "engine/numbers.h"
#include "image.h"
#include "store/error.h"

struct restore;

struct renumber {
	bool wanted;
	bool beside; /* the original runs */
	struct numbers task_of; /* in the plans, by number in the image */
};

/* Does the caller want it, or is it the only way? */
int renumber_decide(struct restore *restore, struct fsnap_error *err);

/* When all tasks of the plans are known, and before any of them has an operation. */
int renumber_prepare(struct restore *restore, struct fsnap_error *err);

/* A copy finds zeroes where a child made by fork(2) would: random number generators of the C library, of the vDSO
 * (their state is MAP_DROPPABLE) and of others keep theirs in such memory, and two copies must not draw the same
 * numbers. To be called when memory is complete. */
void renumber_wipe(struct restore *restore, const image_process *process, uint32_t task);

/* Everybody is born and traced, and memory is what it was: thread IDs in it that are known as such become
 * the new ones. */
int renumber_memory(struct restore *restore, struct fsnap_error *err);

#endif
