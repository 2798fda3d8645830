#include "engine/ipc/ipc.h"

#include <sys/msg.h>
#include <sys/sem.h>

#include "engine/dump.h"
#include "engine/restore.h"

int ipc_look(struct dump *dump, struct fsnap_error *err)
{
	return sem_look(dump, err);
}

int ipc_list(struct dump *dump, struct fsnap_error *err)
{
	if (dump->ipc_known.listed)
		return 0;
	dump->ipc_known.listed = true;
	return shm_list(dump, err) < 0 ? -1 : msg_list(dump, err);
}

int ipc_collect(struct dump *dump, struct fsnap_error *err)
{
	if (ipc_list(dump, err) < 0 || shm_collect(dump, err) < 0)
		return -1;
	return sem_collect(dump, err);
}

bool ipc_any(const image_ipc *ipc)
{
	return ipc->shms.shms_len || ipc->sets.sets_len || ipc->queues.queues_len;
}

static int is_the_originals(const char *what, const image_ipc_perm *perm, struct fsnap_error *err)
{
	fail(err, FSNAP_E_ADDRESS_TAKEN, 0, "%s %d (key 0x%x) is the original's, which still runs", what, perm->id,
	     perm->key);
	return error_hint(err, "give the copy an IPC namespace of its own: fsnap restore --ipc-ns");
}

/* What was left behind is taken over and set to what it was; what the original uses must not be. Of segments
 * the kernel says whether anybody has them attached. */
static int leave_to_original(const image_ipc *ipc, struct fsnap_error *err)
{
	struct semid_ds set;
	struct msqid_ds queue;
	for (u_int i = 0; i < ipc->sets.sets_len; i++)
		if (semctl(ipc->sets.sets_val[i].perm.id, 0, IPC_STAT, &set) == 0)
			return is_the_originals("semaphore set", &ipc->sets.sets_val[i].perm, err);
	for (u_int i = 0; i < ipc->queues.queues_len; i++)
		if (msgctl(ipc->queues.queues_val[i].perm.id, IPC_STAT, &queue) == 0)
			return is_the_originals("message queue", &ipc->queues.queues_val[i].perm, err);
	return 0;
}

int ipc_make(struct restore *restore, struct fsnap_error *err)
{
	if (restore_is_beside(restore) && leave_to_original(&restore->model.ipc, err) < 0)
		return -1;
	if (shm_make_all(restore, err) < 0 || sem_make_all(restore, err) < 0)
		return -1;
	return msg_make_all(restore, err);
}

int ipc_fill(struct restore *restore, struct fsnap_error *err)
{
	return shm_fill_all(restore, err);
}

void ipc_free(struct restore *restore)
{
	shm_free_all(restore);
}
