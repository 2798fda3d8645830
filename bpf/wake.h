/*
 * wake.h - until when the threads would have slept that our PTRACE_INTERRUPT wakes: it has to be watched while
 * it happens.
 */
#ifndef BPF_WAKE_H
#define BPF_WAKE_H

#include <stddef.h>
#include <sys/types.h>

#include "bpf/wake_shape.h"
#include "store/error.h"

struct wake_reader;

/* Loads the programs and begins to watch the tracees of this process: some 20 ms. NULL: this kernel or this
 * caller may not; err says why. */
struct wake_reader *wake_open(struct fsnap_error *err);
void wake_close(struct wake_reader *reader);

/* Forgets what was seen: of threads that have gone on since. */
void wake_forget(struct wake_reader *reader);

/* What was seen so far, in the order in which it came; valid until the reader is closed. */
const struct wake_limit *wake_limits(const struct wake_reader *reader, size_t *n);

/* What is to be added to a time of the kernel's CLOCK_MONOTONIC to have the caller's, ns. */
int64_t wake_clock_offset(const struct wake_reader *reader);

#endif
