/*
 * catalogue.h - the store a command line names, and its images.
 */
#ifndef CLI_CATALOGUE_H
#define CLI_CATALOGUE_H

#include "engine/cli/cli.h"
#include "store/store.h"

struct catalogue {
	char dir[4096];
	struct store *store; /* NULL: the default store, which nobody has written yet */
	struct store_entry *entries; /* newest first */
	size_t count;
};

/* A default store that does not exist is an empty one; a store named with --store must exist. */
int catalogue_open_store(struct catalogue *catalogue, const struct cli *cli, enum store_mode mode,
			 struct fsnap_error *err);
/* The same, and lists its images. */
int catalogue_open(struct catalogue *catalogue, const struct cli *cli, enum store_mode mode,
		   struct fsnap_error *err);
/* The image that the command line names, or the newest; fills *catalogue, which must outlive it. */
struct image *catalogue_open_image(struct catalogue *catalogue, const struct cli *cli, struct fsnap_error *err);
void catalogue_close(struct catalogue *catalogue);
#define cleanup_catalogue __attribute__((cleanup(catalogue_close)))

bool catalogue_holds(const struct catalogue *catalogue, const char *name);

/* IMAGE_MISSING for this store. Returns -1. */
int catalogue_missing(const struct catalogue *catalogue, const char *name,
		      struct fsnap_error *err);

#endif
