/*
 * errand.h - a step done in the name of somebody else.
 *
 * The kernel remembers of many things who made them: SO_PEERCRED is the process
 * that called listen(2), connect(2) or socketpair(2).  An errand is a process that
 * shares our memory and descriptors (so what it makes is ours), has a number, user
 * and groups of its own, a root and working directory of its own, and ends when
 * the step is done.
 */
#ifndef ENGINE_ERRAND_H
#define ENGINE_ERRAND_H

#include <stdbool.h>
#include <sys/types.h>

#include "image.h"

struct errand {
	const image_maker *who;	     /* NULL: as ourselves, under any number */
	int root;		     /* a directory that is to be its root, -1: ours */
	void (*work)(void *arg);     /* before `who` is taken on, may be NULL */
	void (*work_as)(void *arg);  /* after it, may be NULL */
	void *arg;
};

/* Runs it and waits. 0: done; 1: done, but under another number (somebody lives under it, or we have
 * no right to choose); -1 with errno: not done. */
int errand_run(const struct errand *errand);

#endif
