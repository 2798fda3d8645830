/*
 * sleeps.h - system calls that sleep for a time and were interrupted: the kernel goes on with them by
 * restart_syscall(2), from what it remembers of the thread, and that is no register and no memory of it.
 * A restored thread begins the call anew, for what remained, is interrupted at once, and so has the same.
 */
#ifndef ENGINE_SLEEPS_H
#define ENGINE_SLEEPS_H

#include "engine/dump.h"
#include "engine/restore.h"

/* A stopped thread, whose registers are in task->image.regs: is there something to find out about it? */
void sleeps_note(struct dump *dump, struct task *task);

/* How long they had still to sleep at the freeze; best asked when the tree runs again, or is about to be
 * killed, for it takes 20 ms. Where it cannot be found out they will sleep for the whole time again. */
void sleeps_ask(struct dump *dump, uint64_t frozen_at);

/* Says that this is such a place. */
void sleeps_unknown(struct dump *dump);

/* Data for the calls; then the calls, when everything is there: sets task->regs. */
int sleeps_prepare(struct restore *restore, struct fsnap_error *err);
int sleeps_begin(struct restore *restore, struct task *task, const image_process *process, u_int thread,
		 struct fsnap_error *err);

#endif
