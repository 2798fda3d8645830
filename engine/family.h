/*
 * family.h - who makes whom, so that every process gets its parent, session and process group.
 *
 * A process is born into the session of the one that forks it, and fork(2) gives it that one as its
 * parent.  Trees are not always grown that way: an orphan lives on below a subreaper, in the session it
 * was born into, which may be that of a process elsewhere in the tree or of one that has ended
 * (every daemon that forks twice).  So, in order of preference (setsid(2), clone(2), prctl(2)):
 *
 *	BIRTH_CHILD	its parent forks it, before or after its own setsid()
 *	BIRTH_SIBLING	the leader of its session, a child of the same parent, makes it with CLONE_PARENT
 *	BIRTH_ORPHAN	the leader of its session forks a helper, which forks it and ends; the parent is
 *			a subreaper meanwhile
 *	BIRTH_STAND_IN	the leader has ended: its parent forks a stand-in with the leader's number, which
 *			begins the session, makes it with CLONE_PARENT, and ends
 *
 * A process group whose leader has ended is begun by a stand-in, too: a child of the first member.
 * The number of a leader that has ended cannot be another's while its session or group has members.
 */
#ifndef ENGINE_FAMILY_H
#define ENGINE_FAMILY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/error.h"

#define KIN_NONE SIZE_MAX

enum birth { BIRTH_CHILD, BIRTH_SIBLING, BIRTH_ORPHAN, BIRTH_STAND_IN };

struct kin {
	/* The caller fills these; parents stand before children. */
	int pid, ppid, pgid, sid, exit_signal;
	bool zombie;
	bool session_lost, group_lost; /* the leader has ended and is nobody's zombie */

	/* family_plan() fills these. */
	size_t parent;	   /* KIN_NONE: the first */
	enum birth birth;
	size_t maker;	   /* who forks it; BIRTH_STAND_IN: which stand-in; KIN_NONE: whoever restores */
	bool before;	   /* BIRTH_CHILD: forked before the maker's setsid() */
	int born_in;	   /* session at birth; 0: that of whoever restores */
	int joins;	   /* process group to join after birth; 0: it is there already */
	bool adopts;	   /* is parent of a BIRTH_ORPHAN */
	size_t first, next; /* those it makes; the next that the same maker makes */
	size_t first_stand_in; /* those whose parent it is */
	size_t first_child, next_child; /* its children; the next of the same parent */
};

struct stand_in {
	int pid;
	bool session;	   /* it begins a session, else a process group */
	size_t parent;	   /* KIN_NONE: it makes the first process */
	size_t first;	   /* those it makes */
	size_t next;	   /* the next of the same parent */
	int exit_signal;
};

struct family {
	struct kin *kin;
	size_t n;
	struct stand_in *stand_ins;
	size_t n_stand_ins;
	uint32_t n_groups;  /* process groups that are begun, by members or stand-ins */
	uint32_t n_joiners; /* members of groups that stand-ins have begun */
	uint32_t n_orphans;
};

/* UNSUPPORTED, naming the process, where there is no way to make the tree. The caller owns kin. */
int family_plan(struct family *family, struct fsnap_error *err);
void family_free(struct family *family);

#endif
