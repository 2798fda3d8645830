/*
 * stop.h - stopping the threads of one process; the whole tree is seize.c's.
 */
#ifndef ENGINE_STOP_H
#define ENGINE_STOP_H

#include "engine/tree.h"
#include "engine/undertaker.h"

/* Are those that have been stopped all that the process has? */
bool threads_are_known(const struct process *process);

/* Asks the first thread to stop, so that stop_threads() finds it stopping; the process must not be what its parent waits
 * for in vfork(2). If it cannot be asked, nothing happens. */
void ask_to_stop(struct process *process);

/* Seizes and stops threads that were not known so far; adds their number to *found. */
int stop_threads(struct process *process, struct undertaker *undertaker, size_t *found, struct fsnap_error *err);

/* So many that seizing them takes an undertaker? */
bool has_many_threads(const struct process *process);

/* Waits a few milliseconds for a thread that was interrupted. */
bool stops_soon(const struct task *task);

#endif
