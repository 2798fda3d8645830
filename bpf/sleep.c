#include "bpf/sleep.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdlib.h>
#include <unistd.h>

#include "bpf/load.h"
#include "sleep.skel.h"
#include "store/scope.h"

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
	char nothing[16];
	struct sleep_bpf__bss *shared = reader->skeleton->bss;
	union bpf_iter_link_info info = { .task.pid = (unsigned)pid };
	DECLARE_LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));
	shared->told = (struct sleep_told){ .n = 0 };
	struct bpf_link *link = bpf_program__attach_iter(reader->skeleton->progs.tell_blocks, &opts);
	if (!link) {
		bpf_refused(err, errno, WHAT);
		return NULL;
	}
	cleanup_fd int fd = bpf_iter_create(bpf_link__fd(link));
	int result = fd < 0 || read(fd, nothing, sizeof(nothing)) < 0 ? -1 : 0;
	if (result < 0)
		fail(err, FSNAP_E_SYSTEM, errno, WHAT);
	bpf_link__destroy(link);
	*told = shared->told;
	return result < 0 ? NULL : shared->blocks;
}
