/*
 * async.h - asynchronous I/O as only the kernel knows it: are requests under way, and how was a ring
 * of io_uring set up. By eBPF iterators, for no call tells.
 */
#ifndef BPF_ASYNC_H
#define BPF_ASYNC_H

#include <stddef.h>
#include <sys/types.h>

#include "bpf/async_shape.h"
#include "store/error.h"

struct async_reader;

/* Loads the iterators: some 20 ms. NULL: this kernel or this caller may not; err says why. */
struct async_reader *async_open(struct fsnap_error *err);
void async_close(struct async_reader *reader);

/* Each gives what is told, valid until the next question, and how many; NULL with *err set. */
const struct async_context *async_contexts(struct async_reader *reader, pid_t pid, size_t *n,
					   struct fsnap_error *err);
const struct async_thread *async_threads(struct async_reader *reader, pid_t pid, size_t *n,
					 struct fsnap_error *err);
const struct async_descriptor *async_descriptors(struct async_reader *reader, pid_t pid, size_t *n,
						 struct fsnap_error *err);

/* A ring that is descriptor `fd` of ours. files: identity of each registered one, 0 an empty slot, and its tag. */
const struct async_ring *async_ring(struct async_reader *reader, int fd, const __u64 **files,
				    const __u64 **tags, const struct async_buffer **buffers, struct fsnap_error *err);

#endif
