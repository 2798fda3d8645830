/*
 * evaded.c - what changes memory past the page tables, so that tracking does not see it, or claims it as tracking does.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/procfs.h"
#include "engine/track/track.h"
#include "store/scope.h"

#define HIDDEN "does not show its descriptors"

int track_refused(const struct process *process, const char *why, struct fsnap_error *err)
{
	return fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s) %s", process->pid, process->comm, why);
}

/* A file, or a block device: both take O_DIRECT. What every program has open is spared the question. */
static bool may_be_direct(const char *link)
{
	return link[0] == '/' && strcmp(link, "/dev/null") != 0 && strncmp(link, "/dev/pts/", 9) != 0;
}

const char *track_evaded_by(const char *link, unsigned long flags)
{
	if (strcmp(link, "anon_inode:[io_uring]") == 0)
		return "has a ring of io_uring, which writes past the page tables";
	return may_be_direct(link) && flags & O_DIRECT ? "reads files past the page cache (O_DIRECT)" : NULL;
}

/* Of a descriptor: does memory change through it unseen, or may it claim memory we registered? */
static const char *what_forbids(const struct process *process, const char *number)
{
	char path[300], link[64];
	snprintf(path, sizeof(path), "fd/%s", number);
	ssize_t n = readlinkat(process->proc, path, link, sizeof(link) - 1);
	if (n <= 0)
		return NULL;
	link[n] = '\0';
	if (strcmp(link, "anon_inode:[userfaultfd]") == 0)
		return "has a userfaultfd of its own";
	snprintf(path, sizeof(path), "fdinfo/%s", number);
	errno = 0;
	cleanup_free char *info = may_be_direct(link) ? procfs_read_once(process->proc, path, NULL, NULL) : NULL;
	if (!info && errno && errno != ENOENT && errno != ESRCH)
		return HIDDEN;
	const char *flags = info ? strstr(info, "flags:") : NULL;
	return track_evaded_by(link, flags ? strtoul(flags + strlen("flags:"), NULL, 8) : 0);
}

static int check_descriptors(const struct process *process, struct fsnap_error *err)
{
	int fd = openat(process->proc, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const char *why = NULL;
	if (!dir) {
		if (fd >= 0)
			close(fd);
		return track_refused(process, HIDDEN, err);
	}
	for (struct dirent *entry; !why && (errno = 0, entry = readdir(dir));)
		if (entry->d_name[0] != '.')
			why = what_forbids(process, entry->d_name);
	if (!why && errno)
		why = HIDDEN;
	closedir(dir);
	return why ? track_refused(process, why, err) : 0;
}

bool track_evaded_in(const image_mm *mm)
{
	for (u_int i = 0; i < mm->vmas.vmas_len; i++)
		if (mm->vmas.vmas_val[i].kind == VMA_AIO || mm->vmas.vmas_val[i].kind == VMA_RING)
			return true;
	return false;
}

int track_refuse(const struct process *process, struct fsnap_error *err)
{
	if (track_evaded_in(&process->mm))
		return track_refused(process, "uses asynchronous I/O, which writes past the page tables", err);
	return check_descriptors(process, err);
}
