/*
 * apart.h - work that goes on when the command has ended: in a process of its own, that is nobody's child.
 */
#ifndef ENGINE_HEAT_APART_H
#define ENGINE_HEAT_APART_H

#include <stddef.h>

#include "store/error.h"

/* Of all descriptors it has these n alone, which it sorts. `what` is what errors call it; *pidfd (NULL: not wanted) is
 * the caller's, by which to see its end, or -1. */
int apart_run(void (*work)(void *arg), void *arg, int *fds, size_t n, int *pidfd, const char *what,
	      struct fsnap_error *err);

#endif
