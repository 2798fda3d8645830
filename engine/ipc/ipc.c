#include "engine/ipc/ipc.h"

#include "engine/dump.h"
#include "engine/restore.h"

int ipc_collect(struct dump *dump, struct fsnap_error *err)
{
	return shm_collect(dump, err);
}

int ipc_make(struct restore *restore, struct fsnap_error *err)
{
	return shm_make_all(restore, err);
}

int ipc_fill(struct restore *restore, struct fsnap_error *err)
{
	return shm_fill_all(restore, err);
}

void ipc_unmake(struct restore *restore)
{
	shm_unmake_all(restore);
}

void ipc_free(struct restore *restore)
{
	shm_free_all(restore);
}
