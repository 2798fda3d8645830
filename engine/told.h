/*
 * told.h - files of /proc/PID that are read while the tree stands still, opened before: to open and to close one takes
 * twice as long as to read it.
 */
#ifndef ENGINE_TOLD_H
#define ENGINE_TOLD_H

#include "engine/procfs.h"
#include "engine/tree.h"

/* Opens what can be opened, if it is not. */
void told_open(struct process *process);
void told_close(struct process *process);

/* What one says now, malloc'ed and NUL-ended; one that is not open is opened for the moment. They belong to the process,
 * whichever program it executes meanwhile. */
char *told_read(const struct process *process, enum told what, struct fsnap_error *err);
int told_stat(const struct process *process, struct procfs_stat *stat, struct fsnap_error *err);

#endif
