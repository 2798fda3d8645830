#include "engine/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/cgroup.h"
#include "engine/model.h"
#include "engine/procfs.h"
#include "engine/template.h"
#include "store/scope.h"

struct needs { /* of one copy */
	uint64_t tasks, files;
	uint64_t bytes;	 /* all of its memory */
	uint64_t shared; /* of it, what all copies have in common until they write: as far as is known */
};

static uint64_t read_number(const char *path, uint64_t otherwise)
{
	cleanup_free char *text = procfs_read_once(AT_FDCWD, path, NULL, NULL);
	char *end;
	uint64_t value = text ? strtoull(text, &end, 10) : 0;
	return text && end != text ? value : otherwise; /* "max" is no number */
}

static int look_into(const struct fsnap_restore_options *options, struct needs *needs, struct fsnap_error *err)
{
	char directory[PATH_MAX];
	struct model model = { 0 };
	const struct fsnap_template *from = options->from;
	if (!from && !options->store && fsnap_default_store(directory, sizeof(directory), err) < 0)
		return -1;
	struct store *store = from ? NULL : store_open(options->store ? options->store : directory, STORE_READ, err);
	if (store && options->decrypt && store_set_key(store, options->decrypt, err) < 0) {
		store_close(store);
		return -1;
	}
	struct image *image = from ? from->image : store ? image_open(store, options->image, err) : NULL;
	int result = image && model_load(&model, image, err) == 0 ? 0 : -1;
	if (result == 0)
		*needs = (struct needs){ .tasks = model.tree.threads + (options->pid_ns || options->user_ns),
					 .files = model.n_files, .bytes = image_pages(image) * STORE_PAGE };
	if (result == 0)
		needs->shared = from && from->stored < needs->bytes ? from->stored : needs->bytes;
	model_free(&model);
	if (from)
		return result;
	image_close(image);
	store_close(store);
	return result;
}

/* --- control groups ------------------------------------------------------------------------- */

struct group_limit {
	const char *controller; /* of version 1 */
	const char *most[2], *used[2]; /* files: of version 1, of version 2 */
	bool cached; /* what is used contains pages of files, which can be had back */
};

static const struct group_limit group_tasks = { "pids", { "pids.max", "pids.max" }, { "pids.current", "pids.current" }, false };
static const struct group_limit group_memory = { "memory", { "memory.limit_in_bytes", "memory.max" },
						 { "memory.usage_in_bytes", "memory.current" }, true };

static uint64_t read_in(const char *directory, const char *name, uint64_t otherwise)
{
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return read_number(path, otherwise);
}

static uint64_t file_pages(const char *directory)
{
	char path[PATH_MAX];
	uint64_t bytes = 0;
	snprintf(path, sizeof(path), "%s/memory.stat", directory);
	cleanup_free char *text = procfs_read(AT_FDCWD, path, NULL, NULL);
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, "active_file ", 12) == 0 || strncmp(line, "inactive_file ", 14) == 0)
			bytes += strtoull(strchr(line, ' '), NULL, 10);
	}
	return bytes;
}

static uint64_t room_in(const char *directory, const struct group_limit *limit, bool second)
{
	uint64_t most = read_in(directory, limit->most[second], UINT64_MAX), now;
	if (most == UINT64_MAX)
		return most;
	now = read_in(directory, limit->used[second], 0);
	uint64_t cached = limit->cached ? file_pages(directory) : 0;
	now = now > cached ? now - cached : 0;
	return most > now ? most - now : 0;
}

static bool is_about(const char *controllers, const char *controller)
{
	size_t length = strlen(controller);
	for (const char *at = controllers; (at = strstr(at, controller)); at += length)
		if ((at == controllers || at[-1] == ',') && (at[length] == ',' || !at[length]))
			return true;
	return !controllers[0];
}

/* The lowest of what the groups from ours up to the highest that is seen here allow and have left. */
static uint64_t group_room(const struct group_limit *limit)
{
	uint64_t room = UINT64_MAX;
	struct cgroup_mounts mounts;
	cleanup_free char *text = procfs_read_once(AT_FDCWD, "/proc/self/cgroup", NULL, NULL);
	char *cursor = text, *controllers, *path;
	if (!text || cgroup_mounts_read(&mounts, NULL) < 0)
		return room;
	while (cgroup_next(&cursor, &controllers, &path)) {
		if (!is_about(controllers, limit->controller))
			continue;
		for (char *slash; (slash = strrchr(path, '/')); *slash = '\0') {
			cleanup_free char *directory = cgroup_directory(&mounts, controllers, path);
			uint64_t left = directory ? room_in(directory, limit, !controllers[0]) : UINT64_MAX;
			room = left < room ? left : room;
		}
	}
	cgroup_mounts_free(&mounts);
	return room;
}

/* --- each ------------------------------------------------------------------------------------- */

