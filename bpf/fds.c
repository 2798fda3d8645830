#include "bpf/fds.h"

#include <bpf/libbpf.h>
#include <stdlib.h>

#include "bpf/load.h"
#include "fds.skel.h"

#define WHAT "the iterator of descriptors"

BPF_READER(fds, WHAT)

const struct fds_told *fds_tell(struct fds_reader *reader, pid_t tid, size_t *n)
{
	struct fds_bpf__bss *shared = reader->skeleton->bss;
	union bpf_iter_link_info info = { .task.tid = (unsigned)tid };
	shared->n = 0;
	if (bpf_run(reader->skeleton->progs.tell_fds, info, WHAT, NULL) < 0 || shared->n > FDS_MOST)
		return NULL;
	*n = shared->n;
	return shared->told;
}
