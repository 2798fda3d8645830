/*
 * flags.h - the flags of each mapping of a process, as the kernel itself has them.
 */
#ifndef BPF_FLAGS_H
#define BPF_FLAGS_H

#include <stddef.h>
#include <sys/types.h>

#include "bpf/flags_shape.h"
#include "store/error.h"

struct flags_reader;

/* Loads the iterator: some milliseconds. NULL: this kernel or this caller may not; err says why. */
struct flags_reader *flags_open(struct fsnap_error *err);
void flags_close(struct flags_reader *reader);

/* The mappings of a process, by address; malloc'ed, *n of them. */
struct flags_mapping *flags_ask(struct flags_reader *reader, pid_t tid, size_t *n, struct fsnap_error *err);

#endif
