/*
 * remap.h - files that lie elsewhere than they did: --map OLD=NEW.
 *
 * OLD and everything below it becomes NEW and what was below; of several that
 * fit, the longest. A '=' or '\' that belongs to OLD is written as "\=" or "\\".
 */
#ifndef ENGINE_REMAP_H
#define ENGINE_REMAP_H

#include <stdbool.h>
#include <stddef.h>

#include "store/error.h"

struct mapping {
	char *old; /* without a slash at its end; "" is the root */
	const char *new;
};

struct remap {
	struct mapping *list;
	size_t n;
};

/* /a covers /a and /a/b, not /ab; "" and "/" cover every absolute path. */
bool remap_covers(const char *above, const char *path);

/* words: NULL or NULL-ended; they must live as long as the remap. */
int remap_open(struct remap *remap, const char *const *words, struct fsnap_error *err);
void remap_close(struct remap *remap);

/* The path it is now, malloc'ed, where that differs; NULL with no error: as it was. */
char *remap_path(const struct remap *remap, const char *path, struct fsnap_error *err);

/* What path it was that is this one now, malloc'ed; NULL: the same, or there is no memory to say it. */
char *remap_origin(const struct remap *remap, const char *path);

#endif
