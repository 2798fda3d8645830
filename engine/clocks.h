/*
 * clocks.h - CLOCK_MONOTONIC and CLOCK_BOOTTIME, which programs expect never to go back.
 *
 * In the same boot they are the machine's: the program sees the pause as if it had been stopped.
 * After another boot, on another machine or if the user asks for it, they go on where they stood,
 * in a time namespace of the tree's own (time_namespaces(7)); absolute times that the program has
 * noted are right then.
 */
#ifndef ENGINE_CLOCKS_H
#define ENGINE_CLOCKS_H

#include <stdint.h>

#include "image.h"
#include "store/error.h"

struct dump;
struct process;
struct restore;

/* What a time namespace adds to the machine's clocks, ns. */
struct clock_offsets {
	int64_t monotonic, boottime;
};

struct clock_offsets clocks_own_offsets(void);
char *clocks_boot_id(void); /* malloc'ed; NULL: unknown */

/* A process of the tree is in the time namespace `link`, which need not be ours: the root's will do for all.
 * Children must not get yet another one. */
int clocks_allow(struct dump *dump, const struct process *process, const char *link, const char *ours,
		 struct fsnap_error *err);

/* Into the record of the tree, whose readings so far are ours. */
void clocks_put(const struct dump *dump, image_tree *tree);

/* Decides, and makes the namespace if one is needed: a descriptor in restore->time_namespace. */
int clocks_prepare(struct restore *restore, struct fsnap_error *err);
/* As the first operation of the first task. */
void clocks_enter(struct restore *restore, uint32_t task);

#endif
