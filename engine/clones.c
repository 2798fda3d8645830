/*
 * clones.c - copies side by side: any number of restores of one image, all of them or none.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/fsnap.h"
#include "engine/model.h"
#include "engine/procfs.h"
#include "store/scope.h"


/* --- limits, before anything is made ------------------------------------------------------ */

struct needs {
	uint64_t tasks, bytes, files; /* of one copy */
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
	if (!options->store && fsnap_default_store(directory, sizeof(directory), err) < 0)
		return -1;
	struct store *store = store_open(options->store ? options->store : directory, STORE_READ, err);
	struct image *image = store ? image_open(store, options->image, err) : NULL;
	int result = image && model_load(&model, image, err) == 0 ? 0 : -1;
	if (result == 0)
		*needs = (struct needs){ model.tree.threads + (options->pid_ns || options->user_ns),
					 image_pages(image) * STORE_PAGE, model.n_files };
	model_free(&model);
	image_close(image);
	store_close(store);
	return result;
}

/* The lowest of what the groups from ours up to the root allow and have left. */
static uint64_t group_room(const char *limit, const char *used)
{
	uint64_t room = UINT64_MAX;
	cleanup_free char *text = procfs_read_once(AT_FDCWD, "/proc/self/cgroup", NULL, NULL);
	char *path = text ? strstr(text, "0::/") : NULL, name[PATH_MAX];
	if (!path)
		return room;
	path += 3;
	path[strcspn(path, "\n")] = '\0';
	for (char *slash; (slash = strrchr(path, '/')); *slash = '\0') {
		snprintf(name, sizeof(name), "/sys/fs/cgroup%s/%s", path, limit);
		uint64_t most = read_number(name, UINT64_MAX);
		snprintf(name, sizeof(name), "/sys/fs/cgroup%s/%s", path, used);
		uint64_t now = read_number(name, 0);
		uint64_t left = most == UINT64_MAX ? most : most > now ? most - now : 0;
		room = left < room ? left : room;
	}
	return room;
}

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
	uint64_t room = group_room("pids.max", "pids.current");
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
	uint64_t group = group_room("memory.max", "memory.current");
	if (wanted > group)
		return too_many(n, wanted, group, "bytes of memory", "the control group (memory.max)",
				"raise memory.max, or make fewer copies", err);
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

static int check_limits(const struct fsnap_restore_options *options, unsigned n, struct fsnap_error *err)
{
	struct needs needs;
	if (n == 0)
		return fail(err, FSNAP_E_USAGE, 0, "no copies");
	if (look_into(options, &needs, err) < 0 || check_tasks(n, n * needs.tasks, err) < 0 ||
	    check_memory(n, n * needs.bytes, err) < 0)
		return -1;
	return check_files(n, n * needs.files, err);
}

/* --- "{n}" ---------------------------------------------------------------------------------- */

static char *numbered(const char *text, unsigned number)
{
	char *result = NULL;
	size_t size;
	FILE *out = open_memstream(&result, &size);
	for (const char *at = text; out && *at; at++) {
		if (strncmp(at, "{n}", 3) != 0) {
			fputc(*at, out);
			continue;
		}
		fprintf(out, "%u", number);
		at += 2;
	}
	if (out)
		fclose(out);
	return result;
}

static char **numbered_list(const char *const *words, unsigned number)
{
	size_t n = 0;
	while (words && words[n])
		n++;
	char **list = words ? calloc(n + 1, sizeof(*list)) : NULL;
	for (size_t i = 0; list && i < n; i++)
		list[i] = numbered(words[i], number);
	return list;
}

static void free_list(char **list)
{
	for (size_t i = 0; list && list[i]; i++)
		free(list[i]);
	free(list);
}

