/*
 * settle_files.c - what must be done to a descriptor in a process that has it,
 * rather than in the workshop.
 *
 * Most of it can be done by any process that has the file: the first one does,
 * its holder.  Files that are late (a pidfd: its process must exist) are made by
 * their holder when everybody is born; the other processes that have the file take
 * a duplicate of it from there, so that it is the same open file description.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/locks.h"
#include "engine/restore.h"
#include "restorer/memory.h"
#include "store/scope.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

/* One descriptor of a process, seen from the file behind it. */
struct place {
	const image_fd *fd;
	const image_file *file;
	const struct workshop_file *made;
	const struct file_kind *kind;
	bool held; /* this process and number are the holder's; never of what the caller handed in */
};

static struct place place_of(struct restore *restore, const image_process *process, u_int index)
{
	const image_fd *fd = &process->fds.fds_val[index];
	const struct workshop_file *made = &restore->files[fd->file - 1];
	const image_file *file = &restore->model.files[fd->file - 1];
	return (struct place){ fd, file, made, file_kind_find(file->kind),
			       made->holder == process && made->number == fd->fd && !made->handed };
}

static bool is_first_of_process(const image_process *process, u_int index)
{
	for (u_int i = 0; i < index; i++)
		if (process->fds.fds_val[i].file == process->fds.fds_val[index].file)
			return false;
	return true;
}

/* What only a message has is settled by the root, through the descriptor of the workshop that it has inherited. */
static void settle_unheld(struct restore *restore, uint32_t task)
{
	for (size_t i = 0; i < restore->model.n_files; i++) {
		const image_file *file = &restore->model.files[i];
		const struct workshop_file *made = &restore->files[i];
		const struct file_kind *kind = file_kind_find(file->kind);
		bool unsettled = kind->unsettled && kind->unsettled(&made->state);
		if (made->holder || made->handed || !(unsettled || locks_have_lease(file)))
			continue;
		int fd = restore_fd(restore, file->id);
		locks_settle(file, restore->plans, task, fd);
		if (unsettled)
			kind->settle(restore, file, &made->state, restore->plans, task, fd);
	}
}

void settle_files(struct restore *restore, const image_process *process, uint32_t task)
{
	if (process == restore->model.processes)
		settle_unheld(restore, task);
	for (u_int i = 0; i < process->fds.fds_len; i++) {
		struct place at = place_of(restore, process, i);
		if (at.held)
			locks_settle(at.file, restore->plans, task, at.fd->fd);
		if (at.held && at.kind->settle)
			at.kind->settle(restore, at.file, &at.made->state, restore->plans, task, at.fd->fd);
	}
}

void settle_task_files(struct restore *restore, const image_process *process, pid_t tid, uint32_t task)
{
	for (u_int i = 0; i < process->fds.fds_len; i++) {
		struct place at = place_of(restore, process, i);
		if (at.kind->settle_task && !at.made->handed && is_first_of_process(process, i))
			at.kind->settle_task(restore, at.file, &at.made->state, restore->plans, task, at.fd->fd, tid);
	}
}

void arm_files(struct restore *restore, const image_process *process, uint32_t task)
{
	for (u_int i = 0; i < process->fds.fds_len; i++) {
		struct place at = place_of(restore, process, i);
		if (at.held && at.kind->arm)
			at.kind->arm(restore, at.file, &at.made->state, restore->plans, task, at.fd->fd);
	}
}

/* --- late files ---------------------------------------------------------------------- */

static bool is_late(const struct place *at)
{
	return at->kind->is_late && !at->made->handed && at->kind->is_late(&at->made->state);
}

static uint32_t count_late(struct restore *restore)
{
	uint32_t n = 0;
	for (size_t i = 0; i < restore->model.n_files; i++) {
		const struct file_kind *kind = file_kind_find(restore->model.files[i].kind);
		const struct workshop_file *file = &restore->files[i];
		n += file->holder && !file->handed && kind->is_late && kind->is_late(&file->state);
	}
	return n;
}

/* Every number of the process that is this file, from its first one on: the stand-in goes. */
static void put_in_place(struct restore *restore, const image_process *process, uint32_t task, u_int first,
			 uint32_t slot)
{
	const image_fd *fds = process->fds.fds_val;
	for (u_int i = first; i < process->fds.fds_len; i++) {
		if (fds[i].file != fds[first].file)
			continue;
		plan_call(restore->plans, task, SYS_dup3, SLOT(slot), IMM(fds[i].fd),
			  IMM(fds[i].cloexec ? O_CLOEXEC : 0));
		plan_accept_equal(restore->plans, fds[i].fd);
	}
	plan_call(restore->plans, task, SYS_close, SLOT(slot));
}

