/*
 * cgroup.h - which control groups the tree is in, of versions 1 and 2 (cgroups(7)).
 *
 * A dump notes the group of every process and thread in every hierarchy, and what limits these groups
 * have.  A restore leaves the tree in the groups of the restoring process, where anything begins that
 * is started there, unless the user wants it in its own ones: rejoined, or created where they are gone.
 * A group that is frozen is refused: its processes cannot answer.
 */
#ifndef ENGINE_CGROUP_H
#define ENGINE_CGROUP_H

#include <stddef.h>

#include "image.h"
#include "store/error.h"

struct dump;
struct process;
struct restore;

struct cgroup_mount {
	char *controllers; /* as /proc/PID/cgroup calls the hierarchy; "": version 2 */
	char *root;	   /* group that is seen at ... */
	char *point;	   /* ... this path */
};

struct cgroup_mounts {
	struct cgroup_mount *mounts;
	size_t n;
};

int cgroup_mounts_read(struct cgroup_mounts *mounts, struct fsnap_error *err);
void cgroup_mounts_free(struct cgroup_mounts *mounts);
/* Where a group's directory is, malloc'ed; NULL: it cannot be seen here. */
char *cgroup_directory(const struct cgroup_mounts *mounts, const char *controllers, const char *path);
/* Parses a line "N:controllers:path" of /proc/PID/cgroup and moves the cursor behind; 0 at the end. */
int cgroup_next(char **cursor, char **controllers, char **path);

/* --- dump: cgroup_dump.c ----------------------------------------------------------- */

int cgroups_refuse_frozen(struct dump *dump, const struct process *process, struct fsnap_error *err);
/* When the tree runs again: membership changes only from outside. */
int cgroups_collect(struct dump *dump, struct fsnap_error *err);
void cgroups_free(struct dump *dump);

/* --- restore: cgroup_restore.c ------------------------------------------------------- */

/* Opens or makes the groups that the tree wants to be in; the bench is there. */
int cgroups_prepare(struct restore *restore, struct fsnap_error *err);
/* At the very beginning of a process' plan: its memory is charged to its group. bearer: whom it is
 * forked from, NULL: us. */
void cgroups_join(struct restore *restore, const image_process *process, const image_process *bearer, uint32_t task);
/* Threads in groups of their own: when all threads are there. */
int cgroups_place_threads(struct restore *restore, struct fsnap_error *err);
void cgroups_end(struct restore *restore);

#endif
