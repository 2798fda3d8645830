/*
 * restore_open.c - files that are opened by their paths: for kinds, for mappings, as working directories.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/changed.h"
#include "engine/find_name.h"
#include "engine/restore.h"
#include "store/scope.h"

int restore_ghost(struct restore *restore, unsigned ghost_id, unsigned flags, struct fsnap_error *err)
{
	if (ghost_make(restore, ghost_id, err) < 0)
		return -1;
	if (restore->explaining)
		return open("/", O_PATH | O_CLOEXEC); /* workshop_keep() makes it a number */
	if ((flags & O_TMPFILE) == O_TMPFILE && restore->linkable_fd[ghost_id] >= 0)
		return steal_fd(&restore->linkable_fd[ghost_id]); /* the only one that has these flags */
	if (model_ghost(&restore->model, ghost_id)->kind != GHOST_DIRECTORY)
		flags &= ~(unsigned)O_TMPFILE;
	const struct workshop_place *place = &restore->ghost_place[ghost_id];
	char path[48];
	if (place->shelf)
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", restore->shelves.list[place->shelf - 1].pid,
			 place->number);
	else
		snprintf(path, sizeof(path), "/proc/self/fd/%d", restore->ghost_fd[ghost_id]);
	int fd = open(path, (int)((flags & ~(unsigned)(O_CREAT | O_EXCL | O_TRUNC | O_NOFOLLOW)) | O_CLOEXEC));
	if (fd < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "opening the content of a deleted file");
	return fd;
}

/* By the name that the image has: who said --map wants it said otherwise. */
static int say_where(const struct restore *restore, const char *path, const char *put_it, struct fsnap_error *err)
{
	int sys = errno;
	cleanup_free char *origin = remap_origin(&restore->remap, path);
	errno = sys;
	if (origin)
		return error_hint(err, "--map put %s there: say where it is now, --map %s=NEW", origin, origin);
	return error_hint(err, "%s, or say where it is now: --map %s=NEW", put_it, path);
}

static int cannot_open(const struct restore *restore, const image_identity *identity, struct fsnap_error *err)
{
	if (identity->handle.handle_len && (errno == ESTALE || errno == ENOENT)) {
		fail(err, FSNAP_E_FILE_MISSING, 0, "the file that was %s, and had other names, is not there any more",
		     identity->path);
		return error_hint(err, "hand another one in: --fd N=M");
	}
	if (errno == ENOENT || errno == ENOTDIR) {
		fail(err, FSNAP_E_FILE_MISSING, 0, "%s is not there any more", identity->path);
		return say_where(restore, identity->path, "put it back where it was", err);
	}
	if (errno == EISDIR) {
		fail(err, FSNAP_E_FILE_CHANGED, errno, "%s is not the file it was", identity->path);
		return say_where(restore, identity->path, "put it back", err);
	}
	fail(err, FSNAP_E_SYSTEM, errno, "cannot open %s", identity->path);
	return error_hint(err, "restore as a user who may open it, or hand it in: --fd");
}

static int check_type(const struct restore *restore, const image_identity *identity, const struct stat *stat,
		      struct fsnap_error *err)
{
	if ((stat->st_mode & S_IFMT) != (identity->mode & S_IFMT)) {
		fail(err, FSNAP_E_FILE_CHANGED, 0, "%s is another kind of file than it was", identity->path);
		return error_hint(err, "put the original back, or say with --map where it is now");
	}
	return S_ISCHR(stat->st_mode) || S_ISBLK(stat->st_mode) ?
		       policy_check_device(&restore->policy, identity->path, stat->st_rdev, err) : 0;
}

/* Opens what the path leads to now, if that is a file of the same type: some devices take being opened for an order, and
 * FIFOs may make us wait for ever. What came by a handle, or by a name that has just been changed, is looked at once more. */
