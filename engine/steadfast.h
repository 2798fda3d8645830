/*
 * steadfast.h - a step that comes to its end even if we are killed in the midst of it.
 */
#ifndef ENGINE_STEADFAST_H
#define ENGINE_STEADFAST_H

#include <fsnap/error.h>

/*
 * Runs step(arg) in a process of its own that shares our memory and our
 * descriptors, in its own session and with all signals blocked; returns what it
 * returned when it is through.  Whoever kills us, or our process group, leaves it
 * to its end.  It is no tracer and no parent of anybody; it may call what makes
 * system calls or allocates, as we sleep meanwhile.  Costs some 60 us.
 */
int steadfast(int (*step)(void *arg), void *arg, struct fsnap_error *err);

#endif
