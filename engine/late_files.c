/*
 * late_files.c - files that a message in a Unix socket has (SCM_RIGHTS), and that need the tree: pidfds, files of
 * /proc about a process, owners of signals.
 *
 * When everybody is born and nobody runs yet, the workshop still has its descriptors: late files take the place of
 * their stand-ins there, and kinds finish what had to wait for them.
 */
#include <fcntl.h>
#include <unistd.h>

#include "engine/errand.h"
#include "engine/restore.h"
#include "store/scope.h"

bool restore_is_late(struct restore *restore, unsigned file_id)
{
	const struct workshop_file *made = &restore->files[file_id - 1];
	const struct file_kind *kind = file_kind_find(restore->model.files[file_id - 1].kind);
	return !made->handed && kind->is_late && kind->is_late(&made->state);
}

bool restore_is_held(const struct restore *restore, unsigned file_id)
{
	return restore->files[file_id - 1].holder;
}

/* --- in whose name ---------------------------------------------------------------------- */

/* The process that has the file, else the root. */
static const image_process *holder_of(const struct restore *restore, unsigned file_id)
{
	const image_process *holder = restore->files[file_id - 1].holder;
	return holder ? holder : restore->model.processes;
}

/* In its name, and from its root directory: the kernel remembers who opens, and who asks for signals. */
static int run_as(struct restore *restore, const image_process *process, void (*work)(void *), void *arg)
{
	const image_thread *leader = &process->threads.threads_val[process->leader_ended];
	image_maker who = { .uid = leader->creds.uid[1], .gid = leader->creds.gid[1],
			    .groups = { leader->creds.groups.groups_len, leader->creds.groups.groups_val } };
	struct errand errand = { .who = &who, .work_as = work, .arg = arg,
				 .root = restore->root_fd[process - restore->model.processes] };
	return errand_run(&errand) < 0 ? -1 : 0;
}

/* --- late files ----------------------------------------------------------------------------- */

struct making {
	struct restore *restore;
	unsigned file_id;
	int fd;
	struct fsnap_error *err;
};

static void make_late(void *arg)
{
	struct making *making = arg;
	const image_file *file = &making->restore->model.files[making->file_id - 1];
	making->fd = file_kind_find(file->kind)->make_late(making->restore, file,
							   &making->restore->files[making->file_id - 1].state, making->err);
}

int restore_arrived(struct restore *restore, unsigned file_id, unsigned carrier, struct fsnap_error *err)
{
	struct workshop_file *made = &restore->files[file_id - 1];
	struct making making = { restore, file_id, -1, err };
	if (!restore_is_late(restore, file_id) || made->arrived)
		return restore_fd(restore, file_id);
	if (made->holder)
		making.fd = restore_borrow(restore, made, err);
	else if (run_as(restore, holder_of(restore, carrier), make_late, &making) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "%s, for a message",
			    restore->model.files[file_id - 1].label);
	if (making.fd < 0)
		return -1;
	if (made->fd >= 0)
		close(made->fd);
	made->arrived = true;
	return made->fd = making.fd;
}

/* --- owners of signals --------------------------------------------------------------------------- */

struct owning {
	const image_file *file;
	int fd;
	struct f_owner_ex owner;
	int sys;
};

static void own(void *arg)
{
	struct owning *owning = arg;
	if (owning->owner.pid)
		fcntl(owning->fd, F_SETOWN_EX, &owning->owner); /* an owner outside the tree may be gone */
	if (fcntl(owning->fd, F_SETSIG, owning->file->signo) < 0 ||
	    (owning->file->flags & O_ASYNC && fcntl(owning->fd, F_SETFL, owning->file->flags) < 0))
		owning->sys = errno;
}

static int own_unheld(struct restore *restore, const image_file *file, struct fsnap_error *err)
{
	const struct workshop_file *made = &restore->files[file->id - 1];
	if (made->holder || made->handed || !(file->owner || file->signo || file->flags & O_ASYNC))
		return 0;
	int number = file->owner < 0 ? -file->owner : file->owner;
	struct owning owning = {
		.file = file, .fd = restore_fd(restore, file->id),
		.owner = { file->owner < 0 ? F_OWNER_PGRP : file->owner_tid ? F_OWNER_TID : F_OWNER_PID,
			   number ? restore_number(restore, number) : 0 },
	};
	if (run_as(restore, restore->model.processes, own, &owning) < 0)
		owning.sys = errno;
	return owning.sys ? fail(err, FSNAP_E_RESTORE_STEP, owning.sys, "%s: who gets its signals", file->label) : 0;
}

/* --- all ------------------------------------------------------------------------------------------- */

int files_complete(struct restore *restore, struct fsnap_error *err)
{
	for (size_t i = 0; i < restore->model.n_files; i++)
		if (own_unheld(restore, &restore->model.files[i], err) < 0)
			return -1;
	for (size_t i = 0; file_kinds[i]; i++)
		if (restore->scratch[i] && file_kinds[i]->complete && file_kinds[i]->complete(restore, err) < 0)
			return -1;
	return 0;
}
