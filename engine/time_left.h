/*
 * time_left.h - calls that wait with a time limit and keep no note of what remains when they are interrupted:
 * epoll_wait(2) and its like (limit.h). Begun anew, as the kernel does, they would wait for the whole of it again. So the
 * limit is changed to what remains, where the code behind the call does not look at the register any more that holds it
 * or leads to it.
 */
#ifndef ENGINE_TIME_LEFT_H
#define ENGINE_TIME_LEFT_H

#include "engine/dump.h"
#include "engine/limit.h"

/* Before the freeze: is a thread of the process in such a call? */
void time_left_look(struct dump *dump, struct process *process);
/* If so, has until when they sleep noted while they are stopped. */
void time_left_watch(struct dump *dump);

/* A stopped thread, whose registers are in task->regs: sets task->deadline. */
void time_left_note(struct dump *dump, struct task *task);
/* When the tree runs again: what the image says of it. */
void time_left_tell(struct dump *dump, uint64_t frozen_at);
void time_left_free(struct dump *dump);

/* A thread that is about to be let go: what remains now; nothing if it has no deadline. */
void time_left_set(struct task *task);
/* A thread that is restored, memory and all: what remained then, ns. */
void time_left_shorten(struct task *task, const image_mm *mm, const image_thread *image);

#endif
