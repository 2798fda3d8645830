/*
 * carried.h - descriptors under way: what a message has that waits in a Unix socket (SCM_RIGHTS).
 */
#ifndef ENGINE_KINDS_CARRIED_H
#define ENGINE_KINDS_CARRIED_H

#include "engine/kinds/kinds.h"

/* A socket with a message may itself be under way: the one that a process has. */
const struct fd_view *carrier_outermost(const struct fd_view *carrier);

/* As refuse_file, of what a message has: names the socket that it waits in. */
int refuse_carried(struct dump *dump, const image_file *file, struct fsnap_error *err, const char *hint,
		   const char *what);

/* When all files are saved: refuses what cannot be in a message again. */
int carried_check(struct dump *dump, const image_file *file, const void *state, struct fsnap_error *err);

#endif
