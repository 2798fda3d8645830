/*
 * streamed.c - a tree that was restored a moment ago, and whose memory is still coming: a dump waits for it.
 *
 * Its mappings are then watched by userfaultfds that the pager holds (restorer/pager.h), and what has not come yet is
 * nowhere but in the image that it comes from.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/dump.h"
#include "engine/procfs.h"
#include "restorer/pager.h"
#include "store/scope.h"

#define PATIENCE_MS 120000 /* without a sign of work */
#define STOPPED_MS 3000	  /* ... or stopped by a signal */
#define LOOK_MS 100

/* Not by who only wants to know what is written: a chain's tracking, say, before its part in the dump begins. */
static bool is_watched(const struct process *process)
{
	for (u_int i = 0; i < process->userfaults.n_ranges; i++)
		if (process->userfaults.ranges[i].watch.mode & UFFDIO_REGISTER_MODE_MISSING)
			return true;
	return false;
}

/* Does the pager keep a pidfd of one of these? It has one of every process that was restored; a child that was born
 * since is known by its parent. */
static bool serves(int pager, const struct process *process)
{
	cleanup_fd int fdinfo = openat(pager, "fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *dir = fdinfo >= 0 ? fdopendir(fdinfo) : NULL;
	if (!dir)
		return false;
	int at = steal_fd(&fdinfo);
	for (struct dirent *entry; (entry = readdir(dir));) {
		cleanup_free char *text = entry->d_name[0] == '.' ? NULL : procfs_read_once(at, entry->d_name, NULL, NULL);
		const char *line = text ? strstr(text, "\nPid:\t") : NULL;
		int pid = line ? atoi(line + strlen("\nPid:\t")) : 0;
		if (pid > 0 && (pid == process->live || pid == process->ppid))
			return true;
	}
	return false;
}

/* The pager that serves a process: a directory of /proc, and its PID; -1: there is none. */
static int find_pager(const struct process *process, int *pid)
{
	cleanup_dir DIR *proc = opendir("/proc");
	for (struct dirent *entry; proc && (entry = readdir(proc));) {
		*pid = atoi(entry->d_name);
		if (*pid <= 0)
			continue;
		cleanup_fd int dir = procfs_open(*pid, NULL);
		cleanup_free char *comm = dir >= 0 ? procfs_read_once(dir, "comm", NULL, NULL) : NULL;
		if (comm && strcmp(comm, PAGER_NAME "\n") == 0 && serves(dir, process))
			return steal_fd(&dir);
	}
	return -1;
}

/* How far it is; it takes as long as the medium is slow. */
struct pace {
	unsigned long ticks; /* of processor time */
	int idle_ms, stopped_ms; /* for so long it has not worked, or been stopped */
};

static bool is_stuck(int pager, struct pace *pace)
{
	struct procfs_stat stat;
	if (procfs_stat(pager, "stat", &stat, NULL) < 0)
		return false;
	pace->stopped_ms = stat.state == 'T' || stat.state == 't' ? pace->stopped_ms + LOOK_MS : 0;
	pace->idle_ms = stat.ticks == pace->ticks ? pace->idle_ms + LOOK_MS : 0;
	pace->ticks = stat.ticks;
	return pace->stopped_ms >= STOPPED_MS || pace->idle_ms >= PATIENCE_MS;
}

static int await(struct dump *dump, const struct process *process, int pager, int pid, struct fsnap_error *err)
{
	cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd end = { .fd = pidfd, .events = POLLIN };
	struct pace pace = { 0 };
	while (pidfd >= 0 && poll(&end, 1, LOOK_MS) == 0) {
		if (dump->options->progress)
			dump->options->progress(dump->options->progress_arg, "waiting for its memory", 0, 0);
		if (!is_stuck(pager, &pace))
			continue;
		fail(err, FSNAP_E_TARGET_BUSY, 0,
		     "process %d (%s): its memory is still coming from its image, and process %d (" PAGER_NAME "), which "
		     "brings it, %s", process->pid, process->comm, pid,
		     pace.stopped_ms ? "is stopped" : "does not go on");
		return error_hint(err, pace.stopped_ms ? "kill -CONT %d" : "what it waits for: /proc/%d/stack", pid);
	}
	return 1;
}

int streamed_await(struct dump *dump, const struct process *process, struct fsnap_error *err)
{
	int pid;
	if (!is_watched(process))
		return 0;
	cleanup_fd int pager = find_pager(process, &pid);
	if (pager < 0)
		return 0; /* somebody else's: kinds/userfaultfd.c */
	return await(dump, process, pager, pid, err);
}
