/*
 * namespaces.h - a copy in namespaces of its own: its numbers, ports and names are nobody else's.
 *
 * A PID namespace begins with a process 1.  It is a child of the caller's, does the whole restore inside (so all of
 * it sees the numbers of the image, which are free there), and stays: it takes signals for the root, waits for
 * orphans, and ends as the root does; the kernel ends with it whoever is left.  It has a mount namespace, too, with
 * /proc as seen from there.
 *
 * Network and IPC namespaces are the calling thread's for as long as the restore takes.
 */
#ifndef ENGINE_NAMESPACES_H
#define ENGINE_NAMESPACES_H

#include "engine/fsnap.h"

/* What is done inside: a restore. */
typedef int (*restore_fn)(const struct fsnap_restore_options *options, struct fsnap_restore_report *report,
			  struct fsnap_error *err);

int namespaces_restore(const struct fsnap_restore_options *options, restore_fn restore,
		       struct fsnap_restore_report *report, struct fsnap_error *err);

#endif
