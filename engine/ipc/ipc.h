/*
 * ipc.h - System V objects of a tree: shared memory, semaphore sets, message queues.
 *
 * They belong to no process: the kernel keeps them until somebody removes them.  Which
 * of those in the tree's IPC namespace go with it, and what becomes of one that is still
 * there at a restore, is said in README.md.
 *
 * Dump:	maps.c finds attached segments
 *		ipc_look	before anybody is asked: which semaphore sets there are
 *		ipc_ask, _answer	each process: has it something to be undone in one of them?
 *		ipc_list	while agents run: what nobody has attached
 *		ipc_collect	the rest; records.c writes dump->ipc
 * Restore:	ipc_make	before any task exists: every object has its number, sets and queues
 *				their content
 *		[plans attach segments]
 *		ipc_rebuild	each process: what is to be undone when it ends
 *		ipc_sign	each process, when all have done that: it was the last at some semaphores
 *		ipc_fill	every task is ready to run: content of segments
 *		(what ipc_make makes is taken back if the restore fails: engine/takeback.h)
 */
#ifndef ENGINE_IPC_H
#define ENGINE_IPC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/ipc.h>
#include <sys/types.h>

#include "engine/procfs.h"
#include "image.h"
#include "restorer/plan.h"
#include "store/error.h"

struct dump;
struct restore;
struct process;
struct other_kind;

extern const struct other_kind kind_sysv_shm, kind_sysv_sem, kind_sysv_msg;

/* --- dump ------------------------------------------------------------------------- */

/* Is this the name of an attached segment? */
bool ipc_is_segment(const struct procfs_map *map);

/* Notes the segment that `map` is attached to, once; `fd` is any way to open its file. Returns the id of
 * its content (image_ghost), 0 with *err set. */
unsigned ipc_shm_mapped(struct dump *dump, const struct process *process,
			const struct procfs_map *map, int fd, struct fsnap_error *err);
/* The same for one that is known already: 0 if it is not. */
unsigned ipc_shm_known(const struct dump *dump, const struct procfs_map *map);

int ipc_look(struct dump *dump, struct fsnap_error *err);
/* Adds to the plan of the process' leader; gives the slot that ipc_answer() looks at first. */
uint32_t ipc_ask(const struct dump *dump, struct plans *plans, uint32_t task);
int ipc_answer(struct dump *dump, struct process *process, const struct plans *plans,
	       struct ctl *ctl, uint32_t slot, struct fsnap_error *err);

/* When all mappings are known, those that belong to the tree besides; it may be done while agents run. */
int ipc_list(struct dump *dump, struct fsnap_error *err);
/* When all processes were collected: facts about what is attached, and what belongs to the tree besides. */
int ipc_collect(struct dump *dump, struct fsnap_error *err);

/* Is there anything to be kept? */
bool ipc_any(const image_ipc *ipc);

/* --- restore ------------------------------------------------------------------------- */

int ipc_make(struct restore *restore, struct fsnap_error *err);
void ipc_rebuild(const struct restore *restore, const image_process *process, uint32_t task);
void ipc_sign(const struct restore *restore, const image_process *process, uint32_t task);
int ipc_fill(struct restore *restore, struct fsnap_error *err);
void ipc_free(struct restore *restore);

/* --- each sort of object: shm.c -------------------------------------------------------- */

int shm_list(struct dump *dump, struct fsnap_error *err);
int shm_collect(struct dump *dump, struct fsnap_error *err);
int shm_make_all(struct restore *restore, struct fsnap_error *err);
int shm_fill_all(struct restore *restore, struct fsnap_error *err);
void shm_free_all(struct restore *restore);

/* --- sem.c, sem_undo.c, msg.c ---------------------------------------------------------- */

struct sem_known { /* a set in the IPC namespace, as ipc_look() found it */
	int id;
	unsigned nsems;
	unsigned short *values;
};

struct sem_search { /* a semaphore of which a process has something to be undone, and how much */
	struct process *process;
	const struct sem_known *set;
	unsigned number;
	int low, high; /* it is one of these */
	uint32_t slot;
};

struct ipc_dump { /* what a dump knows besides the image */
	struct sem_known *sets;
	size_t n_sets;
	struct sem_search *searches;
	size_t n_searches;
	bool listed; /* ipc_list() */
};

int sem_look(struct dump *dump, struct fsnap_error *err);
void sem_forget(struct dump *dump);
int sem_collect(struct dump *dump, struct fsnap_error *err);
int sem_make_all(struct restore *restore, struct fsnap_error *err);
int undo_collect(struct dump *dump, struct fsnap_error *err);
bool undo_of_set(const struct dump *dump, int id);

int msg_list(struct dump *dump, struct fsnap_error *err);
int msg_make_all(struct restore *restore, struct fsnap_error *err);

/* --- numbers and owners: perm.c ----------------------------------------------------------- */

/* Runs work(arg) in a process of its own that has this number (if it is free) and this user and group, as
 * the object's creator had them, with the rights of ours. Gives what it returns: >= 0, or -errno. */
int ipc_as(pid_t pid, unsigned uid, unsigned gid, int (*work)(void *), void *arg);

/* The next object of this sort ("shm", "sem", "msg") shall get this number. 0 or -errno. */
int ipc_choose_id(const char *sort, int id);

/* An object that is about to be made: remove(name) if the restore comes to nothing. The name tells its number and
 * its key, IPC_PRIVATE where it has none. */
void ipc_takes_back(struct restore *restore, const image_ipc_perm *perm, unsigned key, void (*remove)(const char *name));
/* What such a name says: returns the number. */
int ipc_named(const char *name, unsigned *key);

/* err = why an object of that number and key could not be made. Returns -1. */
int ipc_not_made(const char *what, const image_ipc_perm *perm, int sys, struct fsnap_error *err);

/* The same when it exists and is not what we left behind. */
int ipc_in_use(const char *what, const image_ipc_perm *perm, const char *how,
	       struct fsnap_error *err);

/* An object could not be made, which is an error if it is certain that the tree used it; else a note. */
int ipc_leave_alone(struct restore *restore, bool certain, const struct fsnap_error *why,
		    struct fsnap_error *err);

/* Is there a process of that number? */
bool ipc_alive(pid_t pid);

/* The same, and it is not of the tree. */
bool ipc_stranger(const struct dump *dump, pid_t pid);

/* Does a thread of the tree sleep in one of these two system calls, on this object? */
bool ipc_awaited(const struct dump *dump, int id, long call, long other);

/* Made while the tree was there, by a user who is in it. */
bool ipc_could_be(struct dump *dump, const struct ipc_perm *perm, time_t when);

/* What struct ipc_perm says, but for what else is in its mode. */
image_ipc_perm ipc_perm(int id, const struct ipc_perm *perm);

/* Has this process, of this tree, been there at the time `when` (seconds of CLOCK_REALTIME)? Numbers of
 * processes are used again, and objects outlive their creators. */
bool ipc_was_there(struct dump *dump, pid_t pid, time_t when);

#endif
