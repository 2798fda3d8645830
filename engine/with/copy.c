/*
 * copy.c - one entry of a directory tree, with all that belongs to it.
 *
 * Content: shared blocks where both trees are on a file system that can (FICLONE), else extent by extent, so that
 * holes stay holes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "engine/with/with.h"
#include "store/scope.h"

#define CHUNK (1 << 20)

int with_open(int root, const char *path, int flags, mode_t mode)
{
	struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW), .mode = mode,
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };

	return (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
}

int with_parent(int root, const char *path, const char **name)
{
	const char *slash = strrchr(path, '/');
	char directory[4096];

	*name = slash ? slash + 1 : path;
	snprintf(directory, sizeof(directory), "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
	return with_open(root, directory, O_PATH | O_DIRECTORY, 0);
}

/* --- content ------------------------------------------------------------------------- */

static int by_hand(int from, int to, off_t start, off_t length)
{
	cleanup_free char *buffer = malloc(CHUNK);

	for (off_t done = 0; buffer && done < length;) {
		ssize_t n = pread(from, buffer, length - done < CHUNK ? (size_t)(length - done) : CHUNK, start + done);
		ssize_t put = n > 0 ? pwrite(to, buffer, (size_t)n, start + done) : n;
		if (put <= 0)
			return (int)put;
		done += put;
	}
	return buffer ? 0 : -1;
}

static int copy_extent(int from, int to, off_t start, off_t length)
{
	loff_t source = start, target = start;

	while (source < start + length) {
		ssize_t n = copy_file_range(from, &source, to, &target, (size_t)(start + length - source), 0);
		if (n > 0)
			continue;
		/* 0: it became shorter meanwhile. Else two file systems that cannot do it for each other. */
		return n == 0 ? 0 : by_hand(from, to, source, start + length - source);
	}
	return 0;
}

static int copy_content(int from, int to, off_t size)
{
	if (size == 0 || ioctl(to, FICLONE, from) == 0)
		return 0;
	for (off_t at = 0; at < size;) {
		off_t start = lseek(from, at, SEEK_DATA);
		if (start < 0 && errno != ENXIO)
			return -1;
		if (start < 0 || start >= size)
			break; /* ENXIO: a hole up to the end */
		off_t end = lseek(from, start, SEEK_HOLE);
		if (end < 0 || end > size)
			end = size;
		if (copy_extent(from, to, start, end - start) < 0)
			return -1;
		at = end;
	}
	return ftruncate(to, size);
}

/* --- attributes ---------------------------------------------------------------------- */

/* What a file system or a user may not have is left out: SELinux labels, trusted.*. */
static void copy_xattrs(int from, int to)
{
	char names[4096];
	ssize_t n = flistxattr(from, names, sizeof(names));

	for (const char *name = names; n > 0 && name < names + n; name += strlen(name) + 1) {
		cleanup_free char *value = malloc(XATTR_SIZE_MAX);
		ssize_t size = value ? fgetxattr(from, name, value, XATTR_SIZE_MAX) : -1;
		if (size >= 0)
			fsetxattr(to, name, value, (size_t)size, 0);
	}
}

/* The owner first: chown(2) takes set-user-ID bits and capabilities away. */
static void set_owner(struct with_copier *copier, int dir, const char *name, const struct stat *stat)
{
	if (fchownat(dir, name, stat->st_uid, stat->st_gid, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) < 0)
		copier->foreign += stat->st_uid != geteuid();
}

static int set_attributes(struct with_copier *copier, int from, int to, const struct stat *stat)
{
	struct timespec times[2] = { stat->st_atim, stat->st_mtim };

	set_owner(copier, to, "", stat);
	if (fchmod(to, stat->st_mode & 07777) < 0)
		return -1;
	copy_xattrs(from, to);
	return futimens(to, times);
}

/* --- sorts of entries ------------------------------------------------------------------ */

static int copy_file(struct with_copier *copier, int from, int dir, const char *name, const struct stat *stat)
{
	cleanup_fd int to = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (to < 0 || copy_content(from, to, stat->st_size) < 0 || set_attributes(copier, from, to, stat) < 0)
		return -1;
	copier->bytes += (uint64_t)stat->st_size;
	return 0;
}

static int copy_symlink(struct with_copier *copier, int from, const char *from_name, int dir, const char *name,
			const struct stat *stat)
{
	char target[4097];
	struct timespec times[2] = { stat->st_atim, stat->st_mtim };
	ssize_t n = readlinkat(from, from_name, target, sizeof(target) - 1);

	if (n < 0)
		return -1;
	target[n] = '\0';
	if (symlinkat(target, dir, name) < 0)
		return -1;
	set_owner(copier, dir, name, stat);
	return utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW);
}

