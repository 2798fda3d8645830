/*
 * seize.h - stopping a whole tree, and letting it go.
 */
#ifndef ENGINE_SEIZE_H
#define ENGINE_SEIZE_H

#include "engine/tree.h"

/* SELF where `pid` is this process or one of its parents. */
int seize_refuse_self(pid_t pid, struct fsnap_error *err);

/* Finds the process and opens what a dump needs of it; stops nothing. */
struct process *seize_prepare(struct tree *tree, pid_t pid, pid_t ppid, struct fsnap_error *err);

/* Stops every thread of every process below (and including) the prepared root. On success the
 * tree stands still and is complete. On failure everything is let go again. Processes in `known`
 * (may be NULL) were prepared before; those that are still there move into the tree. */
int seize_tree(struct tree *tree, struct tree *known, struct fsnap_error *err);

/* Puts registers and masks back where they were changed, and lets every task run. Safe to call
 * at any time, and twice. */
void seize_release(struct tree *tree);

#endif