/* Its kind puts mappings of it where they were only when it is there. */
static int map_late(struct restore *restore, const image_process *process, uint32_t task, struct fsnap_error *err)
{
	cleanup_free int *fds = malloc((restore->model.n_files + 1) * sizeof(*fds));
	bool any = false;
	if (!fds)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "late files");
	for (size_t i = 0; i <= restore->model.n_files; i++)
		fds[i] = -1;
	for (u_int i = process->fds.fds_len; i-- > 0;) {
		struct place at = place_of(restore, process, i);
		if (is_late(&at))
			fds[at.fd->file] = at.fd->fd;
		any |= is_late(&at);
	}
	return any ? memory_late_rings(restore->plans, task, &restore->source, model_mm(&restore->model, process->mm),
				       fds, err) : 0;
}

static void make_late(struct restore *restore, const image_process *process, uint32_t task, uint32_t barrier,
		      uint32_t late)
{
	for (u_int i = 0; i < process->fds.fds_len; i++) {
		struct place at = place_of(restore, process, i);
		if (!at.held || !is_late(&at))
			continue;
		plan_note(restore->plans, "%s", at.file->label);
		uint32_t slot = at.kind->arrive(restore, at.file, &at.made->state, restore->plans, task);
		put_in_place(restore, process, task, i, slot);
		plan_post_one_of(restore->plans, task, barrier, late);
	}
}

static void take_late(struct restore *restore, const image_process *process, uint32_t task)
{
	struct plans *plans = restore->plans;
	for (u_int i = 0; i < process->fds.fds_len; i++) {
		struct place at = place_of(restore, process, i);
		if (!is_late(&at) || at.made->holder == process || !is_first_of_process(process, i))
			continue;
		plan_note(plans, "%s, as process %d has it", at.file->label, at.made->holder->pid);
		plan_call(plans, task, SYS_pidfd_open, plan_number(plans, task, at.made->holder->pid), IMM(0));
		uint32_t holder = plan_result(plans);
		plan_call(plans, task, SYS_pidfd_getfd, SLOT(holder), IMM(at.made->number), IMM(0));
		put_in_place(restore, process, task, i, plan_result(plans));
		plan_call(plans, task, SYS_close, SLOT(holder));
	}
}

static bool settles(const struct place *at, const image_process *process)
{
	pid_t settler = at->kind->settler ? at->kind->settler(&at->made->state) : 0;
	return settler ? settler == process->pid && !at->made->handed : at->held;
}

int arrive_files(struct restore *restore, const image_process *process, uint32_t task, uint32_t barrier,
		 struct fsnap_error *err)
{
	uint32_t late = count_late(restore);
	if (late) {
		make_late(restore, process, task, barrier, late);
		plan_wait(restore->plans, task, barrier, late);
		take_late(restore, process, task);
		if (map_late(restore, process, task, err) < 0)
			return -1;
	}
	for (u_int i = 0; i < process->fds.fds_len; i++) {
		struct place at = place_of(restore, process, i);
		if (at.kind->settle_late && settles(&at, process) && is_first_of_process(process, i))
			at.kind->settle_late(restore, at.file, &at.made->state, restore->plans, task,
					     at.fd->fd);
	}
	return 0;
}

void settle_parked_files(struct restore *restore, const image_process *process, pid_t tid, uint32_t task)
{
	for (u_int i = 0; i < process->fds.fds_len; i++) {
		struct place at = place_of(restore, process, i);
		if (at.kind->settle_parked && !at.made->handed && is_first_of_process(process, i))
			at.kind->settle_parked(restore, at.file, &at.made->state, restore->plans, task, at.fd->fd, tid);
	}
}

/* --- by this process ------------------------------------------------------------------- */

typedef int (*step_fn)(struct restore *restore, const image_file *file, const void *state, int fd,
		       struct fsnap_error *err);

/* One of ours for a file that its holder has by now. */
int restore_borrow(struct restore *restore, const struct workshop_file *made, struct fsnap_error *err)
{
	cleanup_fd int holder = (int)syscall(SYS_pidfd_open, restore_number(restore, made->holder->pid), 0);
	int fd = holder < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, holder, made->number, 0);
	return fd < 0 ? fail(err, FSNAP_E_RESTORE_STEP, errno, "process %d: descriptor %d", made->holder->pid,
			     made->number) : fd;
}

static int step(struct restore *restore, size_t index, step_fn step, struct fsnap_error *err)
{
	const image_file *file = &restore->model.files[index];
	const struct workshop_file *made = &restore->files[index];
	if (!made->holder || made->handed)
		return 0;
	cleanup_fd int fd = restore_borrow(restore, made, err);
	if (fd >= 0 && step(restore, file, &made->state, fd, err) == 0)
		return 0;
	return restore_blame(restore, file, err);
}

int equip_files(struct restore *restore, struct fsnap_error *err)
{
	for (size_t i = 0; i < restore->model.n_files; i++) {
		const struct file_kind *kind = file_kind_find(restore->model.files[i].kind);
		if (kind->equip && step(restore, i, kind->equip, err) < 0)
			return -1;
	}
	return 0;
}

int drive_files(struct restore *restore, struct fsnap_error *err)
{
	for (size_t i = 0; i < restore->model.n_files; i++) {
		const struct file_kind *kind = file_kind_find(restore->model.files[i].kind);
		if (kind->drive && step(restore, i, kind->drive, err) < 0)
			return -1;
	}
	return 0;
}
