/*
 * shelves.h - a tree may have more open files than one process may: then the
 * workshop puts those it has made on shelves. A shelf is a copy of this process
 * that does nothing but hold descriptors; tasks take theirs from there
 * (pidfd_getfd(2)), and so does the workshop when it needs one again.
 *
 * Nobody may raise the hard limit on open files without CAP_SYS_RESOURCE, but it
 * is a limit for each process.
 */
#ifndef ENGINE_SHELVES_H
#define ENGINE_SHELVES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "restorer/plan.h"

struct restore;

struct shelf {
	pid_t pid;
	int pidfd; /* on the bench */
};

#define SHELF_BORROWED 512 /* more than any one step holds at once (SCM_MAX_FD is 253) */

struct shelves {
	bool needed;
	struct shelf *list;
	size_t n;
	size_t loose, room; /* files made here and not shelved yet; how many there may be */
	unsigned borrowed[SHELF_BORROWED]; /* files taken down for a moment; 0: none */
	size_t next, most;
	unsigned pinned; /* one that must not go meanwhile */
};

/* `fixed`: descriptors on the bench that stay. Says whether shelves are needed. -1: not even then. */
int shelves_plan(struct restore *restore, size_t fixed, struct fsnap_error *err);

/* One more file was made here: shelves those there are when it gets tight. */
int shelves_tidy(struct restore *restore, struct fsnap_error *err);
/* Shelves all of them. */
int shelves_put(struct restore *restore, struct fsnap_error *err);
void shelves_close(struct restore *restore);
/* When tasks have what is theirs: what stayed on a shelf would keep pipes and connections from ending. */
void shelves_retire(struct restore *restore);

/* A descriptor here of a shelved file (image_file.id); the workshop's, for the moment. -1: errno. */
int shelves_borrow(struct restore *restore, unsigned file);

/* Operations by which a task that has none of its descriptors yet, or only some, gets this one. */
void shelves_take(struct restore *restore, uint32_t task, unsigned file, int fd, bool cloexec);

#endif