static int too_many(unsigned n, uint64_t wanted, uint64_t room, const char *what, const char *limit, const char *hint,
		    struct fsnap_error *err)
{
	fail(err, FSNAP_E_SYSTEM, EAGAIN, "%u copies need %llu %s, and %s leaves room for %llu", n,
	     (unsigned long long)wanted, what, limit, (unsigned long long)room);
	return error_hint(err, "%s", hint);
}

static uint64_t count_tasks_of_user(void)
{
	size_t n = 0;
	uint64_t tasks = 0;
	cleanup_fd int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_free int *pids = proc >= 0 ? procfs_numbers(proc, ".", &n, NULL) : NULL;
	for (size_t i = 0; pids && i < n; i++) {
		struct stat owner;
		char name[32];
		snprintf(name, sizeof(name), "%d", pids[i]);
		if (fstatat(proc, name, &owner, 0) < 0 || owner.st_uid != getuid())
			continue;
		snprintf(name, sizeof(name), "%d/status", pids[i]);
		cleanup_free char *status = procfs_read_once(proc, name, NULL, NULL);
		long threads = status ? procfs_status_number(status, "Threads") : 0;
		tasks += threads > 0 ? (uint64_t)threads : 0;
	}
	return tasks;
}

static int check_tasks(unsigned n, uint64_t wanted, struct fsnap_error *err)
{
	struct rlimit limit;
	uint64_t most = read_number("/proc/sys/kernel/threads-max", UINT64_MAX);
	uint64_t numbers = read_number("/proc/sys/kernel/pid_max", UINT64_MAX);
	uint64_t room = group_room(&group_tasks);
	if (wanted > room)
		return too_many(n, wanted, room, "tasks", "the control group (pids.max)", "raise pids.max of the group",
				err);
	if (wanted > most || wanted > numbers)
		return too_many(n, wanted, most < numbers ? most : numbers, "tasks",
				most < numbers ? "kernel.threads-max" : "kernel.pid_max",
				"raise it with sysctl, or make fewer copies", err);
	/* Root is not held to it (fork(2), EAGAIN). */
	if (geteuid() == 0 || getrlimit(RLIMIT_NPROC, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
		return 0;
	uint64_t now = count_tasks_of_user();
	room = limit.rlim_cur > now ? limit.rlim_cur - now : 0;
	return wanted <= room ? 0 : too_many(n, wanted, room, "processes and threads", "the limit on processes",
					     "raise it: ulimit -u", err);
}

static int check_memory(unsigned n, uint64_t wanted, struct fsnap_error *err)
{
	cleanup_free char *text = procfs_read_once(AT_FDCWD, "/proc/meminfo", NULL, NULL);
	const char *line = text ? strstr(text, "MemAvailable:") : NULL;
	uint64_t room = line ? strtoull(line + strlen("MemAvailable:"), NULL, 10) * 1024 : UINT64_MAX;
	uint64_t group = group_room(&group_memory);
	if (wanted > group)
		return too_many(n, wanted, group, "bytes of memory", "the control group (memory)",
				"raise its memory.max (version 1: memory.limit_in_bytes), or make fewer copies", err);
	return wanted <= room ? 0 : too_many(n, wanted, room, "bytes of memory", "this machine",
					     "make fewer copies", err);
}

static int check_files(unsigned n, uint64_t wanted, struct fsnap_error *err)
{
	uint64_t most = read_number("/proc/sys/fs/file-max", UINT64_MAX), now = read_number("/proc/sys/fs/file-nr", 0);
	uint64_t room = most > now ? most - now : 0;
	return wanted <= room || geteuid() == 0 ? 0 : too_many(n, wanted, room, "open files", "fs.file-max",
							       "raise it with sysctl", err);
}

/* What the caller is left with. */
static int check_pidfds(unsigned n, struct fsnap_error *err)
{
	struct rlimit limit;
	size_t now = 0;
	cleanup_free int *open = procfs_numbers(AT_FDCWD, "/proc/self/fd", &now, NULL);
	if (!open || getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_max == RLIM_INFINITY)
		return 0;
	uint64_t room = limit.rlim_max > now ? limit.rlim_max - now : 0;
	return n < room ? 0 : too_many(n, n, room, "descriptors (pidfds)", "the limit on open files",
				       "raise it: ulimit -n; or ask for no pidfds", err);
}

/* For copies that write nothing: what they will write, nobody knows. */
int limits_check(const struct fsnap_restore_options *options, unsigned n, struct fsnap_error *err)
{
	struct needs needs;
	if (look_into(options, &needs, err) < 0 || check_tasks(n, n * needs.tasks, err) < 0)
		return -1;
	/* What is not held yet: at least once for all. */
	uint64_t once = options->from ? 0 : needs.bytes;
	if (check_memory(n, once + n * (needs.bytes - needs.shared), err) < 0 || check_files(n, n * needs.files, err) < 0)
		return -1;
	return options->pidfd ? check_pidfds(n, err) : 0;
}
