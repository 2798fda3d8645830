/*
 * sleep.h - until when threads sleep, whose calls a signal or a stop has interrupted: the kernel keeps it in
 * their restart blocks and tells nobody.
 */
#ifndef BPF_SLEEP_H
#define BPF_SLEEP_H

#include <stddef.h>
#include <sys/types.h>

#include "bpf/sleep_shape.h"
#include "store/error.h"

struct sleep_reader;

/* Loads the iterator: some 20 ms. NULL: this kernel or this caller may not; err says why. */
struct sleep_reader *sleep_open(struct fsnap_error *err);
void sleep_close(struct sleep_reader *reader);

/* The blocks of the threads of a process, as far as there is room; valid until the next question. told says
 * how many, and when it was. NULL with *err set. */
const struct sleep_block *sleep_blocks(struct sleep_reader *reader, pid_t pid, struct sleep_told *told,
				       struct fsnap_error *err);

#endif
