/*
 * with.h - directory trees that are saved at the same instant as the processes (dump --with), and put back.
 *
 *	list.c     what is in a directory tree
 *	copy.c     one entry, from tree to tree
 *	dump.c     copied before the freeze; what has changed since, again during it
 *	differ.c   what of a tree is not as the saved one
 *	restore.c  put back: changed entries only, and undone if the restore fails
 *
 * No link is followed in any of it (openat2(2), RESOLVE_NO_SYMLINKS), and no path leads out of its tree.
 */
#ifndef WITH_WITH_H
#define WITH_WITH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "engine/index.h"
#include "image.h"
#include "store/error.h"

struct dump;
struct restore;

/* --- the steps of a dump and a restore -------------------------------------------------- */

struct with_dump;

/* While the tree runs: opens the directories and copies them. Nothing, where none are wanted. */
int with_begin(struct dump *dump, struct fsnap_error *err);
/* While it stands still, when its mappings are known. */
int with_freeze(struct dump *dump, struct fsnap_error *err);
/* Later: attributes of directories, the record. */
int with_put(struct dump *dump, struct fsnap_error *err);
void with_forget(struct dump *dump);

struct with_restore;

/* --map and, as if they were there, too, those --with OLD=NEW. NULL-ended, to be freed; NULL: no memory. */
const char **with_maps(const char *const *map, const char *const *with);
/* Puts back what the image has. */
int with_restore(struct restore *restore, struct fsnap_error *err);
/* One of these, afterwards: it stays, or all is as it was before. */
void with_keep(struct restore *restore);
void with_undo(struct restore *restore);

/* --- list.c ------------------------------------------------------------------------------ */

struct with_entry {
	char *path; /* from the root of the tree; that itself is "." */
	struct stat stat;
	bool doubtful; /* changed so shortly before it was copied that its time stamps may not tell a later change */
};

struct with_list {
	struct with_entry *entries; /* by path: a directory before what is in it */
	size_t n;
};

/* Names at the top that begin with `skip` are left out. What vanishes while it is read is not in it. */
int with_list_read(int root, const char *skip, struct with_list *list, struct fsnap_error *err);
void with_list_free(struct with_list *list);

/* Walks two lists side by side: the entries of either that are next, NULL where one has none of this path. */
struct with_pair {
	const struct with_entry *left, *right;
};
bool with_next_pair(const struct with_list *left, const struct with_list *right, size_t at[2], struct with_pair *pair);

static inline int64_t with_ns(struct timespec time)
{
	return time.tv_sec * 1000000000ll + time.tv_nsec;
}

/* --- copy.c ------------------------------------------------------------------------------ */

struct with_copier {
	int from, to;
	uint64_t bytes;
	struct index made; /* files with several links: device and inode -> place in `links` */
	char **links;	   /* their first path in `to` */
	size_t n_links;
	unsigned foreign; /* entries whose owner could not be set */
};

/* Opens what is in a tree; mode for O_CREAT. */
int with_open(int root, const char *path, int flags, mode_t mode);
/* The directory a path is in, and its last part. */
int with_parent(int root, const char *path, const char **name);

/* Makes `to_path` like `from_path`, which `stat` is of; it must not exist. Of directories no attributes. 1: there is
 * nothing more to be copied. */
int with_copy(struct with_copier *copier, const char *from_path, const char *to_path, const struct stat *stat,
	      struct fsnap_error *err);
/* From now on, further links to this file are made as links to `path` of the target. */
int with_linked(struct with_copier *copier, const struct stat *stat, const char *path, struct fsnap_error *err);
int with_directory(struct with_copier *copier, const char *from_path, const char *to_path, const struct stat *stat,
		   struct fsnap_error *err);
void with_copier_free(struct with_copier *copier);

/* --- differ.c ---------------------------------------------------------------------------- */

/* Whether two entries, of these directories, are alike. `mapped`: time stamps do not tell, as somebody may have
 * written through a mapping. */
bool with_alike(int left_root, const struct with_entry *left, int right_root, const struct with_entry *right,
		bool mapped);

#endif
