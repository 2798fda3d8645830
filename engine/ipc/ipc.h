/*
 * ipc.h - System V objects of a tree: shared memory, semaphore sets, message queues.
 *
 * They belong to no process: the kernel keeps them until somebody removes them.  Which
 * of those in the tree's IPC namespace go with it, and what becomes of one that is still
 * there at a restore, is said in README.md.
 *
 * Dump:	maps.c finds attached segments, ipc_collect() the rest; records.c writes dump->ipc
 * Restore:	ipc_make	before any task exists: every object has its number
 *		[plans attach segments]
 *		ipc_fill	every task is ready to run: content of segments
 *		ipc_unmake	the restore failed: what ipc_make made is removed
 */
#ifndef ENGINE_IPC_H
#define ENGINE_IPC_H

#include <stdbool.h>
#include <sys/types.h>

#include "engine/procfs.h"
#include "image.h"
#include "store/error.h"

struct dump;
struct restore;
struct process;
struct other_kind;

extern const struct other_kind kind_sysv_shm;

/* --- dump ------------------------------------------------------------------------- */

/* Is this the name of an attached segment? */
bool ipc_is_segment(const struct procfs_map *map);

/* Notes the segment that `map` is attached to, once; `fd` is any way to open its file. Returns the id of
 * its content (image_ghost), 0 with *err set. */
unsigned ipc_shm_mapped(struct dump *dump, const struct process *process,
			const struct procfs_map *map, int fd, struct fsnap_error *err);
/* The same for one that is known already: 0 if it is not. */
unsigned ipc_shm_known(const struct dump *dump, const struct procfs_map *map);

/* When all processes were collected: facts about what is attached, and what belongs to the tree besides. */
int ipc_collect(struct dump *dump, struct fsnap_error *err);

/* --- restore ------------------------------------------------------------------------- */

int ipc_make(struct restore *restore, struct fsnap_error *err);
int ipc_fill(struct restore *restore, struct fsnap_error *err);
void ipc_unmake(struct restore *restore);
void ipc_free(struct restore *restore);

/* --- each sort of object: shm.c -------------------------------------------------------- */

int shm_collect(struct dump *dump, struct fsnap_error *err);
int shm_make_all(struct restore *restore, struct fsnap_error *err);
int shm_fill_all(struct restore *restore, struct fsnap_error *err);
void shm_unmake_all(struct restore *restore);
void shm_free_all(struct restore *restore);

/* --- numbers and owners: perm.c ----------------------------------------------------------- */

/* Runs work(arg) in a process of its own that has this number (if it is free) and this user and group, as
 * the object's creator had them, with the rights of ours. Gives what it returns: >= 0, or -errno. */
int ipc_as(pid_t pid, unsigned uid, unsigned gid, int (*work)(void *), void *arg);

/* The next object of this sort ("shm", "sem", "msg") shall get this number. 0 or -errno. */
int ipc_choose_id(const char *sort, int id);

/* err = why an object of that number and key could not be made. Returns -1. */
int ipc_not_made(const char *what, const image_ipc_perm *perm, int sys, struct fsnap_error *err);

/* The same when it exists and is not what we left behind. */
int ipc_in_use(const char *what, const image_ipc_perm *perm, const char *how, struct fsnap_error *err);

/* Has this process, of this tree, been there at the time `when` (seconds of CLOCK_REALTIME)? Numbers of
 * processes are used again, and objects outlive their creators. */
bool ipc_was_there(struct dump *dump, pid_t pid, time_t when);

#endif
