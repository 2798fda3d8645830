#include "engine/record_locks.h"

#include <fcntl.h>
#include <inttypes.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/dump.h"

/* Where a lock stands in image_process.locks. */
struct known_lock {
	uint64_t dev, ino, start;
	u_int index;
};

/* Duplicates of the descriptor it was taken through show it as well (fs/locks.c, __show_fd_locks()). */
static int compare_locks(const void *one, const void *other)
{
	const struct known_lock *a = one, *b = other;
	if (a->ino != b->ino)
		return a->ino < b->ino ? -1 : 1;
	if (a->dev != b->dev)
		return a->dev < b->dev ? -1 : 1;
	return (a->start > b->start) - (a->start < b->start);
}

static int add_lock(struct process *process, const image_record_lock *lock, struct fsnap_error *err)
{
	image_process *image = &process->image;
	image_record_lock *locks = grow(image->locks.locks_val, image->locks.locks_len, sizeof(*locks), err);
	struct known_lock *known = locks ? malloc(sizeof(*known)) : NULL;
	if (locks)
		image->locks.locks_val = locks;
	if (known)
		*known = (struct known_lock){ lock->dev, lock->ino, lock->start, image->locks.locks_len };
	if (!known || !tsearch(known, &process->locks_known, compare_locks)) {
		free(known);
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "locks");
	}
	locks[image->locks.locks_len++] = *lock;
	return 0;
}

static int note_lock(const struct fd_view *fd, const image_record_lock *lock, struct fsnap_error *err)
{
	const struct known_lock wanted = { lock->dev, lock->ino, lock->start, 0 };
	struct known_lock **found = tfind(&wanted, &fd->process->locks_known, compare_locks);
	return found ? 0 : add_lock(fd->process, lock, err);
}

/* "1: POSIX  ADVISORY  WRITE 123 fe:00:1095 0 EOF", the end inclusive. */
int record_locks_collect(const struct fd_view *fd, struct fsnap_error *err)
{
	static const char key[] = "\nlock:\t";
	for (const char *at = strstr(fd->info, key); at; at = strstr(at + 1, key)) {
		char access[16], end[32];
		uint64_t start;
		if (sscanf(at + strlen(key), "%*d: POSIX %*s %15s %*d %*s %" SCNu64 " %31s", access, &start,
			   end) != 3)
			continue; /* another kind of lock, which engine/kinds/locks.c reads */
		image_record_lock lock = {
			.fd = fd->fd,
			.write = !strcmp(access, "WRITE"),
			.start = start,
			.length = strcmp(end, "EOF") ? strtoull(end, NULL, 10) - start + 1 : 0,
			.dev = fd->stat.st_dev,
			.ino = fd->stat.st_ino,
		};
		if (note_lock(fd, &lock, err) < 0)
			return -1;
	}
	return 0;
}

void record_locks_rebuild(const image_process *process, struct plans *plans, uint32_t task)
{
	for (u_int i = 0; i < process->locks.locks_len; i++) {
		const image_record_lock *lock = &process->locks.locks_val[i];
		struct flock range = {
			.l_type = lock->write ? F_WRLCK : F_RDLCK,
			.l_whence = SEEK_SET,
			.l_start = (off_t)lock->start,
			.l_len = (off_t)lock->length,
		};
		plan_note(plans, "record lock through descriptor %d (does somebody else hold it now?)", lock->fd);
		plan_call(plans, task, SYS_fcntl, IMM(lock->fd), IMM(F_SETLK),
			  DATA(plans_data(plans, &range, sizeof(range), 8)));
	}
}
