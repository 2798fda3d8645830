#include "bpf/vmas.h"

#include <bpf/libbpf.h>
#include <stdlib.h>

#include "bpf/load.h"
#include "vmas.skel.h"

#define WHAT "the iterator of mappings"

struct vmas_reader {
	struct vmas_bpf *skeleton;
};

struct vmas_reader *vmas_open(struct fsnap_error *err)
{
	struct vmas_reader *reader = calloc(1, sizeof(*reader));
	if (!reader) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, WHAT);
		return NULL;
	}
	bpf_quiet();
	reader->skeleton = vmas_bpf__open();
	int result = reader->skeleton ? vmas_bpf__load(reader->skeleton) : -errno;
	if (result == 0)
		return reader;
	bpf_refused(err, -result, WHAT);
	vmas_close(reader);
	return NULL;
}

void vmas_close(struct vmas_reader *reader)
{
	if (!reader)
		return;
	vmas_bpf__destroy(reader->skeleton);
	free(reader);
}

uint64_t vmas_sum(struct vmas_reader *reader, pid_t tid)
{
	struct vmas_bpf__bss *shared = reader->skeleton->bss;
	union bpf_iter_link_info info = { .task.tid = (unsigned)tid };
	shared->sum = shared->n = 0;
	return bpf_run(reader->skeleton->progs.sum_vmas, info, WHAT, NULL) < 0 || !shared->n ? 0 : shared->sum;
}
