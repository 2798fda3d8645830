/*
 * watched.h - finding what a watch of inotify or fanotify is about.  fdinfo names an inode, by number and
 * by file handle; a restore needs a path.
 */
#ifndef ENGINE_KINDS_WATCHED_H
#define ENGINE_KINDS_WATCHED_H

#include "engine/kinds/kinds.h"

enum { HANDLE_MAX = 128 }; /* MAX_HANDLE_SZ */

struct watched { /* one mark, as fdinfo says */
	uint64_t ino;
	uint64_t sdev; /* the kernel's own dev_t: 12 bits major, 20 bits minor */
	int handle_type;
	unsigned handle_bytes;
	unsigned char handle[HANDLE_MAX];
	int fd; /* watched_open(): O_PATH; -1: not to be found */
};

/* Reads "ino:... sdev:... f_handle:..." out of a line. */
bool watched_parse(const char *line, struct watched *watched);

/* Opens all of them. Nothing that is watched is opened for reading: that would be seen. */
void watched_open(struct watched *watched, size_t n);
void watched_close(struct watched *watched, size_t n);

/* The identity of what was opened; refused by name if it was not, or has no name. */
int watched_identity(const struct fd_view *fd, const struct watched *watched, image_identity *identity,
		     struct fsnap_error *err);

#endif
