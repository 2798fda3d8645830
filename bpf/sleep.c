#include "bpf/sleep.h"

#include <bpf/libbpf.h>
#include <stdlib.h>

#include "bpf/load.h"
#include "sleep.skel.h"

#define WHAT "the iterator of sleeping threads"

struct sleep_reader {
	struct sleep_bpf *skeleton;
};

struct sleep_reader *sleep_open(struct fsnap_error *err)
{
	struct sleep_reader *reader = calloc(1, sizeof(*reader));
	if (!reader) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, WHAT);
		return NULL;
	}
	bpf_quiet();
	reader->skeleton = sleep_bpf__open();
	int result = reader->skeleton ? sleep_bpf__load(reader->skeleton) : -errno;
	if (result == 0)
		return reader;
	bpf_refused(err, -result, WHAT);
	sleep_close(reader);
	return NULL;
}

void sleep_close(struct sleep_reader *reader)
{
	if (!reader)
		return;
	sleep_bpf__destroy(reader->skeleton);
	free(reader);
}

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
