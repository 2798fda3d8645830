#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bpf/cache.h"
#include "bpf/load.h"
#include "cache.skel.h"
#include "store/scope.h"

struct cache_reader {
	struct cache_bpf *skeleton;
	struct bpf_link *link;
};

static int load(struct cache_reader *reader, struct fsnap_error *err)
{
	reader->skeleton = cache_bpf__open();
	if (!reader->skeleton)
		return bpf_refused(err, errno, "the page-cache iterator");
	int result = cache_bpf__load(reader->skeleton);
	result = bpf_loaded(result, reader->skeleton->bss);
	if (result < 0)
		return bpf_refused(err, -result, "the page-cache iterator");
	/* An iterator over the descriptors of this very thread. */
	union bpf_iter_link_info info = { .task.tid = (unsigned)syscall(SYS_gettid) };
	DECLARE_LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));
	reader->link = bpf_program__attach_iter(reader->skeleton->progs.read_cache, &opts);
	if (!reader->link)
		return bpf_refused(err, errno, "the page-cache iterator");
	return 0;
}

struct cache_reader *cache_reader_open(struct fsnap_error *err)
{
	struct cache_reader *reader = calloc(1, sizeof(*reader));
	if (!reader) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "the page-cache iterator");
		return NULL;
	}
	bpf_quiet();
	if (load(reader, err) == 0)
		return reader;
	cache_reader_close(reader);
	return NULL;
}

void cache_reader_close(struct cache_reader *reader)
{
	if (!reader)
		return;
	bpf_link__destroy(reader->link);
	cache_bpf__destroy(reader->skeleton);
	free(reader);
}

/* Reading the iterator runs the program; it says nothing through the descriptor itself. */
static int run_iterator(struct cache_reader *reader, struct fsnap_error *err)
{
	char nothing[16];
	cleanup_fd int fd = bpf_iter_create(bpf_link__fd(reader->link));
	if (fd < 0 || read(fd, nothing, sizeof(nothing)) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "reading the page-cache iterator");
	return 0;
}

static int highest(const int *fds, size_t n)
{
	int highest = -1;
	for (size_t i = 0; i < n; i++)
		highest = fds[i] > highest ? fds[i] : highest;
	return highest;
}

/* Which descriptors the program shall stop at. */
static void mark(struct cache_bpf__bss *shared, const int *fds, size_t n, bool wanted)
{
	for (size_t i = 0; i < n; i++)
		shared->file_of[fds[i]] = wanted ? (uint16_t)(i + 1) : 0;
}

static int visit_all(const struct cache_bpf__bss *shared, cache_visit *visit, void *arg)
{
	for (uint32_t i = 0; i < shared->order.n_runs && i < CACHE_RUNS; i++) {
		int result = visit(arg, &shared->runs[i]);
		if (result != 0)
			return result;
	}
	return 0;
}

static int read_marked(struct cache_reader *reader, int last, cache_visit *visit, void *arg,
		       struct fsnap_error *err)
{
	struct cache_bpf__bss *shared = reader->skeleton->bss;
	shared->order = (struct cache_order){ 0 };
	for (;;) {
		struct cache_order before = shared->order;
		shared->order.n_runs = shared->order.nodes = 0;
		if (run_iterator(reader, err) < 0)
			return -1;
		int result = visit_all(shared, visit, arg);
		if (result != 0)
			return result;
		/* The last file is done; or it was closed behind our back, and nothing moves any more. */
		if ((int)shared->order.fd > last ||
		    (shared->order.fd == before.fd && shared->order.page == before.page))
			return 0;
	}
}

int cache_read(struct cache_reader *reader, const int *fds, size_t n, cache_visit *visit, void *arg,
	       struct fsnap_error *err)
{
	int last = highest(fds, n);
	if (n > CACHE_FILES || last >= (int)CACHE_DESCRIPTORS)
		return fail(err, FSNAP_E_USAGE, 0, "%zu files, descriptor %d: more than can be asked at once",
			    n, last);
	mark(reader->skeleton->bss, fds, n, true);
	int result = read_marked(reader, last, visit, arg, err);
	mark(reader->skeleton->bss, fds, n, false);
	return result;
}
