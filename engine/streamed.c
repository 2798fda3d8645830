/*
 * streamed.c - a tree that was restored a moment ago, and whose memory is still coming: a dump waits for it.
 *
 * Its mappings are then watched by userfaultfds that the pager holds (restorer/pager.h), and what has not come yet is
 * nowhere but in the image that it comes from.
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/dump.h"
#include "engine/procfs.h"
#include "restorer/pager.h"
#include "store/scope.h"

#define PATIENCE_MS 120000
#define LOOK_MS 100

static bool is_watched(const struct process *process)
{
	return process->userfaults.n_ranges > 0;
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

static void await(struct dump *dump, int pid)
{
	struct pollfd end = { .fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN };
	for (int ms = 0; end.fd >= 0 && ms < PATIENCE_MS && poll(&end, 1, LOOK_MS) == 0; ms += LOOK_MS)
		if (dump->options->progress)
			dump->options->progress(dump->options->progress_arg, "waiting for its memory", 0, 0);
	scope_close(&end.fd);
}

bool streamed_await(struct dump *dump, const struct process *process)
{
	int pid;
	if (!is_watched(process))
		return false;
	cleanup_fd int pager = find_pager(process, &pid);
	if (pager < 0)
		return false; /* somebody else's: kinds/userfaultfd.c */
	await(dump, pid);
	return true;
}
