#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bpf/load.h"
#include "bpf/touch.h"
#include "store/scope.h"
#include "touch.skel.h"

/* Tables by their names in a pin directory. */
enum { RANGES, NAMES, GATHERS, TABLES };
static const char *const table_names[TABLES] = { "ranges", "names", "gathers" };

/* Programs that are called very often. */
enum { READ, MAP, FAULT, OFTEN };

struct touch_watch {
	struct touch_bpf *skeleton; /* NULL: pinned by somebody else */
	int tables[TABLES];
	int looks[OFTEN]; /* links of these, -1: not on their tracepoints */
};

static struct touch_watch *new_watch(struct fsnap_error *err)
{
	struct touch_watch *watch = malloc(sizeof(*watch));
	if (!watch) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "a watch of the page cache");
		return NULL;
	}
	*watch = (struct touch_watch){ .tables = { -1, -1, -1 }, .looks = { -1, -1, -1 } };
	return watch;
}

void touch_watch_close(struct touch_watch *watch)
{
	if (!watch)
		return;
	touch_watch_look(watch, TOUCH_NOTHING, NULL);
	if (watch->skeleton)
		touch_bpf__destroy(watch->skeleton);
	else
		for (int i = 0; i < TABLES; i++)
			if (watch->tables[i] >= 0)
				close(watch->tables[i]);
	free(watch);
}

/* --- starting ------------------------------------------------------------------------ */

/* Probed by what the kernel says it has, not by its version. */
static bool has_tracepoint(const char *name)
{
	return libbpf_find_vmlinux_btf_id(name, BPF_TRACE_RAW_TP) > 0;
}

static void choose_tracepoints(struct touch_bpf *skeleton)
{
	bool all = has_tracepoint("mm_filemap_get_pages");
	bpf_program__set_autoload(skeleton->progs.note_read, all);
	bpf_program__set_autoload(skeleton->progs.note_map, all);
	bpf_program__set_autoload(skeleton->progs.note_fault, all);
	bpf_program__set_autoattach(skeleton->progs.note_read, false);
	bpf_program__set_autoattach(skeleton->progs.note_map, false);
	bpf_program__set_autoattach(skeleton->progs.note_fault, false);
	bpf_program__set_autoload(skeleton->progs.note_added, !all);
	bpf_program__set_autoload(skeleton->progs.note_activated, !all);
}

/* Per tick of the kernel's clock, which is the resolution of its coarse one. */
static unsigned refill(void)
{
	struct timespec tick = { 0 };
	clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
	uint64_t events = (uint64_t)tick.tv_nsec * TOUCH_RATE / 1000000000;
	return events ? (unsigned)events : 1;
}

static int look_by(struct touch_watch *watch, int which, const struct bpf_program *program, bool look,
		   struct fsnap_error *err)
{
	int *link = &watch->looks[which];
	if (!look && *link >= 0) {
		close(*link);
		*link = -1;
	}
	/* It is not loaded where the kernel has no such tracepoint. */
	int fd = look ? bpf_program__fd(program) : -1;
	if (fd < 0 || *link >= 0)
		return 0;
	*link = bpf_raw_tracepoint_open(NULL, fd);
	return *link < 0 ? bpf_refused(err, errno, "the watch of the page cache") : 0;
}

int touch_watch_look(struct touch_watch *watch, enum touch_look look, struct fsnap_error *err)
{
	if (!watch->skeleton)
		return 0;
	return look_by(watch, READ, watch->skeleton->progs.note_read, look == TOUCH_ALL, err) < 0 ||
			       look_by(watch, MAP, watch->skeleton->progs.note_map, look >= TOUCH_FAULTS, err) < 0 ||
			       look_by(watch, FAULT, watch->skeleton->progs.note_fault, look >= TOUCH_FAULTS, err) < 0 ?
		       -1 : 0;
}