static int open_path(const struct restore *restore, const image_identity *identity, unsigned flags, struct stat *stat,
		     struct fsnap_error *err)
{
	flags &= ~(unsigned)(O_CREAT | O_EXCL | O_TRUNC);
	int how = (int)(flags | O_CLOEXEC | O_NOCTTY);
	bool by_handle = identity->handle.handle_len;
	if (!by_handle && fstatat(AT_FDCWD, identity->path, stat, flags & O_NOFOLLOW ? AT_SYMLINK_NOFOLLOW : 0) == 0 &&
	    check_type(restore, identity, stat, err) < 0)
		return -1;
	cleanup_fd int fd = by_handle ? open_handle(identity, how) : open(identity->path, how);
	if (fd < 0 || fstat(fd, stat) < 0)
		return cannot_open(restore, identity, err);
	if (check_type(restore, identity, stat, err) < 0 || policy_check_open(&restore->policy, fd, err) < 0)
		return -1;
	return steal_fd(&fd);
}

int restore_open(struct restore *restore, const image_identity *identity, unsigned flags,
		 struct fsnap_error *err)
{
	struct stat stat;
	if (identity->ghost)
		return restore_ghost(restore, identity->ghost, flags, err);
	cleanup_fd int fd = open_path(restore, identity, flags, &stat, err);
	if (fd < 0 || changed_opened(restore, identity, &stat, fd, err) < 0)
		return -1;
	return steal_fd(&fd);
}

int restore_remap(struct restore *restore, char **path, struct fsnap_error *err)
{
	char *now = remap_path(&restore->remap, *path, err);
	if (!now && error_is_set(err))
		return -1;
	if (now) {
		free(*path);
		*path = now;
	}
	return policy_check_path(&restore->policy, *path, err);
}

int restore_may_use(struct restore *restore, const char *path, struct fsnap_error *err)
{
	return policy_check_path(&restore->policy, path, err);
}

/* --- mapped files ------------------------------------------------------------------------ */

static int open_once(struct restore *restore, const image_mapped *mapped, unsigned flags, struct fsnap_error *err)
{
	struct stat stat;
	int fd = mapped->identity.ghost ? restore_ghost(restore, mapped->identity.ghost, flags, err) :
					  open_path(restore, &mapped->identity, flags, &stat, err);
	return fd < 0 ? -1 : workshop_keep(restore, fd, err);
}

/* Twice where it must be: what was mapped through a descriptor that could only read cannot be made writable. */
int mapped_reopen(struct restore *restore, const image_mapped *mapped, struct fsnap_error *err)
{
	int fd = restore->mapped_fd[mapped->id] = open_once(restore, mapped, O_RDONLY, err);
	if (fd < 0 || changed_mapped(restore, mapped, fd, err) < 0)
		return -1;
	if (!mapped->writable)
		return 0;
	/* Opening for writing is noticed by others. */
	fd = open_once(restore, mapped, restore->explaining ? O_PATH : O_RDWR, err);
	restore->mapped_write_fd[mapped->id] = fd;
	return fd < 0 ? -1 : 0;
}

/* --- working and root directories --------------------------------------------------- */

static bool is_same(const image_identity *a, const image_identity *b)
{
	return !a->ghost && !b->ghost && a->dev == b->dev && a->ino == b->ino && strcmp(a->path, b->path) == 0;
}

/* Tasks are born with all of these: who works where the one before does has the same (close_all() in workshop.c). */
int directories_open(struct restore *restore, struct fsnap_error *err)
{
	const image_process *before = NULL;
	for (size_t i = 0; i < restore->model.n_processes; i++) {
		const image_process *process = &restore->model.processes[i];
		if (process->zombie)
			continue;
		bool same = before && is_same(&process->cwd, &before->cwd);
		int fd = same ? restore->cwd_fd[before - restore->model.processes] :
				restore_open(restore, &process->cwd, O_PATH | O_DIRECTORY, err);
		before = process;
		restore->cwd_fd[i] = same ? fd : -1;
		if (fd < 0 || (!same && (restore->cwd_fd[i] = workshop_keep(restore, fd, err)) < 0))
			return error_context(err, "process %d: working directory", process->pid);
		if (strcmp(process->root.path, "/") == 0)
			continue;
		fd = restore_open(restore, &process->root, O_PATH | O_DIRECTORY, err);
		if (fd < 0 || (restore->root_fd[i] = workshop_keep(restore, fd, err)) < 0)
			return error_context(err, "process %d: root directory", process->pid);
	}
	return 0;
}
