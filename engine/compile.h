/*
 * compile.h - what the parts of compile.c share.
 */
#ifndef ENGINE_COMPILE_H
#define ENGINE_COMPILE_H

#include "engine/restore.h"

enum barrier {
	BARRIER_GROUPS,	    /* process groups that have begun */
	BARRIER_JOINED,	    /* members of groups begun by stand-ins */
	BARRIER_ORPHANS,    /* orphans that have come to their parents */
	BARRIER_PRIVILEGES, /* threads that have given up privileges */
	BARRIER_BORN,	    /* processes that are complete */
	BARRIER_FILTERS,    /* leaders that have installed filters for all their threads */
	BARRIER_ARRIVED,    /* late files that are in place with their holders */
	BARRIER_STAGED,	    /* blocks of the image that have come (staging.h) */
};

/* The plan of a process' main thread; its other threads follow. */
static inline uint32_t leader_task(const struct restore *restore, const image_process *process)
{
	return restore->first_task[process - restore->model.processes];
}

/* compile_descriptors.c */
void descriptors_build(struct restore *restore, const image_process *process);
/* When everybody is born: who gets the signals of its descriptors. */
void descriptors_own_signals(struct restore *restore, const image_process *process, uint32_t task);

/* compile_family.c: who is made by whom, told to restore->family and to the first operations of every
 * plan; family_tasks() numbers the tasks that only help, family_helpers() writes their plans. */
int family_prepare(struct restore *restore, struct fsnap_error *err);
/* Whose memory a process is born with: not always its parent's. KIN_NONE: the restoring process'. */
size_t family_bearer(const struct family *family, size_t number);
/* What the processes share; first_task: NULL where there are no tasks yet. */
int family_heirlooms_of(const struct model *model, const struct image *image, const struct family *family,
			const uint32_t *first_task, struct heirlooms **out, struct fsnap_error *err);
/* The same, of a family that is the image's own. */
int family_heirlooms(const struct model *model, const struct image *image, struct heirlooms **out,
		     struct fsnap_error *err);
int family_tasks(struct restore *restore, struct fsnap_error *err);
void family_helpers(struct restore *restore);
/* A process that comes to its parent as an orphan has another one at first. */
void family_await_parent(struct restore *restore, const image_process *process);
/* Children, session, process group. */
int family_build(struct restore *restore, const image_process *process, struct fsnap_error *err);
/* The group that has the terminal of this process' session. While descriptors of the workshop are there. */
void family_foreground(struct restore *restore, const image_process *process);
void family_await_zombies(struct restore *restore, const image_process *process);
/* The exit signals of children that end while the tree is made: bit signo - 1. */
uint64_t family_exit_signals(const struct restore *restore, const image_process *parent);
/* Before anybody becomes, or ceases to be, a subreaper. */
void family_await_orphans(struct restore *restore, const image_process *process);

#endif
