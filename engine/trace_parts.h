/*
 * trace_parts.h - what the files that talk to ptrace(2) share; nobody else includes this.
 *
 *	trace.c       seizing, stops, letting go; all waiting for tracees
 *	registers.c   what a stopped task has in its registers, its signal mask
 *	trace_call.c  system calls in a stopped task
 */
#ifndef ENGINE_TRACE_PARTS_H
#define ENGINE_TRACE_PARTS_H

#include "engine/trace.h"

enum trace_result trace_request(struct task *task, int op, uintptr_t address, uintptr_t data,
				const char *what, struct fsnap_error *err);

/* Waits for any stop; *status as waitpid(2) has it. */
enum trace_result trace_await(struct task *task, int *status, struct fsnap_error *err);

#endif
