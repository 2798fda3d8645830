/*
 * identity.c - by what a file is found again: its path, or content of its own in the image.
 */
#include <string.h>
#include <sys/stat.h>

#include "engine/dump.h"
#include "engine/find_name.h"

#define DELETED " (deleted)"

/* Content that no path leads to is kept in the image. */
static int keep_ghost(struct dump *dump, struct process *process, int fd, const struct stat *stat,
		      bool deleted, image_identity *identity, struct fsnap_error *err)
{
	bool directory = S_ISDIR(stat->st_mode) && deleted;
	if (!S_ISREG(stat->st_mode) && !directory) {
		fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): %s is open but has no name any more",
		     process->pid, process->comm, identity->path);
		return error_hint(err, "only regular files and removed directories can be kept without a name");
	}
	if (!directory && stat->st_nlink)
		dump_note(dump, "%s has other names, which cannot be found: a restore makes a copy of its own",
			  identity->path);
	bool memfd = !directory && strncmp(identity->path, "/memfd:", 7) == 0;
	identity->ghost = ghost_save(dump, fd, directory ? GHOST_DIRECTORY : memfd ? GHOST_MEMFD : GHOST_DELETED,
				     identity->path + memfd, err);
	return identity->ghost ? 0 : error_context(err, "process %d (%s)", process->pid, process->comm);
}

int dump_identity(struct dump *dump, struct process *process, int fd, const char *path,
		  image_identity *identity, struct fsnap_error *err)
{
	struct stat stat;
	if (fstat(fd, &stat) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "process %d (%s): %s", process->pid, process->comm,
			    path);
	identity->dev = stat.st_dev;
	identity->ino = stat.st_ino;
	identity->size = (uint64_t)stat.st_size;
	identity->mtime_ns = stat.st_mtim.tv_sec * 1000000000ll + stat.st_mtim.tv_nsec;
	identity->mode = stat.st_mode;
	bool named = path_leads_to(path, &stat);
	size_t length = strlen(path), mark = strlen(DELETED);
	if (!named && length > mark && strcmp(path + length - mark, DELETED) == 0)
		length -= mark;
	identity->path = strndup(path, length);
	if (!identity->path)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "%s", path);
	bool deleted = length < strlen(path);
	/* A removed directory may count links: those that others had (overlayfs says 1). */
	bool gone = stat.st_nlink == 0 || (S_ISDIR(stat.st_mode) && deleted);
	if (named || (!gone && find_name(dump, fd, &stat, identity)))
		return 0;
	return keep_ghost(dump, process, fd, &stat, deleted, identity, err);
}

void dump_linkable(struct dump *dump, unsigned ghost, unsigned flags)
{
	ghost_linkable(dump, ghost, flags);
}
