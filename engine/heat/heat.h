/*
 * heat.h - which pages of which files a tree has use for.
 *
 *	gather.c	the files: of a running tree, or those a dump has met
 *	measure.c	their pages: from the page cache, from page tables, from a watch
 *	leases.c	which files must not be opened
 *	runs.c		what several sources say of one file, made one list
 *	tables.c	what of them is in page tables, where the page cache may not be asked
 *	watch.c		a watch on a tree: where it is kept, what it has seen
 *
 * Nothing but speed depends on any of it: what cannot be found out is left out.
 */
#ifndef ENGINE_HEAT_H
#define ENGINE_HEAT_H

#include <stdbool.h>
#include <sys/types.h>

#include "image.h"
#include "store/error.h"

/* image_heat.source */
enum { HEAT_MINCORE = 1, HEAT_FOLIOS = 2, HEAT_WATCH = 4, HEAT_TABLES = 8 };

/* Files that somebody holds by a write lease: opening one, whatever for, would take it from him. */
struct lease;
struct leases {
	struct lease *first;
	bool all; /* those of the whole system have been read */
	bool unknown; /* some could not be: no memory, no descriptor */
};

struct heat_file {
	image_heat image;
	int fd;	     /* open for reading, -1 once measured */
	size_t room; /* of image.runs */
	bool mapped; /* what is done to it through a mapping is seen by nobody */
	uint8_t *touched; /* a bit a MiB: a watch has seen it; NULL: none has */
	uint64_t mibs;	  /* of the file, room for so many bits */
};

struct heat {
	struct heat_file **files;
	size_t n;
	void *by_inode;	  /* the same, as tsearch(3) keeps them */
	unsigned sources; /* that were there to be asked: HEAT_... */
	struct fsnap_error lack; /* why one was not, if so */
	bool well_watched; /* a watch has gone on for so long that it has seen all that is hot */
	struct leases leases;
};

void leases_add(struct leases *leases, uint64_t ino);
bool leases_known(const struct leases *leases, uint64_t ino); /* by what was added */
bool leases_hold(struct leases *leases, uint64_t ino);	      /* asks the system first: slow */
void leases_free(struct leases *leases);

/* --- gather.c -------------------------------------------------------------------- */

/* The file an identity names, if it is still there and the same: regular, readable. Returns it, also when it
 * was added before; NULL: not to be had. `open`: the tree has it open. Then a write lease on it is the
 * tree's own (nobody else may have it open with one), which the caller has added to heat->leases. */
struct heat_file *heat_add(struct heat *heat, const image_identity *identity, bool open);

/* All that the processes of a running tree have open or mapped. */
int heat_add_tree(struct heat *heat, pid_t root, struct fsnap_error *err);

/* The processes of a running tree, malloc'ed, the root first. */
pid_t *heat_pids(pid_t root, size_t *n, struct fsnap_error *err);

struct heat_file *heat_find(struct heat *heat, uint64_t dev, uint64_t ino);
void heat_free(struct heat *heat);

/* --- measure.c --------------------------------------------------------------------- */

/* What reading flags of folios is worth: bytes in the page cache from which on it is done. */
#define HEAT_WORTH (16ull << 20)

/* Fills the runs of all files from the page cache and, where there is one, the watch on `root`.
 * Loading a BPF program takes longer than saving a small process: `thorough`, or much in the cache, is
 * what it is done for. */
int heat_measure(struct heat *heat, pid_t root, bool thorough, struct fsnap_error *err);

/* --- tables.c ------------------------------------------------------------------------- */

/* What the tree's page tables hold of these files is warm. */
int heat_tables_add(struct heat *heat, pid_t root, struct fsnap_error *err);

/* --- runs.c -------------------------------------------------------------------------- */

/* At most so many of a file are kept; nearby ones are joined before. */
#define HEAT_RUNS 8192

int heat_runs_add(struct heat_file *file, uint64_t page, uint64_t pages, unsigned heat);
/* Sorts them; where they overlap the hottest counts; joins what touches, and what is near if they are many. */
int heat_runs_settle(struct heat_file *file);
uint64_t heat_pages(const image_heat *image, unsigned at_least);

/* --- watch.c -------------------------------------------------------------------------- */

int heat_watch_start(pid_t root, struct fsnap_error *err); /* 1: there is one already */
int heat_watch_end(pid_t root, struct fsnap_error *err);
/* What the watch on `root` has seen; those of touch.h. */
struct touch_key;
struct touch_range;
int heat_watch_read(pid_t root, int (*visit)(void *arg, const struct touch_key *, const struct touch_range *),
		    void *arg, struct fsnap_error *err);
/* Adds what the watch on `root` has seen, if there is one. */
int heat_watch_add(struct heat *heat, pid_t root, struct fsnap_error *err);

#endif
