/*
 * thread_view.h - what a thread does: its instruction, its system call, its stack.
 */
#ifndef INSPECT_THREAD_VIEW_H
#define INSPECT_THREAD_VIEW_H

#include "engine/inspect/view.h"
#include "engine/text.h"

/* Names belong to the view. */
struct frame {
	uint64_t address;
	bool interrupted; /* a signal came here: nothing was called */
	/* By threads_name(): */
	const char *symbol; /* NULL: not known */
	uint64_t into;	    /* bytes behind the symbol */
	const char *file;   /* NULL: the address is in no file */
	uint64_t in_file;   /* ELF address, as addr2line takes it */
};

struct thread_view {
	const image_thread *thread;
	struct process_view *process;
	bool known;	    /* there are registers; nothing below is set otherwise */
	uint64_t address;   /* of the instruction */
	char instruction[96]; /* "": its bytes cannot be had */
	long syscall;	    /* -1: in none */
	uint64_t args[6];
	struct frame *frames; /* innermost first */
	size_t n_frames;
};

/* Looks at every thread of the tree; with `stacks`, at their stacks too. What the registers lead
 * to is read now: a running tree may be let go afterwards. */
int threads_look(struct tree_view *view, bool stacks, struct thread_view **threads, size_t *count,
		 struct fsnap_error *err);

/* Names all frames; may be done after a running tree was let go. */
void threads_name(struct thread_view *threads, size_t count);
void threads_free(struct thread_view *threads, size_t count);

/* unwind.c: the addresses of the frames */
int unwind(struct thread_view *thread, struct fsnap_error *err);

#endif
