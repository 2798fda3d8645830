/*
 * stop.h - stopping the threads of one process; the whole tree is seize.c's.
 */
#ifndef ENGINE_STOP_H
#define ENGINE_STOP_H

#include "engine/tree.h"

/* Are those that have been stopped all that the process has? */
bool threads_are_known(const struct process *process);

/* Seizes and stops threads that were not known so far; adds their number to *found. */
int stop_threads(struct process *process, size_t *found, struct fsnap_error *err);

/* Waits a few milliseconds for a thread that was interrupted. */
bool stops_soon(const struct task *task);

#endif
