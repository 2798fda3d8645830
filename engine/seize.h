/*
 * seize.h - stopping a whole tree, and letting it go.
 */
#ifndef ENGINE_SEIZE_H
#define ENGINE_SEIZE_H

#include "engine/tree.h"

/* SELF where `pid` is this process or one of its parents. */
int seize_refuse_self(pid_t pid, struct fsnap_error *err);
/* The kernel's own threads look like processes, and are none. */
int seize_refuse_kernel(const struct process *process, struct fsnap_error *err);

/* Finds the process and opens what a dump needs of it; stops nothing. */
struct process *seize_prepare(struct tree *tree, pid_t pid, pid_t ppid, struct fsnap_error *err);

/* Stops every thread of every process below (and including) the prepared root. On success the
 * tree stands still and is complete. On failure everything is let go again. Processes in `known`
 * (may be NULL) were prepared before; those that are still there move into the tree. */
int seize_tree(struct tree *tree, struct tree *known, struct fsnap_error *err);

/* Stops one process alone, and lets it go again, its threads forgotten: whoever stops it next finds them
 * anew. What it had collected of them is gone, what was found out before is not. */
int seize_alone(struct process *process, struct fsnap_error *err);
void seize_let_go(struct process *process);

/* Puts registers and masks back where they were changed, and lets every task run. Safe to call
 * at any time, and twice. */
void seize_release(struct tree *tree);

#endif
