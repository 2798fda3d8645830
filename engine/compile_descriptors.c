/*
 * compile_descriptors.c - the plan of a process' table of descriptors, and of its directories.
 *
 * What is to be at a number was made by the workshop, at another; or it waits on a shelf. When all are in place, whatever
 * else the process was born with is closed.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/compile.h"
#include "engine/record_locks.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

/* Which of our descriptors the process' number is made from. */
static int source_of(const struct restore *restore, const image_process *process, const image_fd *fd)
{
	const struct workshop_file *file = &restore->files[fd->file - 1];
	int handed = handed_source(restore, process->pid, fd->fd, fd->file);
	if (handed >= 0)
		return handed;
	if (process->ppid == 0 && strcmp(restore->model.files[fd->file - 1].kind, "stdio") == 0) {
		int number = stdio_source(&file->state.stdio, fd->fd);
		if (number >= 0 && restore->stdio[number] >= 0)
			return restore->stdio[number];
	}
	return file->fd;
}

static int by_number(const void *a, const void *b)
{
	return ((const image_fd *)a)->fd - ((const image_fd *)b)->fd;
}

static void close_numbers(struct plans *plans, uint32_t task, unsigned first, unsigned last)
{
	if (first <= last)
		plan_call(plans, task, SYS_close_range, IMM(first), IMM(last), IMM(0));
}

/* Is this the first descriptor, by number of records, of its file? */
static bool is_holder(const struct restore *restore, const image_process *process, const image_fd *fd)
{
	const struct workshop_file *file = &restore->files[fd->file - 1];
	return file->holder == process && file->number == fd->fd;
}

/* Through one of the descriptors: owner and signal are the description's. O_ASYNC remembers the number
 * it was set through and tells it in siginfo (fcntl(2), si_fd). */
void descriptors_own_signals(struct restore *restore, const image_process *process, uint32_t task)
{
	for (u_int i = 0; i < process->fds.fds_len; i++) {
		const image_fd *fd = &process->fds.fds_val[i];
		const image_file *file = &restore->model.files[fd->file - 1];
		bool async = (file->flags & O_ASYNC) && strcmp(file->kind, "stdio") != 0;
		if ((!file->owner && !file->signo && !async) || restore->files[fd->file - 1].handed ||
		    !is_holder(restore, process, fd))
			continue;
		struct f_owner_ex owner = { file->owner < 0 ? F_OWNER_PGRP :
					    file->owner_tid ? F_OWNER_TID : F_OWNER_PID, abs(file->owner) };
		plan_note(restore->plans, "who gets signals of descriptor %d", fd->fd);
		if (owner.pid) {
			uint32_t data = plans_data(restore->plans, &owner, sizeof(owner), 4);
			plan_number_into(restore->plans, task, DATA(data + offsetof(struct f_owner_ex, pid)),
					 owner.pid);
			plan_call(restore->plans, task, SYS_fcntl, IMM(fd->fd), IMM(F_SETOWN_EX), DATA(data));
			plan_accept_any(restore->plans); /* an owner outside the tree may be gone */
		}
		plan_call(restore->plans, task, SYS_fcntl, IMM(fd->fd), IMM(F_SETSIG), IMM(file->signo));
		if (async)
			plan_call(restore->plans, task, SYS_fcntl, IMM(fd->fd), IMM(F_SETFL), IMM(file->flags));
	}
}

/* Before descriptors: the number that leads there may be one of the program's own. */
static void enter_directories(struct restore *restore, const image_process *process, uint32_t task)
{
	struct plans *plans = restore->plans;
	size_t index = (size_t)(process - restore->model.processes);
	if (restore->root_fd[index] >= 0) {
		plan_note(plans, "root directory");
		plan_call(plans, task, SYS_fchdir, IMM(restore->root_fd[index]));
		plan_call(plans, task, SYS_chroot, DATA(plans_data(plans, ".", 2, 1)));
	}
	plan_note(plans, "working directory %s", process->cwd.path);
	plan_call(plans, task, SYS_fchdir, IMM(restore->cwd_fd[index]));
}

void descriptors_build(struct restore *restore, const image_process *process)
{
	struct plans *plans = restore->plans;
	uint32_t task = leader_task(restore, process);
	if (process->fds.fds_len)
		qsort(process->fds.fds_val, process->fds.fds_len, sizeof(image_fd), by_number);
	unsigned next = 0;
	enter_directories(restore, process, task);
	for (u_int i = 0; i < process->fds.fds_len; i++) {
		const image_fd *fd = &process->fds.fds_val[i];
		plan_note(plans, "%s", restore->model.files[fd->file - 1].label);
		int source = source_of(restore, process, fd);
		if (source < 0) {
			shelves_take(restore, task, fd->file, fd->fd, fd->cloexec);
			continue;
		}
		plan_call(plans, task, SYS_dup3, IMM(source), IMM(fd->fd), IMM(fd->cloexec ? O_CLOEXEC : 0));
		plan_accept_equal(plans, fd->fd);
	}
	settle_files(restore, process, task);
	plan_note(plans, "close what the program does not have");
	for (u_int i = 0; i < process->fds.fds_len; i++) {
		unsigned fd = (unsigned)process->fds.fds_val[i].fd;
		if (fd > next)
			close_numbers(plans, task, next, fd - 1);
		next = fd + 1;
	}
	plan_note(plans, "close the workshop");
	int seat = streaming_seat(restore, process);
	if (seat >= 0)
		close_numbers(plans, task, next, (unsigned)seat - 1);
	close_numbers(plans, task, seat >= 0 ? (unsigned)seat + 1 : next, ~0u);
	record_locks_rebuild(process, plans, task);
}
