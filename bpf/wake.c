#include "bpf/wake.h"

#include <bpf/libbpf.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "bpf/load.h"
#include "wake.skel.h"

#define WHAT "the watch on sleeping threads"

struct wake_reader {
	struct wake_bpf *skeleton;
	int64_t offset;
};

static int64_t monotonic(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Late rather than early: who was told to wait for some time is never woken before. */
static int name_tracer(struct wake_reader *reader, struct fsnap_error *err)
{
	union bpf_iter_link_info info = { .task.pid = (unsigned)getpid() };
	int result = bpf_run(reader->skeleton->progs.name_tracer, info, WHAT, err);
	reader->offset = monotonic() - reader->skeleton->bss->told.monotonic;
	return result;
}

struct wake_reader *wake_open(struct fsnap_error *err)
{
	struct wake_reader *reader = calloc(1, sizeof(*reader));
	if (!reader) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, WHAT);
		return NULL;
	}
	bpf_quiet();
	reader->skeleton = wake_bpf__open();
	int result = reader->skeleton ? 0 : -errno;
	if (result == 0) {
		bpf_program__set_autoattach(reader->skeleton->progs.name_tracer, false);
		result = wake_bpf__load(reader->skeleton);
		result = bpf_loaded(result, reader->skeleton->bss);
	}
	if (result == 0 && name_tracer(reader, err) == 0)
		result = wake_bpf__attach(reader->skeleton);
	if (result == 0 && reader->skeleton->bss->told.tracer)
		return reader;
	if (result < 0)
		bpf_refused(err, -result, WHAT);
	wake_close(reader);
	return NULL;
}

void wake_close(struct wake_reader *reader)
{
	if (!reader)
		return;
	wake_bpf__destroy(reader->skeleton);
	free(reader);
}

void wake_forget(struct wake_reader *reader)
{
	__atomic_store_n(&reader->skeleton->bss->told.n, 0, __ATOMIC_RELEASE);
}

const struct wake_limit *wake_limits(const struct wake_reader *reader, size_t *n)
{
	const struct wake_bpf__bss *shared = reader->skeleton->bss;
	*n = shared->told.n < WAKE_THREADS ? shared->told.n : WAKE_THREADS;
	return shared->limits;
}

int64_t wake_clock_offset(const struct wake_reader *reader)
{
	return reader->offset;
}
