#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "engine/heat/heat.h"
#include "engine/procfs.h"
#include "store/scope.h"

static int by_inode(const void *a, const void *b)
{
	const image_identity *left = &((const struct heat_file *)a)->image.identity;
	const image_identity *right = &((const struct heat_file *)b)->image.identity;
	if (left->ino != right->ino)
		return left->ino < right->ino ? -1 : 1;
	return left->dev < right->dev ? -1 : left->dev > right->dev;
}

struct heat_file *heat_find(struct heat *heat, uint64_t dev, uint64_t ino)
{
	struct heat_file key = { .image.identity = { .dev = dev, .ino = ino } };
	struct heat_file **found = tfind(&key, &heat->by_inode, by_inode);
	return found ? *found : NULL;
}

static void free_file(struct heat_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	free(file->image.identity.path);
	free(file->image.runs.runs_val);
	free(file->touched);
	free(file);
}

static void keep(void *ignored)
{
	(void)ignored;
}

void heat_free(struct heat *heat)
{
	tdestroy(heat->by_inode, keep);
	for (size_t i = 0; i < heat->n; i++)
		free_file(heat->files[i]);
	free(heat->files);
	leases_free(&heat->leases);
	*heat = (struct heat){ 0 };
}

/* Takes ownership of fd. */
static struct heat_file *new_file(int fd, const struct stat *stat, const char *path)
{
	struct heat_file *file = calloc(1, sizeof(*file));
	if (!file) {
		close(fd);
		return NULL;
	}
	file->fd = fd;
	file->image.identity = (image_identity){
		.path = strdup(path),
		.dev = stat->st_dev,
		.ino = stat->st_ino,
		.size = (uint64_t)stat->st_size,
		.mtime_ns = stat->st_mtim.tv_sec * 1000000000ll + stat->st_mtim.tv_nsec,
		.mode = stat->st_mode,
	};
	ioctl(fd, FS_IOC_GETVERSION, &file->image.generation);
	if (file->image.identity.path)
		return file;
	free_file(file);
	return NULL;
}

static struct heat_file *enter(struct heat *heat, struct heat_file *file)
{
	struct heat_file **files = realloc(heat->files, (heat->n + 1) * sizeof(struct heat_file *));
	if (files)
		heat->files = files;
	if (!files || !tsearch(file, &heat->by_inode, by_inode)) {
		free_file(file);
		return NULL;
	}
	heat->files[heat->n++] = file;
	return file;
}

/* An atime that changes because somebody asked for heat would be odd; O_NOATIME is the owner's to use. */
static int open_quietly(int dir, const char *path)
{
	int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	int fd = openat(dir, path, flags | O_NOATIME);
	return fd >= 0 ? fd : openat(dir, path, flags);
}

/* Its page cache is all there is of it, and comes from no disk. */
static bool is_in_memory(int fd)
{
	struct statfs fs;
	return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* `name` leads to the file, by its path or through /proc; `path` is what it is called. */
static struct heat_file *add_opened(struct heat *heat, int dir, const char *name, const char *path,
				    uint64_t dev, uint64_t ino)
{
	struct stat stat;
	cleanup_fd int fd = open_quietly(dir, name);
	if (fd < 0 || fstat(fd, &stat) < 0 || !S_ISREG(stat.st_mode) || stat.st_size == 0 ||
	    stat.st_dev != dev || stat.st_ino != ino || is_in_memory(fd))
		return NULL;
	struct heat_file *file = new_file(steal_fd(&fd), &stat, path);
	return file ? enter(heat, file) : NULL;
}

struct heat_file *heat_add(struct heat *heat, const image_identity *identity, bool open)
{
	struct heat_file *known = heat_find(heat, identity->dev, identity->ino);
	if (known || !S_ISREG(identity->mode) || identity->ghost)
		return known;
	if (open ? leases_known(&heat->leases, identity->ino) : leases_hold(&heat->leases, identity->ino))
		return NULL;
	return add_opened(heat, AT_FDCWD, identity->path, identity->path, identity->dev, identity->ino);
}

/* --- a running tree ------------------------------------------------------------------ */

static struct heat_file *add_link(struct heat *heat, int proc, const char *name)
{
	char path[4096];
	struct stat stat;
	ssize_t length = readlinkat(proc, name, path, sizeof(path) - 1);
	if (length <= 0 || path[0] != '/' || fstatat(proc, name, &stat, 0) < 0 || !S_ISREG(stat.st_mode))
		return NULL;
	path[length] = '\0';
	struct heat_file *file = heat_find(heat, stat.st_dev, stat.st_ino);
	if (!file && !leases_hold(&heat->leases, stat.st_ino))
		file = add_opened(heat, proc, name, path, stat.st_dev, stat.st_ino);
	if (file)
		file->image.open = 1;
	return file;
}

static void add_descriptors(struct heat *heat, int proc)
{
	size_t n;
	char name[32];
	cleanup_free int *numbers = procfs_numbers(proc, "fd", &n, NULL);
	for (size_t i = 0; numbers && i < n; i++) {
		snprintf(name, sizeof(name), "fd/%d", numbers[i]);
		add_link(heat, proc, name);
	}
}

/* Neighbouring mappings are mostly of one file: it is asked for once. */
static void add_mappings(struct heat *heat, int proc)
{
	cleanup_free char *maps = procfs_read(proc, "maps", NULL, NULL);
	struct procfs_map map;
	unsigned long last = 0;
	char name[64];
	for (char *cursor = maps; cursor && procfs_next_map(&cursor, &map);) {
		if (map.inode == 0 || map.inode == last)
			continue;
		last = map.inode;
		snprintf(name, sizeof(name), "map_files/%lx-%lx", map.start, map.end);
		struct heat_file *file = add_link(heat, proc, name);
		if (file)
			file->mapped = true;
	}
}

static int add_process(struct heat *heat, pid_t pid, struct fsnap_error *err)
{
	size_t n_threads, n;
	cleanup_fd int proc = procfs_open(pid, err);
	if (proc < 0)
		return -1;
	add_descriptors(heat, proc);
	add_mappings(heat, proc);
	cleanup_free pid_t *threads = procfs_threads(proc, &n_threads, err);
	cleanup_free pid_t *children = threads ? procfs_children(proc, threads, n_threads, &n, err) : NULL;
	if (!children)
		return -1;
	for (size_t i = 0; i < n; i++)
		add_process(heat, children[i], NULL); /* who has ended meanwhile has no files */
	return 0;
}

int heat_add_tree(struct heat *heat, pid_t root, struct fsnap_error *err)
{
	return add_process(heat, root, err);
}

pid_t *heat_pids(pid_t root, size_t *n, struct fsnap_error *err)
{
	pid_t *pids = malloc(sizeof(*pids));
	if (!pids) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "the processes of a tree");
		return NULL;
	}
	pids[0] = root;
	*n = 1;
	for (size_t i = 0; i < *n; i++) {
		size_t n_threads, count = 0;
		cleanup_fd int proc = procfs_open(pids[i], NULL);
		cleanup_free pid_t *threads = proc >= 0 ? procfs_threads(proc, &n_threads, NULL) : NULL;
		cleanup_free pid_t *children =
			threads ? procfs_children(proc, threads, n_threads, &count, NULL) : NULL;
		pid_t *more = children ? realloc(pids, (*n + count) * sizeof(*pids)) : NULL;
		if (!more)
			continue;
		pids = more;
		memcpy(pids + *n, children, count * sizeof(*pids));
		*n += count;
	}
	return pids;
}
