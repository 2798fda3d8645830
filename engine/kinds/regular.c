/*
 * Regular files, directories, and anything opened with O_PATH: reopened by
 * path, or from the ghost that holds what no path leads to any more.
 *
 * Locks that belong to the open file description (flock, F_OFD_SETLK) come with
 * it.  Those of fcntl(F_SETLK) belong to a process, which has to take them itself
 * (engine/record_locks.c); leases are a contract with the kernel and refused.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/vfs.h>

#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

#define MQUEUE_FS 0x19800202 /* linux/ipc/mqueue.c: not in a header */

enum { LOCK_KIND_FLOCK = 1, LOCK_KIND_OFD = 2 };

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

/* "1: FLOCK  ADVISORY  WRITE 123 fe:00:1095 0 EOF", the end inclusive: one lock of fdinfo. */
static int save_lock(const struct fd_view *fd, const char *line, image_file_regular *state,
		     struct fsnap_error *err)
{
	char type[16], mode[16], access[16], end[32];
	uint64_t start;
	if (sscanf(line, "%*d: %15s %15s %15s %*d %*s %" SCNu64 " %31s", type, mode, access, &start,
		   end) != 5)
		return refuse_fd(fd, err, "Let the process release the lock first.",
				 "a lock this version cannot read");
	bool flock = !strcmp(type, "FLOCK"), ofd = !strcmp(type, "OFDLCK");
	if (!strcmp(type, "POSIX"))
		return 0; /* the process's: engine/record_locks.c */
	if (!flock && !ofd)
		return refuse_fd(fd, err, "Let the process release the lease first (F_UNLCK).",
				 "a file lease");
	image_lock *lock = append(state->locks, locks);
	if (!lock)
		return no_memory(err);
	lock->kind = flock ? LOCK_KIND_FLOCK : LOCK_KIND_OFD;
	lock->write = !strcmp(access, "WRITE");
	lock->start = start;
	lock->length = strcmp(end, "EOF") ? strtoull(end, NULL, 10) - start + 1 : 0;
	return 0;
}

static int save_locks(const struct fd_view *fd, image_file_regular *state, struct fsnap_error *err)
{
	static const char key[] = "\nlock:\t";
	for (const char *at = strstr(fd->info, key); at; at = strstr(at + 1, key))
		if (save_lock(fd, at + strlen(key), state, err) < 0)
			return -1;
	return 0;
}

static int regular_save(const struct fd_view *fd, image_file *file, void *out,
			struct fsnap_error *err)
{
	(void)file;
	image_file_regular *state = out;
	state->directory = S_ISDIR(fd->stat.st_mode);
	if (state->directory && fd->stat.st_nlink == 0)
		return refuse_fd(fd, err, "Let the process close it or leave it first.",
				 "a directory that was removed");
	if (save_locks(fd, state, err) < 0)
		return -1;
	return dump_identity(fd->dump, fd->process, fd->dup, fd->link, &state->identity, err);
}

static int take_lock(int fd, const image_lock *lock)
{
	if (lock->kind == LOCK_KIND_FLOCK)
		return flock(fd, (lock->write ? LOCK_EX : LOCK_SH) | LOCK_NB);
	struct flock range = {
		.l_type = lock->write ? F_WRLCK : F_RDLCK,
		.l_whence = SEEK_SET,
		.l_start = (off_t)lock->start,
		.l_len = (off_t)lock->length,
	};
	return fcntl(fd, F_OFD_SETLK, &range);
}

static int regular_make(struct restore *restore, const image_file *file, const void *in,
			struct fsnap_error *err)
{
	const image_file_regular *state = in;
	/* What only says how to create a file, or is set on the open one by the engine. */
	unsigned flags = file->flags & ~(unsigned)(O_CREAT | O_EXCL | O_TRUNC | O_ASYNC);
	if (!state->directory && !(flags & O_PATH))
		flags &= ~(unsigned)O_TMPFILE; /* contains O_DIRECTORY */
	if (S_ISLNK(state->identity.mode))
		flags |= O_NOFOLLOW;
	cleanup_fd int fd = restore_open(restore, &state->identity, flags | O_CLOEXEC, err);
	if (fd < 0)
		return -1;
	for (unsigned i = 0; i < state->locks.locks_len; i++) {
		if (!take_lock(fd, &state->locks.locks_val[i]))
			continue;
		fail(err, FSNAP_E_FILE_CHANGED, errno, "the lock on %s cannot be taken again",
		     state->identity.path);
		return error_hint(err, "Somebody else holds it: perhaps the process that was saved "
				       "still runs.");
	}
	return steal_fd(&fd);
}

const struct file_kind kind_regular = {
	.name = "regular",
	.keeps = "path, position, flags, locks; a deleted file's content; directories; O_PATH",
	.refuses = "leases, removed directories",
	.shown_by = "file_*",
	.xdr = (xdrproc_t)xdr_image_file_regular,
	.matches = regular_matches,
	.save = regular_save,
	.make = regular_make,
};
