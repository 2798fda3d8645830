/*
 * sem.c - System V semaphore sets (semget(2), semop(2)): values, and who was last at each.
 * What a process has to be undone when it ends is in sem_undo.c.
 */
#include <stdlib.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/syscall.h>

#include "engine/dump.h"
#include "engine/ipc/ipc.h"
#include "engine/restore.h"
#include "store/scope.h"

#define WHAT "System V semaphore set"

#ifndef SEM_STAT_ANY
#define SEM_STAT_ANY 20
#endif

union semun { /* semctl(2): the caller defines it */
	int val;
	struct semid_ds *buf;
	unsigned short *array;
	struct seminfo *info;
};

const struct other_kind kind_sysv_sem = {
	.name = "sysv_sem",
	.keeps = "sets that the tree uses or alone could: number, key, owner, values, who changed "
		 "each last, "
		 "what SEM_UNDO will undo; waiters go on waiting",
	.refuses = "at a restore: a number or key that another set has, a set that others have "
		   "used since",
	.shown_by = "ipc_sem* ipc",
};

/* --- dump ------------------------------------------------------------------------------ */

static int add_known(struct dump *dump, int id, unsigned nsems, struct fsnap_error *err)
{
	struct ipc_dump *known = &dump->ipc_known;
	struct sem_known *sets = grow(known->sets, known->n_sets, sizeof(*sets), err);
	if (!sets)
		return -1;
	known->sets = sets;
	cleanup_free unsigned short *values = calloc(nsems + 1, sizeof(*values));
	if (!values)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, WHAT);
	/* What we may not read belongs to nobody whose processes we may save. */
	if (semctl(id, 0, GETALL, (union semun){ .array = values }) < 0)
		return 0;
	sets[known->n_sets++] = (struct sem_known){ id, nsems, steal(&values) };
	return 0;
}

int sem_look(struct dump *dump, struct fsnap_error *err)
{
	struct seminfo info;
	int last = semctl(0, 0, SEM_INFO, (union semun){ .info = &info });
	sem_forget(dump);
	if (last < 0 || info.semusz == 0)
		return 0;
	for (int i = 0; i <= last; i++) {
		struct semid_ds ds;
		int id = semctl(i, 0, SEM_STAT_ANY, (union semun){ .buf = &ds });
		if (id >= 0 && add_known(dump, id, (unsigned)ds.sem_nsems, err) < 0)
			return -1;
	}
	return 0;
}

void sem_forget(struct dump *dump)
{
	struct ipc_dump *known = &dump->ipc_known;
	for (size_t i = 0; i < known->n_sets; i++)
		free(known->sets[i].values);
	free(known->sets);
	free(known->searches);
	*known = (struct ipc_dump){ 0 };
}

/* Has the tree used it, or could nobody else have? */
static bool is_ours(struct dump *dump, image_semaphore_set *set, const struct semid_ds *ds)
{
	time_t when = ds->sem_otime > ds->sem_ctime ? ds->sem_otime : ds->sem_ctime;
	bool strangers = false;
	set->certain = undo_of_set(dump, set->perm.id) ||
		       ipc_awaited(dump, set->perm.id, SYS_semop, SYS_semtimedop);
	for (u_int i = 0; i < set->semaphores.semaphores_len; i++) {
		int pid = set->semaphores.semaphores_val[i].pid;
		set->certain |= ipc_was_there(dump, pid, when);
		strangers |= ipc_stranger(dump, pid);
	}
	return set->certain || (!strangers && ipc_could_be(dump, &ds->sem_perm, ds->sem_ctime));
}

static int collect_set(struct dump *dump, const struct sem_known *known, struct fsnap_error *err)
{
	struct semid_ds ds;
	if (semctl(known->id, 0, IPC_STAT, (union semun){ .buf = &ds }) < 0)
		return 0; /* somebody outside has removed it */
	image_semaphore_set *sets =
		grow(dump->ipc.sets.sets_val, dump->ipc.sets.sets_len, sizeof(*sets), err);
	if (!sets)
		return -1;
	dump->ipc.sets.sets_val = sets;
	image_semaphore_set *set = &sets[dump->ipc.sets.sets_len];
	*set = (image_semaphore_set){ .perm = ipc_perm(known->id, &ds.sem_perm),
				      .used = ds.sem_otime != 0 };
	set->semaphores.semaphores_val = calloc(known->nsems + 1, sizeof(image_semaphore));
	if (!set->semaphores.semaphores_val)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, WHAT);
	set->semaphores.semaphores_len = known->nsems;
	for (unsigned i = 0; i < known->nsems; i++) {
		int pid = semctl(known->id, (int)i, GETPID);
		set->semaphores.semaphores_val[i] =
			(image_semaphore){ known->values[i], pid < 0 ? 0 : pid };
	}
	if (is_ours(dump, set, &ds))
		dump->ipc.sets.sets_len++;
	else
		free(set->semaphores.semaphores_val);
	return 0;
}

int sem_collect(struct dump *dump, struct fsnap_error *err)
{
	if (undo_collect(dump, err) < 0)
		return -1;
	for (size_t i = 0; i < dump->ipc_known.n_sets; i++)
		if (collect_set(dump, &dump->ipc_known.sets[i], err) < 0)
			return -1;
	return 0;
}

/* --- restore ----------------------------------------------------------------------------- */

