#include "engine/find_name.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/dump.h"
#include "engine/procfs.h"
#include "store/scope.h"

/* Directory entries looked at in one dump, in all: the tree stands still meanwhile. */
#define BUDGET 200000

bool path_leads_to(const char *path, const struct stat *stat)
{
	struct stat there;
	return path[0] == '/' && lstat(path, &there) == 0 && there.st_dev == stat->st_dev &&
	       there.st_ino == stat->st_ino;
}

static bool take_path(image_identity *identity, const char *path)
{
	char *copy = strdup(path);
	if (!copy)
		return false;
	free(identity->path);
	identity->path = copy;
	return true;
}

/* --- by handle --------------------------------------------------------------------- */

/* A descriptor on the file system where the path is or was: the nearest directory above it. */
static int open_above(const char *path)
{
	cleanup_free char *copy = strdup(path);
	int fd = -1;
	for (char *at = copy; at && fd < 0;) {
		at = dirname(at);
		fd = open(at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (strcmp(at, "/") == 0)
			break;
	}
	return fd;
}

int open_handle(const image_identity *identity, int flags)
{
	size_t size = identity->handle.handle_len;
	struct file_handle *handle = malloc(sizeof(*handle) + size);
	cleanup_fd int mount = open_above(identity->path);
	if (!handle || mount < 0) {
		free(handle);
		return -1;
	}
	handle->handle_bytes = (unsigned)size;
	handle->handle_type = identity->handle_type;
	memcpy(handle->f_handle, identity->handle.handle_val, size);
	int fd = open_by_handle_at(mount, handle, flags);
	int sys = errno;
	free(handle);
	errno = sys;
	return fd;
}

static void drop_handle(image_identity *identity)
{
	free(identity->handle.handle_val);
	identity->handle.handle_val = NULL;
	identity->handle.handle_len = 0;
}

static bool note_handle(int fd, const struct stat *stat, image_identity *identity)
{
	union {
		struct file_handle handle;
		char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} u = { .handle.handle_bytes = MAX_HANDLE_SZ };
	int mount_id;
	if (name_to_handle_at(fd, "", &u.handle, &mount_id, AT_EMPTY_PATH) < 0)
		return false;
	identity->handle.handle_val = malloc(u.handle.handle_bytes);
	if (!identity->handle.handle_val)
		return false;
	identity->handle.handle_len = u.handle.handle_bytes;
	identity->handle_type = u.handle.handle_type;
	memcpy(identity->handle.handle_val, u.handle.f_handle, u.handle.handle_bytes);
	/* As a restore would go about it: the file system may be one that nothing is mounted of any more. */
	struct stat there;
	cleanup_fd int again = open_handle(identity, O_PATH | O_CLOEXEC);
	if (again >= 0 && fstat(again, &there) == 0 && there.st_dev == stat->st_dev &&
	    there.st_ino == stat->st_ino)
		return true;
	drop_handle(identity);
	return false;
}

/* --- by name ------------------------------------------------------------------------- */

/* Another link in the directory it was in. */
static bool search_directory(struct dump *dump, const struct stat *stat, image_identity *identity)
{
	cleanup_free char *copy = strdup(identity->path);
	const char *folder = copy ? dirname(copy) : NULL;
	cleanup_dir DIR *dir = folder ? opendir(folder) : NULL;
	char path[IMAGE_NAME];
	for (struct dirent *entry; dir && dump->names_searched < BUDGET && (entry = readdir(dir));) {
		dump->names_searched++;
		if (entry->d_ino != stat->st_ino)
			continue;
		int n = snprintf(path, sizeof(path), "%s/%s", strcmp(folder, "/") ? folder : "", entry->d_name);
		if (n < (int)sizeof(path) && path_leads_to(path, stat))
			return take_path(identity, path);
	}
	return false;
}

/* Another name under which somebody of the tree has it open. */
static bool search_process(struct dump *dump, const struct process *process, const struct stat *stat,
			   image_identity *identity)
{
	size_t n;
	cleanup_free int *fds = procfs_numbers(process->proc, "fd", &n, NULL);
	for (size_t i = 0; fds && i < n && dump->names_searched < BUDGET; i++) {
		char name[32], path[IMAGE_NAME];
		struct stat there;
		dump->names_searched++;
		snprintf(name, sizeof(name), "fd/%d", fds[i]);
		if (fstatat(process->proc, name, &there, 0) < 0 || there.st_ino != stat->st_ino ||
		    there.st_dev != stat->st_dev)
			continue;
		ssize_t length = readlinkat(process->proc, name, path, sizeof(path) - 1);
		path[length > 0 ? length : 0] = '\0';
		if (path_leads_to(path, stat))
			return take_path(identity, path);
	}
	return false;
}

bool find_name(struct dump *dump, int fd, const struct stat *stat, image_identity *identity)
{
	if (!S_ISDIR(stat->st_mode) && search_directory(dump, stat, identity))
		return true;
	if (note_handle(fd, stat, identity))
		return true;
	for (size_t i = 0; i < dump->tree.n_processes; i++)
		if (!dump->tree.processes[i]->image.zombie &&
		    search_process(dump, dump->tree.processes[i], stat, identity))
			return true;
	return false;
}
