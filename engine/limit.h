/*
 * limit.h - system calls that wait with a time limit of which the kernel notes nothing when they are interrupted: where
 * among their arguments it is, and how it is made shorter.
 *
 * A limit in a register is changed there. One in memory is the program's, which may use it again: so what remains is
 * written where the thread has nothing, and the register leads there.
 */
#ifndef ENGINE_LIMIT_H
#define ENGINE_LIMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/user.h>

#include "engine/text.h"
#include "image.h"

enum limit_form {
	LIMIT_NONE,
	LIMIT_MS,	/* milliseconds, in the register */
	LIMIT_TIME,	/* address of a struct timespec */
	LIMIT_ARGUMENT, /* address of a struct io_uring_getevents_arg, which has that of one */
};

struct limit {
	enum limit_form form;
	enum text_register reg; /* of its argument */
};

/* Of a system call with these arguments, as far as they tell. */
struct limit limit_of(uint64_t nr, const uint64_t args[6]);

/* Of a thread that stands behind one that was interrupted. */
struct limit limit_behind(const struct user_regs_struct *regs);

/* Whose the limit is: memory (/proc/PID/mem, open for writing), mappings, what is known of the thread. */
struct limit_place {
	int mem;
	const image_mm *mm;
	const image_thread *thread;
};

/* Of an interrupted call: makes its limit what is `left`, ns, unless it is less already. The registers are still to be
 * set. false: it stays as it is. */
bool limit_shorten(struct user_regs_struct *regs, uint64_t left, const struct limit_place *place);

#endif
