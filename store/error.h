/*
 * error.h - how fsnap's own code raises errors and hands them upward.
 *
 * fail() at the place that knows the object and the cause; error_context() on
 * the way up, where more is known (which process, which image).  Both return
 * -1 so that `return fail(err, ...)` is the idiom.  The first error wins: what
 * goes wrong while undoing never hides why there was something to undo.
 */
#ifndef STORE_ERROR_H
#define STORE_ERROR_H

#include <errno.h>
#include <stdbool.h>

#include "fsnap/error.h"

/* Sets code, errno (0: none; otherwise its text is appended after ": ") and message. Returns -1. */
int fail(struct fsnap_error *err, int code, int sys, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* What the user can do next; replaces an earlier hint. Returns -1. */
int error_hint(struct fsnap_error *err, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Puts "context: " in front of the message. Returns -1. */
int error_context(struct fsnap_error *err, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* The code for a file the caller has named, and that cannot be opened or made: a name that leads nowhere is his mistake;
 * what else is in the way is the machine's. */
int error_of_name(int sys);

static inline bool error_is_set(const struct fsnap_error *err)
{
	return err && err->code != FSNAP_E_OK;
}

#endif
