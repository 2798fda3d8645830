/*
 * Regular files, directories, and anything opened with O_PATH: reopened by
 * path, or from the ghost that holds what no path leads to any more.
 */
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/vfs.h>

#include "engine/kinds/table.h"

#define MQUEUE_FS 0x19800202 /* linux/ipc/mqueue.c: not in a header */

/* POSIX message queues and some memory of the kernel's look like files in the root directory. */
static bool is_disguised(const struct fd_view *fd)
{
	struct statfs fs;
	if (strchr(fd->link + 1, '/') || fd->dup < 0 || fstatfs(fd->dup, &fs) < 0)
		return false;
	return fs.f_type == MQUEUE_FS || fs.f_type == SECRETMEM_MAGIC || fs.f_type == DMA_BUF_MAGIC;
}

static bool regular_matches(const struct fd_view *fd)
{
	if (fd->link[0] != '/')
		return false;
	if (fd->flags & O_PATH)
		return true;
	return S_ISDIR(fd->stat.st_mode) || (S_ISREG(fd->stat.st_mode) && !is_disguised(fd));
}

static int regular_save(const struct fd_view *fd, image_file *file, void *out,
			struct fsnap_error *err)
{
	image_file_regular *state = out;
	state->directory = S_ISDIR(fd->stat.st_mode);
	/* What it watches for cannot be asked. But F_NOTIFY makes the caller the owner (fs/notify/dnotify.c),
	 * and there is no other use for one. */
	if (state->directory && file->owner)
		return refuse_fd(fd, err, "Many programs can poll for changes instead, or run without "
					  "watching files.",
				 "a directory whose changes are signalled (F_NOTIFY)");
	if (dump_identity(fd->dump, fd->process, fd->dup, fd->link, &state->identity, err) < 0)
		return -1;
	if (state->identity.ghost && (fd->flags & O_TMPFILE) == O_TMPFILE)
		dump_linkable(fd->dump, state->identity.ghost, fd->flags);
	return 0;
}

static int regular_remap(struct restore *restore, void *state, struct fsnap_error *err)
{
	return restore_remap(restore, &((image_file_regular *)state)->identity.path, err);
}

static int regular_make(struct restore *restore, const image_file *file, const void *in,
			struct fsnap_error *err)
{
	const image_file_regular *state = in;
	/* What only says how to create a file, or is set on the open one by the engine. */
	unsigned flags = file->flags & ~(unsigned)(O_CREAT | O_EXCL | O_TRUNC | O_ASYNC);
	/* What once was without a name and has one now. O_TMPFILE contains O_DIRECTORY. */
	if (!state->directory && !(flags & O_PATH) && !state->identity.ghost)
		flags &= ~(unsigned)O_TMPFILE;
	if (S_ISLNK(state->identity.mode))
		flags |= O_NOFOLLOW;
	return restore_open(restore, &state->identity, flags | O_CLOEXEC, err);
}

const struct file_kind kind_regular = {
	.name = "regular",
	.keeps = "path, position, flags, locks, leases; content of deleted files, O_TMPFILE; directories, "
		 "removed ones too; O_PATH",
	.refuses = "leases being broken, dnotify",
	.shown_by = "file_*",
	.xdr = (xdrproc_t)xdr_image_file_regular,
	.matches = regular_matches,
	.save = regular_save,
	.remap = regular_remap,
	.make = regular_make,
};