size_t touch_watch_descriptors(const struct touch_watch *watch, int *fds)
{
	const struct touch_bpf *skeleton = watch->skeleton;
	int own[TOUCH_DESCRIPTORS] = { bpf_program__fd(skeleton->progs.note_read),
				       bpf_program__fd(skeleton->progs.note_map),
				       bpf_program__fd(skeleton->progs.note_fault),
				       watch->looks[READ], watch->looks[MAP], watch->looks[FAULT],
				       bpf_map__fd(skeleton->maps.spent) };
	size_t n = 0;
	for (size_t i = 0; i < TOUCH_DESCRIPTORS; i++)
		if (own[i] >= 0)
			fds[n++] = own[i];
	return n;
}

int touch_watch_spent(const struct touch_watch *watch)
{
	return bpf_map__fd(watch->skeleton->maps.spent);
}

static int watch_task(struct touch_bpf *skeleton, pid_t tgid, struct fsnap_error *err)
{
	char nothing[16];
	union bpf_iter_link_info info = { .task.tid = (unsigned)tgid };
	DECLARE_LIBBPF_OPTS(bpf_iter_attach_opts, opts, .link_info = &info, .link_info_len = sizeof(info));
	struct bpf_link *link = bpf_program__attach_iter(skeleton->progs.watch_task, &opts);
	if (!link)
		return errno == ESRCH ? 0 : bpf_refused(err, errno, "the watch of a process");
	int fd = bpf_iter_create(bpf_link__fd(link));
	int result = fd < 0 || read(fd, nothing, sizeof(nothing)) < 0 ?
			     fail(err, FSNAP_E_SYSTEM, errno, "process %d: beginning to watch it", tgid) : 0;
	if (fd >= 0)
		close(fd);
	bpf_link__destroy(link);
	return result;
}

static int start(struct touch_watch *watch, const pid_t *tgids, size_t n, struct fsnap_error *err)
{
	watch->skeleton = touch_bpf__open();
	if (!watch->skeleton)
		return bpf_refused(err, errno, "the watch of the page cache");
	choose_tracepoints(watch->skeleton);
	bpf_program__set_autoattach(watch->skeleton->progs.watch_task, false);
	watch->skeleton->rodata->refill = refill();
	int result = touch_bpf__load(watch->skeleton);
	if (result == 0)
		result = touch_bpf__attach(watch->skeleton);
	if (result < 0)
		return bpf_refused(err, -result, "the watch of the page cache");
	watch->tables[RANGES] = bpf_map__fd(watch->skeleton->maps.ranges);
	watch->tables[NAMES] = bpf_map__fd(watch->skeleton->maps.names);
	watch->tables[GATHERS] = bpf_map__fd(watch->skeleton->maps.gathers);
	for (size_t i = 0; i < n; i++)
		if (watch_task(watch->skeleton, tgids[i], err) < 0)
			return -1;
	return touch_watch_look(watch, TOUCH_ALL, err);
}

struct touch_watch *touch_watch_start(const pid_t *tgids, size_t n, struct fsnap_error *err)
{
	bpf_quiet();
	struct touch_watch *watch = new_watch(err);
	if (watch && start(watch, tgids, n, err) < 0) {
		touch_watch_close(watch);
		return NULL;
	}
	return watch;
}

/* --- pinning ------------------------------------------------------------------------------ */

static int pin_all(struct touch_watch *watch, const char *dir, struct fsnap_error *err)
{
	char path[4096];
	for (int i = 0; i < TABLES; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, table_names[i]);
		if (bpf_obj_pin(watch->tables[i], path) < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "keeping the watch as %s", path);
	}
	const struct bpf_object_skeleton *s = watch->skeleton->skeleton;
	for (int i = 0; i < s->prog_cnt; i++) {
		struct bpf_link *link = *s->progs[i].link;
		snprintf(path, sizeof(path), "%s/%s", dir, s->progs[i].name);
		if (link && bpf_link__pin(link, path) < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "keeping the watch as %s", path);
	}
	return 0;
}

