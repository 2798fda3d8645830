/*
 * locks.h - locks that belong to an open file description, of whatever kind it is:
 * flock(2), F_OFD_SETLK, leases. Those of fcntl(F_SETLK) belong to a process, which
 * has to take them itself (engine/record_locks.c).
 */
#ifndef ENGINE_KINDS_LOCKS_H
#define ENGINE_KINDS_LOCKS_H

#include "engine/kinds/kinds.h"

/* What fdinfo says of them. */
int locks_save(const struct fd_view *fd, image_file *file, struct fsnap_error *err);

/* Takes them again on the new description; leases are left to locks_settle(). */
int locks_take(const image_file *file, int fd, struct fsnap_error *err);

/* A lease is taken by a process (locks_settle). */
bool locks_have_lease(const image_file *file);

/* Does it hold a lease that opening the file would break? */
bool locks_write_lease(const image_file *file);

/* A lease remembers the number it was taken through and tells it in siginfo (fcntl(2), si_fd), so the
 * process itself must take it. */
void locks_settle(const image_file *file, struct plans *plans, uint32_t task, int fd);

#endif
