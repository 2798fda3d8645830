#include "bpf/async.h"

#include <bpf/libbpf.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "async.skel.h"
#include "bpf/load.h"

#define WHAT "the iterator of asynchronous I/O"

BPF_READER(async, WHAT)

static int ask(struct async_reader *reader, struct bpf_program *program, pid_t pid, size_t *n,
	       struct fsnap_error *err)
{
	struct async_order *order = &reader->skeleton->bss->order;
	*order = (struct async_order){ .cpus = (unsigned)libbpf_num_possible_cpus() };
	union bpf_iter_link_info info = { .task.pid = (unsigned)pid };
	if (bpf_run(program, info, WHAT, err) < 0)
		return -1;
	*n = order->n;
	return 0;
}

const struct async_context *async_contexts(struct async_reader *reader, pid_t pid, size_t *n,
					   struct fsnap_error *err)
{
	return ask(reader, reader->skeleton->progs.tell_contexts, pid, n, err) < 0
		       ? NULL
		       : reader->skeleton->bss->contexts;
}

const struct async_thread *async_threads(struct async_reader *reader, pid_t pid, size_t *n,
					 struct fsnap_error *err)
{
	return ask(reader, reader->skeleton->progs.tell_threads, pid, n, err) < 0
		       ? NULL
		       : reader->skeleton->bss->threads;
}

const struct async_descriptor *async_descriptors(struct async_reader *reader, pid_t pid, size_t *n,
						 struct fsnap_error *err)
{
	return ask(reader, reader->skeleton->progs.tell_descriptors, pid, n, err) < 0
		       ? NULL
		       : reader->skeleton->bss->descriptors;
}

const struct async_ring *async_ring(struct async_reader *reader, int fd, const __u64 **files,
				    const __u64 **tags, const struct async_buffer **buffers, struct fsnap_error *err)
{
	struct async_bpf__bss *shared = reader->skeleton->bss;
	union bpf_iter_link_info info = { .task.tid = (unsigned)syscall(SYS_gettid) };
	shared->order = (struct async_order){ .fd = (unsigned)fd };
	shared->ring.found = 0;
	if (bpf_run(reader->skeleton->progs.tell_ring, info, WHAT, err) < 0)
		return NULL;
	if (!shared->ring.found) {
		fail(err, FSNAP_E_SYSTEM, 0, WHAT ": descriptor %d is not there", fd);
		return NULL;
	}
	*files = shared->files;
	*tags = shared->file_tags;
	*buffers = shared->buffers;
	return &shared->ring;
}
