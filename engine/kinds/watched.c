#include "engine/kinds/watched.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "engine/mounts.h"
#include "store/scope.h"

/* linux/kdev_t.h: MAJOR() and MINOR() inside the kernel. */
static unsigned kernel_major(uint64_t dev)
{
	return (unsigned)(dev >> 20);
}

static unsigned kernel_minor(uint64_t dev)
{
	return (unsigned)(dev & 0xfffff);
}

bool watched_parse(const char *line, struct watched *watched)
{
	const char *ino = strstr(line, "ino:"), *handle = strstr(line, "fhandle-bytes:");
	*watched = (struct watched){.fd = -1};
	if (!ino || sscanf(ino, "ino:%" SCNx64 " sdev:%" SCNx64, &watched->ino, &watched->sdev) != 2)
		return false;
	int at = 0;
	if (!handle || sscanf(handle, "fhandle-bytes:%x fhandle-type:%x f_handle:%n", &watched->handle_bytes,
			      (unsigned *)&watched->handle_type, &at) < 2 || !at)
		return true; /* this file system has none */
	if (watched->handle_bytes > HANDLE_MAX)
		watched->handle_bytes = 0;
	for (unsigned i = 0; i < watched->handle_bytes; i++)
		if (sscanf(handle + at + 2 * i, "%2hhx", &watched->handle[i]) != 1)
			watched->handle_bytes = 0;
	return true;
}

/* --- by handle ---------------------------------------------------------------------- */

/*
 * open_by_handle_at(2) wants a directory of the file system. Opening one could be seen by the very
 * watch that is looked for, and O_PATH is not accepted; but the working directory is. So a
 * child that shares our memory and descriptors, but not our working directory, does it.
 */
struct search {
	const char *mount;
	struct watched *watched;
	size_t n;
	uint64_t sdev;
};

struct handle {
	unsigned bytes;
	int type;
	unsigned char data[HANDLE_MAX];
};

static int open_handles(void *arg)
{
	const struct search *search = arg;
	if (syscall(SYS_chdir, search->mount) < 0)
		syscall(SYS_exit, 0);
	for (size_t i = 0; i < search->n; i++) {
		struct watched *watched = &search->watched[i];
		struct handle handle = {watched->handle_bytes, watched->handle_type, {0}};
		if (watched->sdev != search->sdev || watched->fd >= 0 || !handle.bytes)
			continue;
		for (unsigned j = 0; j < handle.bytes; j++)
			handle.data[j] = watched->handle[j];
		watched->fd = (int)syscall(SYS_open_by_handle_at, AT_FDCWD, &handle,
					   O_PATH | O_NOFOLLOW | O_CLOEXEC);
	}
	syscall(SYS_exit, 0);
	return 0;
}

static void search_mount(struct search *search)
{
	enum { STACK = 65536 };
	cleanup_free char *stack = malloc(STACK);
	if (!stack)
		return;
	pid_t child = clone(open_handles, stack + STACK, CLONE_VM | CLONE_FILES | CLONE_VFORK, search);
	if (child > 0)
		syscall(SYS_wait4, child, NULL, 0x40000000 /* __WALL */, NULL);
}

static bool names_it(int fd)
{
	char path[64], name[4096];
	struct stat found, named;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t length = readlink(path, name, sizeof(name) - 1);
	name[length < 0 ? 0 : length] = '\0';
	if (fstat(fd, &found) < 0)
		return false;
	if (!found.st_nlink)
		return true; /* deleted: nothing names it */
	return lstat(name, &named) == 0 && named.st_ino == found.st_ino && named.st_dev == found.st_dev;
}

/* Another mount of the file system may show what this one does not. */
static void drop_nameless(struct search *search)
{
	for (size_t i = 0; i < search->n; i++) {
		struct watched *watched = &search->watched[i];
		if (watched->sdev != search->sdev || watched->fd < 0 || names_it(watched->fd))
			continue;
		close(watched->fd);
		watched->fd = -1;
	}
}

static bool wanted(const struct watched *watched, size_t n, uint64_t sdev)
{
	for (size_t i = 0; i < n; i++)
		if (watched[i].sdev == sdev && watched[i].fd < 0)
			return true;
	return false;
}

static bool is_it(const struct watched *watched, const struct stat *stat)
{
	return stat->st_ino == watched->ino && major(stat->st_dev) == kernel_major(watched->sdev) &&
	       minor(stat->st_dev) == kernel_minor(watched->sdev);
}

/* Where there are no handles: the roots of mounts, at least. */
static void try_path(const char *path, struct watched *watched, size_t n)
{
	struct stat stat;
	if (lstat(path, &stat) < 0)
		return;
	for (size_t i = 0; i < n; i++)
		if (watched[i].fd < 0 && is_it(&watched[i], &stat))
			watched[i].fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

void watched_open(struct watched *watched, size_t n)
{
	cleanup_free char *text = mounts_read(NULL);
	struct mounts_line mount;
	for (char *cursor = text; mounts_next(&cursor, &mount);) {
		uint64_t sdev = mounts_device(&mount);
		if (!wanted(watched, n, sdev))
			continue;
		try_path(mount.point, watched, n);
		struct search search = {mount.point, watched, n, sdev};
		search_mount(&search);
		drop_nameless(&search);
	}
}

void watched_close(struct watched *watched, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (watched[i].fd >= 0)
			close(watched[i].fd);
}

/* --- by what the process has open ---------------------------------------------------------- */

/* What it watches it often has open, or is in. */
static int open_of_process(const struct process *process, const struct watched *watched)
{
	char name[64];
	const image_process *image = &process->image;
	for (unsigned i = 0; i < image->fds.fds_len + 2; i++) {
		struct stat stat;
		if (i < image->fds.fds_len)
			snprintf(name, sizeof(name), "fd/%d", image->fds.fds_val[i].fd);
		else
			snprintf(name, sizeof(name), "%s", i == image->fds.fds_len ? "cwd" : "root");
		if (fstatat(process->proc, name, &stat, 0) == 0 && is_it(watched, &stat))
			return openat(process->proc, name, O_PATH | O_CLOEXEC);
	}
	return -1;
}

int watched_identity(const struct fd_view *fd, const struct watched *watched, image_identity *identity,
		     struct fsnap_error *err)
{
	cleanup_fd int own = watched->fd < 0 ? open_of_process(fd->process, watched) :
					       fcntl(watched->fd, F_DUPFD_CLOEXEC, 0);
	char path[64], name[4096];
	if (own < 0)
		return refuse_fd(fd, err, "Its file system gives no handles, or fsnap lacks CAP_DAC_READ_SEARCH: "
					  "run it as root, or have the program watch a directory.",
				 "it watches an inode (%" PRIu64 " of device %u:%u) whose path cannot be found",
				 watched->ino, kernel_major(watched->sdev), kernel_minor(watched->sdev));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", own);
	ssize_t length = readlink(path, name, sizeof(name) - 1);
	name[length < 0 ? 0 : length] = '\0';
	return dump_identity(fd->dump, fd->process, own, name, identity, err);
}
