#include "engine/kinds/locks.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>

#include "engine/kinds/values.h"

enum { LOCK_KIND_FLOCK = 1, LOCK_KIND_OFD = 2, LOCK_KIND_LEASE = 3 };

static int lease_is_well(const struct fd_view *fd, const char *state, struct fsnap_error *err)
{
	if (strcmp(state, "ACTIVE") != 0)
		return refuse_fd(fd, err, "Its holder has been asked for it and has a few seconds: dump when it "
					  "has given it up.",
				 "a file lease that is being broken");
	/* Its content can only be read by opening it, and that is what breaks a write lease. */
	if (fd->stat.st_nlink == 0)
		return refuse_fd(fd, err, "Let the process release the lease first (F_UNLCK).",
				 "a lease on a deleted file");
	return 0;
}

/* "1: FLOCK  ADVISORY  WRITE 123 fe:00:1095 0 EOF", the end inclusive: one lock of fdinfo. */
static int save_lock(const struct fd_view *fd, const char *line, image_file *file, struct fsnap_error *err)
{
	char type[16], mode[16], access[16], end[32];
	uint64_t start;
	if (sscanf(line, "%*d: %15s %15s %15s %*d %*s %" SCNu64 " %31s", type, mode, access, &start,
		   end) != 5)
		return refuse_fd(fd, err, "Let the process release the lock first.",
				 "a lock this version cannot read");
	if (!strcmp(type, "POSIX"))
		return 0;
	unsigned kind = !strcmp(type, "FLOCK") ? LOCK_KIND_FLOCK : !strcmp(type, "OFDLCK") ? LOCK_KIND_OFD :
			!strcmp(type, "LEASE") ? LOCK_KIND_LEASE : 0;
	if (!kind)
		return refuse_fd(fd, err, "Only the kernel itself holds such a lock, for a file server: stop "
					  "that first.",
				 "a lock of sort %s", type);
	if (kind == LOCK_KIND_LEASE && lease_is_well(fd, mode, err) < 0)
		return -1;
	image_lock *lock = append(file->locks, locks);
	if (!lock)
		return no_memory(err);
	lock->kind = kind;
	lock->write = !strcmp(access, "WRITE");
	lock->start = start;
	lock->length = strcmp(end, "EOF") ? strtoull(end, NULL, 10) - start + 1 : 0;
	return 0;
}

int locks_save(const struct fd_view *fd, image_file *file, struct fsnap_error *err)
{
	static const char key[] = "\nlock:\t";
	for (const char *at = strstr(fd->info, key); at; at = strstr(at + 1, key))
		if (save_lock(fd, at + strlen(key), file, err) < 0)
			return -1;
	return 0;
}

bool locks_have_lease(const image_file *file)
{
	for (u_int i = 0; i < file->locks.locks_len; i++)
		if (file->locks.locks_val[i].kind == LOCK_KIND_LEASE)
			return true;
	return false;
}

bool locks_write_lease(const image_file *file)
{
	for (u_int i = 0; i < file->locks.locks_len; i++)
		if (file->locks.locks_val[i].kind == LOCK_KIND_LEASE && file->locks.locks_val[i].write)
			return true;
	return false;
}

static int take_lock(int fd, const image_lock *lock)
{
	if (lock->kind == LOCK_KIND_LEASE)
		return 0;
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

int locks_take(const image_file *file, int fd, struct fsnap_error *err)
{
	for (unsigned i = 0; i < file->locks.locks_len; i++) {
		if (take_lock(fd, &file->locks.locks_val[i]) == 0)
			continue;
		fail(err, FSNAP_E_FILE_CHANGED, errno, "the lock on it cannot be taken again");
		return error_hint(err, "Somebody else holds it: perhaps the process that was saved still runs.");
	}
	return 0;
}

void locks_settle(const image_file *file, struct plans *plans, uint32_t task, int fd)
{
	for (unsigned i = 0; i < file->locks.locks_len; i++) {
		const image_lock *lock = &file->locks.locks_val[i];
		if (lock->kind != LOCK_KIND_LEASE)
			continue;
		plan_note(plans, "lease on %s (EAGAIN: others have it open)", file->label);
		plan_call(plans, task, SYS_fcntl, IMM(fd), IMM(F_SETLEASE), IMM(lock->write ? F_WRLCK : F_RDLCK));
	}
}
