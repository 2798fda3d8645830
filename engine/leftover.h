/*
 * leftover.h - agents that a dump which was killed has left behind (W2 of place.h): recognised, and taken out.
 */
#ifndef ENGINE_LEFTOVER_H
#define ENGINE_LEFTOVER_H

#include "engine/procfs.h"
#include "engine/tree.h"

struct plans;

/* One mapping of it, noted in the process: it is none of the program's. `map`: as listed, by address. */
bool leftover_note(struct process *process, const struct procfs_map *map, struct fsnap_error *err);
void leftover_forget(struct process *process);

/* TARGET_BUSY where a thread still stands in one: it is on its way home by itself. The process is stopped. */
int leftover_refuse_used(const struct process *process, struct fsnap_error *err);

/* Operations that unmap what was noted, by the first thread. */
void leftover_drop(const struct process *process, struct plans *plans);

#endif
