#include "engine/ipc/ipc.h"

#include <stdlib.h>

#include "engine/dump.h"
#include "engine/restore.h"

int ipc_look(struct dump *dump, struct fsnap_error *err)
{
	return sem_look(dump, err);
}

int ipc_collect(struct dump *dump, struct fsnap_error *err)
{
	if (shm_collect(dump, err) < 0 || sem_collect(dump, err) < 0)
		return -1;
	return msg_collect(dump, err);
}

bool ipc_any(const image_ipc *ipc)
{
	return ipc->shms.shms_len || ipc->sets.sets_len || ipc->queues.queues_len;
}

int ipc_make(struct restore *restore, struct fsnap_error *err)
{
	if (shm_make_all(restore, err) < 0 || sem_make_all(restore, err) < 0)
		return -1;
	return msg_make_all(restore, err);
}

int ipc_fill(struct restore *restore, struct fsnap_error *err)
{
	return shm_fill_all(restore, err);
}

void ipc_unmake(struct restore *restore)
{
	shm_unmake_all(restore);
	sem_unmake_all(restore);
	msg_unmake_all(restore);
}

void ipc_free(struct restore *restore)
{
	shm_free_all(restore);
	free(restore->sets_made);
	free(restore->queues_made);
}