static int copy_node(struct with_copier *copier, int dir, const char *name, const struct stat *stat)
{
	struct timespec times[2] = { stat->st_atim, stat->st_mtim };

	if (mknodat(dir, name, stat->st_mode, stat->st_rdev) < 0)
		return -1;
	set_owner(copier, dir, name, stat);
	if (fchmodat(dir, name, stat->st_mode & 07777, 0) < 0)
		return -1;
	return utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW);
}

/* --- links ----------------------------------------------------------------------------- */

static const char *link_of(const struct with_copier *copier, const struct stat *stat)
{
	size_t at = stat->st_nlink > 1 && !S_ISDIR(stat->st_mode) ?
			    index_find(&copier->made, stat->st_dev, stat->st_ino) : INDEX_NONE;

	return at == INDEX_NONE ? NULL : copier->links[at];
}

int with_linked(struct with_copier *copier, const struct stat *stat, const char *path, struct fsnap_error *err)
{
	if (stat->st_nlink < 2 || S_ISDIR(stat->st_mode) || link_of(copier, stat))
		return 0;
	char **links = reallocarray(copier->links, copier->n_links + 1, sizeof(*links));
	if (links)
		copier->links = links;
	if (!links || !(links[copier->n_links] = strdup(path)))
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "links of %s", path);
	return index_add(&copier->made, stat->st_dev, stat->st_ino, copier->n_links++, err);
}

static int link_to(const struct with_copier *copier, const char *first, int dir, const char *name)
{
	const char *first_name;
	cleanup_fd int first_dir = with_parent(copier->to, first, &first_name);

	return first_dir < 0 ? -1 : linkat(first_dir, first_name, dir, name, 0);
}

/* --- the whole --------------------------------------------------------------------------- */

static int copy_sort(struct with_copier *copier, const char *from_path, int dir, const char *name,
		     const struct stat *stat)
{
	const char *from_name, *first = link_of(copier, stat);

	if (first)
		return link_to(copier, first, dir, name);
	if (S_ISDIR(stat->st_mode))
		return mkdirat(dir, name, 0700);
	if (S_ISREG(stat->st_mode)) {
		cleanup_fd int from = with_open(copier->from, from_path, O_RDONLY | O_NOCTTY, 0);
		return from < 0 ? -1 : copy_file(copier, from, dir, name, stat);
	}
	cleanup_fd int from_dir = with_parent(copier->from, from_path, &from_name);
	if (from_dir < 0)
		return -1;
	if (S_ISLNK(stat->st_mode))
		return copy_symlink(copier, from_dir, from_name, dir, name, stat);
	return copy_node(copier, dir, name, stat);
}

int with_copy(struct with_copier *copier, const char *from_path, const char *to_path, const struct stat *stat,
	      struct fsnap_error *err)
{
	const char *name;

	if (S_ISSOCK(stat->st_mode))
		return 0;
	cleanup_fd int dir = with_parent(copier->to, to_path, &name);
	if (dir >= 0 && copy_sort(copier, from_path, dir, name, stat) == 0)
		return with_linked(copier, stat, to_path, err);
	int sys = errno;
	if (dir >= 0 && !S_ISDIR(stat->st_mode) && sys != EEXIST)
		unlinkat(dir, name, 0);
	if (sys == ENOENT) /* its end may have come meanwhile, if the world does not stand still */
		return 1;
	fail(err, sys == ENOSPC || sys == EDQUOT ? FSNAP_E_STORE_FULL : FSNAP_E_SYSTEM, sys, "copying %s", from_path);
	return sys == EPERM && (S_ISCHR(stat->st_mode) || S_ISBLK(stat->st_mode)) ?
		       error_hint(err, "only root can copy devices") : -1;
}

int with_directory(struct with_copier *copier, const char *from_path, const char *to_path, const struct stat *stat,
		   struct fsnap_error *err)
{
	cleanup_fd int from = with_open(copier->from, from_path, O_RDONLY | O_DIRECTORY, 0);
	cleanup_fd int to = with_open(copier->to, to_path, O_RDONLY | O_DIRECTORY, 0);

	if (to < 0 || (from >= 0 && set_attributes(copier, from, to, stat) < 0))
		return fail(err, FSNAP_E_SYSTEM, errno, "attributes of directory %s", to_path);
	return 0;
}

void with_copier_free(struct with_copier *copier)
{
	for (size_t i = 0; i < copier->n_links; i++)
		free(copier->links[i]);
	free(copier->links);
	index_free(&copier->made);
}
