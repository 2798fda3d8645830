/*
 * home.h - signal frames in the target's own memory, by which its threads find
 * their way home when fsnap dies (parasite/README.md draws it).
 *
 * They lie where nothing lives: the spare part of the main stack first, then
 * below the red zone of each thread's own stack, if the C library has made it.  Stacks that a runtime carves
 * out of its heap may be too small for that, and so may alternate ones: for who stands on such a one there is room on the
 * main stack, which grows if need be.  What lay there is put back before the process runs.
 */
#ifndef ENGINE_HOME_H
#define ENGINE_HOME_H

#include "engine/tree.h"

struct home {
	uint64_t frame; /* address of the ucontext in the process; the word below it is the frame's too */
	char *was;	/* what lay there, from that word on */
};

/* Lays frames for the first n threads of the stopped process; homes[i] is of process->tasks[i]. The word
 * below each frame is the address of the process' signal-return code. */
int home_lay(struct process *process, struct home *homes, size_t n, struct fsnap_error *err);

/* Puts back what lay there. */
void home_take(struct process *process, struct home *homes, size_t n);
/* Nothing lies there any more. */
void home_forget(struct home *homes, size_t n);
void home_free(struct home *homes, size_t n);

#endif
