/*
 * fetch.h - the hints of an image become a list of what to bring into the page cache.
 */
#ifndef ENGINE_HEAT_FETCH_H
#define ENGINE_HEAT_FETCH_H

#include "engine/fsnap.h"
#include "engine/remap.h"
#include "restorer/warm.h"
#include "store/store.h"

struct fetch {
	struct warm_stretch *stretches; /* the hottest first; of one heat by file and place */
	uint64_t *between; /* pages of each that are not wanted, but are read with those around them */
	size_t n;
	uint64_t bytes;
	int *fds;
	size_t n_fds;
	struct warm_progress *progress; /* fetch_start(): shared with who does it */
	bool started;
	int who; /* pidfd; -1: it has ended already */
};

/* Told of each file that is left out, and why. */
typedef void fetch_skipped_fn(void *arg, const char *path, const char *why);

/* remap may be NULL. `opens`: the caller opens whatever the tree had open, and with that breaks leases of
 * others on it in any case: they are not asked for, which takes long. -1: the hints are damaged, or memory
 * is out. */
int fetch_plan(struct fetch *fetch, struct image *image, int which, const struct remap *remap, bool opens,
	       fetch_skipped_fn *skipped, void *arg, struct fsnap_error *err);
void fetch_free(struct fetch *fetch);

/* Is any of it not in the page cache yet? */
bool fetch_needed(const struct fetch *fetch);

/* Has it done by a process of its own, which nobody needs to wait for. */
int fetch_start(struct fetch *fetch, const struct warm_order *order, struct fsnap_error *err);

/* Has it end, and waits for that. */
void fetch_stop(struct fetch *fetch);

/* usage.c: begins to watch the tree, which does not run yet; takes over what the fetch holds. What follows is
 * fsnap_prefetching_stats(). NULL: it may not be watched. */
struct fsnap_prefetching *usage_begin(struct fetch *fetch, pid_t root, struct fsnap_error *err);

#endif
