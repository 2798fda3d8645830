/*
 * changed.h - files that are not what they were when the image was made, and what
 * the user wants to be done then: --changed refuse|warn|accept.
 */
#ifndef ENGINE_CHANGED_H
#define ENGINE_CHANGED_H

#include <sys/stat.h>

#include "image.h"
#include "store/error.h"

struct restore;

/* A file the program has open, found again. */
int changed_opened(struct restore *restore, const image_identity *identity, const struct stat *now, int fd,
		   struct fsnap_error *err);

/* A file it has mapped, opened here as `fd`. */
int changed_mapped(struct restore *restore, const image_mapped *mapped, int fd, struct fsnap_error *err);

#endif
