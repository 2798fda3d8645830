#include "bpf/vmas.h"

#include <bpf/libbpf.h>
#include <stdlib.h>

#include "bpf/load.h"
#include "vmas.skel.h"

#define WHAT "the iterator of mappings"

BPF_READER(vmas, WHAT)

uint64_t vmas_sum(struct vmas_reader *reader, pid_t tid)
{
	struct vmas_bpf__bss *shared = reader->skeleton->bss;
	union bpf_iter_link_info info = { .task.tid = (unsigned)tid };
	shared->sum = shared->n = shared->n_bare = 0;
	return bpf_run(reader->skeleton->progs.sum_vmas, info, WHAT, NULL) < 0 || !shared->n ? 0 : shared->sum;
}

const struct vmas_range *vmas_bare(struct vmas_reader *reader, pid_t tid, size_t *n)
{
	bool told = vmas_sum(reader, tid) != 0;
	*n = told ? reader->skeleton->bss->n_bare : 0;
	return told ? reader->skeleton->bss->bare : NULL;
}

struct vmas_counts vmas_counts(struct vmas_reader *reader, pid_t tid)
{
	struct vmas_bpf__bss *shared = reader->skeleton->bss;
	union bpf_iter_link_info info = { .task.tid = (unsigned)tid };
	shared->counts = (struct vmas_counts){ 0 };
	if (bpf_run(reader->skeleton->progs.tell_counts, info, WHAT, NULL) < 0)
		return (struct vmas_counts){ 0 };
	return shared->counts;
}
