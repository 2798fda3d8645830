/*
 * early.h - of the processes of a large frozen tree, what /proc says of each is read before it is wanted, by a thread of its
 * own, while we ask those before by ptrace, which it may not. Until their agents are there nothing of it changes but which
 * signals wait.
 */
#ifndef ENGINE_EARLY_H
#define ENGINE_EARLY_H

#include "engine/dump.h"

/* Made before the freeze, if it is worth one; it goes through the tree when that stands still. */
void early_begin(struct dump *dump);
void early_go(struct dump *dump);
/* For each process of the tree that has memory, in order: from here on it may be asked what was read. */
void early_await(struct dump *dump, struct process *process);
void early_stop(struct dump *dump); /* before the tree runs */

/* malloc'ed, the caller's, once; NULL: ask /proc. */
char *early_take(struct process *process, enum early_text what);

#endif
