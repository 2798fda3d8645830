/*
 * limits.h - is there room for copies? Looked at before the first is made: processes, memory, open files, of the user,
 * the machine and the control group.
 */
#ifndef ENGINE_LIMITS_H
#define ENGINE_LIMITS_H

#include "engine/fsnap.h"

/* An error that names the limit, what is left of it, and how to raise it. */
int limits_check(const struct fsnap_restore_options *options, unsigned n, struct fsnap_error *err);

#endif
