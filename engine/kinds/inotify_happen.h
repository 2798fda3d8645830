/*
 * inotify_happen.h - what inotify_queue.c wants of inotify_happen.c: events, made to happen again.
 */
#ifndef ENGINE_KINDS_INOTIFY_HAPPEN_H
#define ENGINE_KINDS_INOTIFY_HAPPEN_H

#include "engine/kinds/inotify.h"

/* For what was watched. */
struct stand_in {
	int wd;
	int fd;	   /* O_PATH; -1: it is no more */
	bool directory;
	bool watched;
};

struct filling {
	const image_file_inotify *state;
	int inotify;
	int place; /* root of a tmpfs of our own */
	struct stand_in *stand_ins;
	size_t n;
	int filler[2]; /* open files */
	int filler_wd[2];
	unsigned filled;
};

/* Watches `fd` under the number `wd`. */
int inotify_watch_fd(int inotify, int fd, int wd, uint32_t mask);

/* Makes events [from, to) of the state happen; their stand-ins go on being watched. */
int inotify_happen(struct filling *filling, unsigned from, unsigned to);

#endif
