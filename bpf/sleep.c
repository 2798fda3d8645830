#include "bpf/sleep.h"

#include <bpf/libbpf.h>
#include <stdlib.h>

#include "bpf/load.h"
#include "sleep.skel.h"

#define WHAT "the iterator of sleeping threads"

BPF_READER(sleep, WHAT)

const struct sleep_block *sleep_blocks(struct sleep_reader *reader, pid_t pid, struct sleep_told *told,
				       struct fsnap_error *err)
{
	struct sleep_bpf__bss *shared = reader->skeleton->bss;
	union bpf_iter_link_info info = { .task.pid = (unsigned)pid };
	shared->told = (struct sleep_told){ .n = 0 };
	int result = bpf_run(reader->skeleton->progs.tell_blocks, info, WHAT, err);
	*told = shared->told;
	return result < 0 ? NULL : shared->blocks;
}
