/*
 * teller.h - of the processes of a large frozen tree, what /proc says of each is read by a thread of its own, while we ask
 * those before by ptrace, which it may not. Before their agents are there nothing of it changes but which signals wait.
 */
#ifndef ENGINE_TELLER_H
#define ENGINE_TELLER_H

#include "engine/dump.h"

/* Made before the freeze, if it is worth one; it goes through the tree when that stands still. */
void teller_begin(struct dump *dump);
void teller_go(struct dump *dump);
/* For each process of the tree that has memory, in order: from here on it may be asked what was read. */
void teller_await(struct dump *dump, struct process *process);
void teller_stop(struct dump *dump); /* before the tree runs */

/* malloc'ed, the caller's, once; NULL: ask /proc. */
char *teller_take(struct process *process, enum heard what);

#endif
