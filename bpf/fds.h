/*
 * fds.h - the descriptors of a process, and what /proc/PID/fdinfo says of most, all at once.
 */
#ifndef BPF_FDS_H
#define BPF_FDS_H

#include <stddef.h>
#include <sys/types.h>

#include "bpf/fds_shape.h"
#include "store/error.h"

struct fds_reader;

/* Loads the iterator: some 20 ms. NULL: this kernel or this caller may not; err says why. */
struct fds_reader *fds_open(struct fsnap_error *err);
void fds_close(struct fds_reader *reader);

/* By number; of a thread that stands still. Valid until the next question. NULL: not to be had, or there are more than
 * FDS_MOST. */
const struct fds_told *fds_tell(struct fds_reader *reader, pid_t tid, size_t *n);

#endif