int touch_watch_pin(struct touch_watch *watch, const char *dir, struct fsnap_error *err)
{
	if (mkdir(dir, 0700) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "keeping the watch as %s", dir);
	int result = pin_all(watch, dir, err);
	if (result < 0)
		touch_watch_unpin(dir, NULL);
	return result;
}

int touch_watch_unpin(const char *dir, struct fsnap_error *err)
{
	cleanup_dir DIR *stream = opendir(dir);
	if (!stream)
		return fail(err, FSNAP_E_SYSTEM, errno, "the watch kept as %s", dir);
	for (struct dirent *entry; (entry = readdir(stream));)
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(stream), entry->d_name, 0);
	return rmdir(dir) < 0 ? fail(err, FSNAP_E_SYSTEM, errno, "removing %s", dir) : 0;
}

struct touch_watch *touch_watch_open(const char *dir, struct fsnap_error *err)
{
	char path[4096];
	struct touch_watch *watch = new_watch(err);
	if (!watch)
		return NULL;
	for (int i = 0; i < TABLES; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, table_names[i]);
		watch->tables[i] = bpf_obj_get(path);
		if (watch->tables[i] >= 0)
			continue;
		int sys = errno;
		touch_watch_close(watch);
		if (sys != ENOENT)
			fail(err, FSNAP_E_SYSTEM, sys, "the watch kept as %s", path);
		errno = sys;
		return NULL;
	}
	return watch;
}

/* --- reading --------------------------------------------------------------------------------- */

static int read_table(int table, touch_visit *visit, void *arg, struct fsnap_error *err)
{
	enum { BATCH = 1024 };
	cleanup_free struct touch_key *keys = calloc(BATCH, sizeof(*keys));
	cleanup_free struct touch_range *values = calloc(BATCH, sizeof(*values));
	if (!keys || !values)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "reading a watch");
	uint64_t cursor = 0;
	for (void *in = NULL;; in = &cursor) {
		__u32 count = BATCH;
		int result = bpf_map_lookup_batch(table, in, &cursor, keys, values, &count, NULL);
		if (result < 0 && errno != ENOENT)
			return fail(err, FSNAP_E_SYSTEM, errno, "reading a watch");
		for (__u32 i = 0; i < count; i++) {
			int seen = visit(arg, &keys[i], &values[i]);
			if (seen != 0)
				return seen;
		}
		if (result < 0)
			return 0;
	}
}

/* What the CPUs have in their hands. */
static int read_gathers(int table, touch_visit *visit, void *arg, struct fsnap_error *err)
{
	int cpus = libbpf_num_possible_cpus();
	cleanup_free struct touch_gather *gathers = cpus > 0 ? calloc((size_t)cpus, sizeof(*gathers)) : NULL;
	if (!gathers)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "reading a watch");
	__u32 zero = 0;
	if (bpf_map_lookup_elem(table, &zero, gathers) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "reading a watch");
	for (int i = 0; i < cpus; i++) {
		int result = gathers[i].range.count ? visit(arg, &gathers[i].key, &gathers[i].range) : 0;
		if (result != 0)
			return result;
	}
	return 0;
}

int touch_watch_read(struct touch_watch *watch, touch_visit *visit, void *arg, struct fsnap_error *err)
{
	int result = read_table(watch->tables[RANGES], visit, arg, err);
	return result ? result : read_gathers(watch->tables[GATHERS], visit, arg, err);
}

int touch_watch_path(struct touch_watch *watch, const struct touch_file *file, char *path, size_t size)
{
	cleanup_free struct touch_name *name = malloc(sizeof(*name));
	if (!name || bpf_map_lookup_elem(watch->tables[NAMES], file, name) < 0 ||
	    name->length > sizeof(name->names) || size < name->length + 1u)
		return -1;
	/* The last name is the first directory. */
	size_t at = 0;
	for (const char *end = name->names + name->length; end > name->names;) {
		const char *begin = end - 1;
		while (begin > name->names && begin[-1])
			begin--;
		at += (size_t)snprintf(path + at, size - at, "/%s", begin);
		end = begin;
	}
	return at ? 0 : -1;
}
