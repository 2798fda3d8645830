/*
 * record_locks.h - locks of fcntl(F_SETLK) (fcntl(2), "Advisory record locking").
 *
 * They belong to a process and a file, not to a descriptor; so they are read from
 * what /proc/PID/fdinfo says and taken again by the process itself, through a
 * descriptor it has on the file.
 */
#ifndef ENGINE_RECORD_LOCKS_H
#define ENGINE_RECORD_LOCKS_H

#include "engine/kinds/kinds.h"
#include "restorer/plan.h"

/* Adds the process's locks that this descriptor's fdinfo shows and that are not known yet. */
int record_locks_collect(const struct fd_view *fd, struct fsnap_error *err);

/* To be called when the process has its descriptors and closes none any more: closing any descriptor of
 * a file drops the process's locks on it. */
void record_locks_rebuild(const image_process *process, struct plans *plans, uint32_t task);

#endif
