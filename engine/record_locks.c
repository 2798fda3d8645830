#include "engine/record_locks.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/dump.h"

static bool is_known(const image_process *process, const image_record_lock *lock)
{
	for (u_int i = 0; i < process->locks.locks_len; i++) {
		const image_record_lock *known = &process->locks.locks_val[i];
		if (known->dev == lock->dev && known->ino == lock->ino && known->start == lock->start)
			return true;
	}
	return false;
}

static int add_lock(image_process *process, const image_record_lock *lock, struct fsnap_error *err)
{
	if (is_known(process, lock))
		return 0;
	image_record_lock *locks = grow(process->locks.locks_val, process->locks.locks_len, sizeof(*locks), err);
	if (!locks)
		return -1;
	process->locks.locks_val = locks;
	locks[process->locks.locks_len++] = *lock;
	return 0;
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
			continue; /* another kind of lock, which engine/kinds/regular.c reads */
		image_record_lock lock = {
			.fd = fd->fd,
			.write = !strcmp(access, "WRITE"),
			.start = start,
			.length = strcmp(end, "EOF") ? strtoull(end, NULL, 10) - start + 1 : 0,
			.dev = fd->stat.st_dev,
			.ino = fd->stat.st_ino,
		};
		if (add_lock(&fd->process->image, &lock, err) < 0)
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