static int make_one(const struct fsnap_restore_options *common, unsigned number, struct fsnap_restore_report *report,
		    struct fsnap_error *err)
{
	struct fsnap_restore_options own = *common;
	char **map = numbered_list(own.map, number), **listen = numbered_list(own.listen, number);
	char **env = numbered_list(own.env, number), **with = numbered_list(own.with, number), *cwd = own.cwd ? numbered(own.cwd, number) : NULL;
	own.map = (const char *const *)map;
	own.listen = (const char *const *)listen;
	own.env = (const char *const *)env;
	own.with = (const char *const *)with;
	own.cwd = cwd;
	own.copy = number;
	report->size = sizeof(*report);
	int result = fsnap_restore(&own, report, err);
	free_list(map);
	free_list(listen);
	free_list(env);
	free_list(with);
	free(cwd);
	return result;
}

/* --- all or none -------------------------------------------------------------------------------- */

/* Nobody forks while being stopped; then nobody is left out. */
static void kill_below(pid_t pid)
{
	size_t n_threads = 0, n = 0;
	kill(pid, SIGSTOP);
	cleanup_fd int dir = procfs_open(pid, NULL);
	cleanup_free pid_t *threads = dir >= 0 ? procfs_threads(dir, &n_threads, NULL) : NULL;
	cleanup_free pid_t *children = threads ? procfs_children(dir, threads, n_threads, &n, NULL) : NULL;
	for (size_t i = 0; children && i < n; i++)
		kill_below(children[i]);
	kill(pid, SIGKILL);
}

static void unmake(const struct fsnap_restore_report *reports, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		kill_below(reports[i].pid);
		waitpid(reports[i].pid, NULL, __WALL);
		if (reports[i].pidfd >= 0)
			close(reports[i].pidfd);
	}
}

int fsnap_clones(const struct fsnap_restore_options *options, unsigned n, struct fsnap_restore_report *reports,
		 struct fsnap_error *err)
{
	struct fsnap_restore_options common = { 0 };
	memcpy(&common, options, options->size < sizeof(common) ? options->size : sizeof(common));
	common.size = sizeof(common);
	if (common.pids == FSNAP_PIDS_DEFAULT && !common.pid_ns && !common.user_ns)
		common.pids = FSNAP_PIDS_NEW;
	cleanup_free struct fsnap_restore_report *own = calloc(n + 1, sizeof(*own));
	if (!own)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "%u copies", n);
	if (check_limits(&common, n, err) < 0)
		return -1;
	struct fsnap_template *template = NULL;
	if (!common.from && n > 1 && fsnap_template_open(common.store, common.image, &template, err) < 0)
		return -1;
	if (template)
		common.from = template;
	unsigned first = common.copy ? common.copy : 1;
	int result = 0;
	for (unsigned i = 0; i < n; i++) {
		if (make_one(&common, first + i, &own[i], err) == 0)
			continue;
		unmake(own, i);
		result = error_context(err, "copy %u", first + i);
		break;
	}
	fsnap_template_close(template);
	if (result < 0)
		return -1;
	size_t size = reports ? reports->size : 0;
	for (unsigned i = 0; i < n && reports; i++) {
		struct fsnap_restore_report *to = (struct fsnap_restore_report *)((char *)reports + i * size);
		memcpy(to, &own[i], size < sizeof(own[i]) ? size : sizeof(own[i]));
		to->size = size;
	}
	return 0;
}

int fsnap_spawn(const char *image, const struct fsnap_restore_options *options, struct fsnap_restore_report *report,
		struct fsnap_error *err)
{
	struct fsnap_restore_options own = { 0 };
	struct fsnap_restore_report told = { .size = sizeof(told) };
	if (options)
		memcpy(&own, options, options->size < sizeof(own) ? options->size : sizeof(own));
	own.size = sizeof(own);
	own.image = image;
	own.detach = own.pidfd = 1;
	if (own.pids == FSNAP_PIDS_DEFAULT && !own.pid_ns && !own.user_ns)
		own.pids = FSNAP_PIDS_NEW;
	if (fsnap_restore(&own, &told, err) < 0)
		return -1;
	size_t size = report ? report->size : 0;
	if (report) {
		memcpy(report, &told, size < sizeof(told) ? size : sizeof(told));
		report->size = size;
	}
	return told.pidfd;
}
