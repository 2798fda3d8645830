/*
 * mounts.h - what is mounted where, as we see it: /proc/self/mountinfo.
 *
 *	cleanup_free char *text = mounts_read(err);
 *	for (char *cursor = text; mounts_next(&cursor, &mount);)
 */
#ifndef ENGINE_MOUNTS_H
#define ENGINE_MOUNTS_H

#include <stdint.h>

#include "store/error.h"

/* One line (proc_pid_mountinfo(5)). The texts point into what was read, without the \ooo that stand there for
 * blanks, tabs, line ends and backslashes. */
struct mounts_line {
	unsigned id;
	unsigned major, minor;	    /* of the file system */
	const char *root, *point;   /* this directory of it is mounted here */
	const char *type;	    /* ext4, cgroup2, ... */
	const char *source;
	const char *super_options; /* those of the file system, separated by commas */
};

/* malloc'ed; NULL: it cannot be read. */
char *mounts_read(struct fsnap_error *err);

/* Changes the text in place. Returns 0 at its end; lines that are no such are passed over. */
int mounts_next(char **cursor, struct mounts_line *line);

/* The number of the file system as the kernel has it inside (fdinfo, BPF): 12 bits major, 20 bits minor. */
uint64_t mounts_device(const struct mounts_line *line);

#endif