static int create(void *arg)
{
	const image_semaphore_set *set = arg;
	int result = ipc_choose_id("sem", set->perm.id);
	if (result < 0)
		return result;
	int id = semget((key_t)set->perm.key, (int)set->semaphores.semaphores_len,
			IPC_CREAT | IPC_EXCL | (int)set->perm.mode);
	if (id < 0)
		return -errno;
	if (id == set->perm.id)
		return 0;
	semctl(id, 0, IPC_RMID);
	return -EEXIST;
}

static bool known_pid(const image_semaphore_set *set, int pid)
{
	for (u_int i = 0; i < set->semaphores.semaphores_len; i++)
		if (set->semaphores.semaphores_val[i].pid == pid)
			return true;
	return false;
}

/* Is it what the tree left behind? Ended processes may have changed it: they undid what they had done. */
static int adopt(const image_semaphore_set *set, const struct semid_ds *ds, struct fsnap_error *err)
{
	if ((unsigned)ds->sem_perm.__key != set->perm.key ||
	    ds->sem_nsems != set->semaphores.semaphores_len)
		return ipc_in_use(WHAT, &set->perm, "is another one", err);
	for (unsigned i = 0; i < ds->sem_nsems; i++) {
		int pid = semctl(set->perm.id, (int)i, GETPID);
		if (semctl(set->perm.id, (int)i, GETNCNT) > 0 ||
		    semctl(set->perm.id, (int)i, GETZCNT) > 0)
			return ipc_in_use(WHAT, &set->perm,
					  "processes that are not of this tree wait for it", err);
		if (pid > 0 && !known_pid(set, pid) && ipc_alive(pid)) {
			char how[64];
			snprintf(how, sizeof(how), "process %d has used it since the dump", pid);
			return ipc_in_use(WHAT, &set->perm, how, err);
		}
	}
	return 0;
}

struct turn { /* what one process is to have been the last to do */
	const image_semaphore_set *set;
	int pid;
};

/* SETVAL writes down who called, and semop(2) in addition that there has been one. */
static int take_turn(void *arg)
{
	const struct turn *turn = arg;
	int id = turn->set->perm.id;
	for (u_int i = 0; i < turn->set->semaphores.semaphores_len; i++) {
		const image_semaphore *semaphore = &turn->set->semaphores.semaphores_val[i];
		struct sembuf both[2] = { { (unsigned short)i, 1, IPC_NOWAIT },
					  { (unsigned short)i, -1, IPC_NOWAIT } };
		if (semaphore->pid != turn->pid)
			continue;
		if (semctl(id, (int)i, SETVAL, (union semun){ .val = 0 }) < 0 ||
		    (turn->set->used && semop(id, both, 2) < 0) ||
		    semctl(id, (int)i, SETVAL, (union semun){ .val = (int)semaphore->value }) < 0)
			return -errno;
	}
	return 0;
}

static int set_values(const image_semaphore_set *set, struct fsnap_error *err)
{
	for (u_int i = 0; i < set->semaphores.semaphores_len; i++) {
		struct turn turn = { set, set->semaphores.semaphores_val[i].pid };
		bool done = turn.pid == 0;
		for (u_int j = 0; j < i && !done; j++)
			done = set->semaphores.semaphores_val[j].pid == turn.pid;
		int result = done ? 0 : ipc_as(turn.pid, -1u, -1u, take_turn, &turn);
		if (result < 0)
			return fail(err, FSNAP_E_RESTORE_STEP, -result, WHAT " %d: values",
				    set->perm.id);
	}
	return 0;
}

static int own(const image_semaphore_set *set, struct fsnap_error *err)
{
	struct semid_ds ds = { .sem_perm = { .uid = set->perm.uid,
					     .gid = set->perm.gid,
					     .mode = (unsigned short)set->perm.mode } };
	if (semctl(set->perm.id, 0, IPC_SET, (union semun){ .buf = &ds }) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, WHAT " %d: IPC_SET", set->perm.id);
	return 0;
}

static void remove_set(const char *name)
{
	struct semid_ds ds;
	unsigned key;
	int id = ipc_named(name, &key);
	if (semctl(id, 0, IPC_STAT, (union semun){ .buf = &ds }) == 0 && (unsigned)ds.sem_perm.__key == key)
		semctl(id, 0, IPC_RMID);
}

static int make(struct restore *restore, const image_semaphore_set *set, struct fsnap_error *err)
{
	struct semid_ds ds;
	if (semctl(set->perm.id, 0, IPC_STAT, (union semun){ .buf = &ds }) == 0) {
		if (adopt(set, &ds, err) < 0)
			return -1;
		restore_note(restore, WHAT " %d was still there: its values are those of the image",
			     set->perm.id);
	} else {
		ipc_takes_back(restore, &set->perm, set->perm.key, remove_set);
		int result = ipc_as(0, set->perm.cuid, set->perm.cgid, create, (void *)set);
		if (result < 0) {
			restore_not_made(restore);
			return ipc_not_made(WHAT, &set->perm, -result, err);
		}
	}
	return set_values(set, err) < 0 ? -1 : own(set, err);
}

int sem_make_all(struct restore *restore, struct fsnap_error *err)
{
	const image_ipc *ipc = &restore->model.ipc;
	for (u_int i = 0; i < ipc->sets.sets_len; i++) {
		const image_semaphore_set *set = &ipc->sets.sets_val[i];
		struct fsnap_error why = { 0 };
		if (make(restore, set, &why) < 0 &&
		    ipc_leave_alone(restore, set->certain, &why, err) < 0)
			return -1;
	}
	return 0;
}
