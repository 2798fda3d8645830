/*
 * keeper.h - a process that holds what a template holds, and nothing else, and bears the copies.
 *
 * To fork the caller costs what the caller is large, and each copy has to drop that again and to make its own mappings.
 * A keeper has done so once: it is forked from the caller when the template is made, drops what it inherited and,
 * for trees of one process, lays the program's private mappings as the program had them (those about which nothing was
 * said that a fork would lose).  A copy is forked from it, as a child of the caller (CLONE_PARENT), and makes the rest.
 *
 *	the caller	shares its descriptors with it (CLONE_FILES), so that a copy finds what the workshop has made
 *	control memory	is one for all copies, one after the other; the keeper sleeps in it, where no plan lies
 *	its rights, limits, groups are those that the caller had when the template was made
 *
 * Whatever is in its way (namespaces, files that have moved, another session than then, its death), copies are forked
 * from the caller instead, which holds the same memory.
 */
#ifndef ENGINE_KEEPER_H
#define ENGINE_KEEPER_H

#include "engine/model.h"
#include "engine/state/state.h"
#include "restorer/memory.h"

struct restore;
struct fsnap_template;
struct keep;

struct keeper {
	pid_t pid, parent, group, session;
	uid_t uid;
	void *control; /* text, then plans; at its far end struct keep and the keeper's stack */
	size_t size;
	struct inherited self;	  /* what it is, and so the copies at first */
	struct memory_source source;
	bool *built; /* by mapping of the one address space: it is there; NULL: none is */
	struct memory_range *ranges; /* of those, by address */
	size_t n_ranges;
};

/* Never an error: *out stays NULL where there is none. */
void keeper_make(struct restore *restore, struct keeper **out);
void keeper_end(struct keeper *keeper);

/* May this restore's tree come from it? Decided before anything is prepared. */
bool keeper_serves(struct keeper *keeper, const struct restore *restore);
bool keeper_lives(const struct keeper *keeper);
/* Is this file only mapped where the keeper has it already? */
bool keeper_has_mapped(const struct keeper *keeper, const struct model *model, unsigned mapped);

/* In place of agent_spawn(): a PID, or -errno. */
int keeper_bear(struct keeper *keeper, uint32_t task);

#endif
