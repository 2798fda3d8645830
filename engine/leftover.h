/*
 * leftover.h - agents that a dump which was killed has left behind (W2 of place.h): recognised, and taken out.
 */
#ifndef ENGINE_LEFTOVER_H
#define ENGINE_LEFTOVER_H

#include "engine/procfs.h"
#include "engine/tree.h"

struct plans;

/* Where such memory is to lie, so that it is known again even if nothing was ever written to it; 0: anywhere. */
uint64_t leftover_place(const struct process *process, size_t size);
/* A name for a descriptor of such memory, there, in the vDSO that lies at `vdso`; 0: it has none that will do. */
uint64_t leftover_name(const struct process *process, uint64_t vdso);

/* One mapping of it, noted in the process: 1; 0: it is the program's. `map`: as listed, by address. */
int leftover_note(struct process *process, const struct procfs_map *map, struct fsnap_error *err);
/* The same of a descriptor, `dup` here. */
int leftover_note_descriptor(struct process *process, int number, const char *link, int dup, struct fsnap_error *err);
void leftover_forget(struct process *process);

/* TARGET_BUSY where a thread still stands in one: it is on its way home by itself. The process is stopped. */
int leftover_refuse_used(const struct process *process, struct fsnap_error *err);

/* Operations that unmap and close what was noted, by the first thread. */
void leftover_drop(const struct process *process, struct plans *plans);

#endif
