#include "engine/renumber.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <linux/nsfs.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/compile.h"
#include "engine/procfs.h"
#include "engine/restore.h"
#include "store/scope.h"

/* --- whether --------------------------------------------------------------------------- */

/* Capabilities that count where our numbers come from: 0.2 ms are saved that a clone takes until it is refused. */
static bool has_capability(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };
	struct stat own, theirs;
	cleanup_fd int numbers = open("/proc/self/ns/pid_for_children", O_RDONLY | O_CLOEXEC);
	cleanup_fd int owner = numbers >= 0 ? ioctl(numbers, NS_GET_USERNS) : -1;
	return owner >= 0 && fstat(owner, &theirs) == 0 && stat("/proc/self/ns/user", &own) == 0 &&
	       own.st_ino == theirs.st_ino && own.st_dev == theirs.st_dev && syscall(SYS_capget, &header, data) == 0 &&
	       (data[0].effective & (1u << CAP_SYS_ADMIN) ||
		data[1].effective & (1u << (CAP_CHECKPOINT_RESTORE - 32)));
}

/* The kernel looks for the capability before it finds that number 1 is never free (alloc_pid() in
 * kernel/pid.c). */
static bool may_choose_numbers(void)
{
	pid_t first = 1;
	if (has_capability())
		return true;
	struct clone_args args = { .set_tid = (uintptr_t)&first, .set_tid_size = 1 };
	long child = syscall(SYS_clone3, &args, sizeof(args));
	if (child == 0)
		_exit(0);
	return child >= 0 || errno != EPERM;
}

/* Is the process that has the root's number what was saved? */
static bool runs_still(const struct model *model)
{
	cleanup_fd int dir = procfs_open(model->tree.root_pid, NULL);
	cleanup_free char *comm = dir >= 0 ? procfs_read_once(dir, "comm", NULL, NULL) : NULL;
	size_t length = strlen(model->tree.comm);
	return comm && strncmp(comm, model->tree.comm, length) == 0 && comm[length] == '\n';
}

/* The first process of a namespace: what it starts as helpers gets numbers behind those of the image, which are low
 * ones where the tree came from such a namespace, too. */
static void leave_numbers_free(const struct model *model)
{
	int highest = 0;
	for (size_t i = 0; i < model->n_processes; i++)
		for (u_int j = 0; j < model->processes[i].threads.threads_len; j++)
			if (model->processes[i].threads.threads_val[j].tid > highest)
				highest = model->processes[i].threads.threads_val[j].tid;
	cleanup_fd int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		dprintf(fd, "%d", highest);
}

int renumber_decide(struct restore *restore, struct fsnap_error *err)
{
	int pids = restore->options->pids;
	if (pids < FSNAP_PIDS_DEFAULT || pids > FSNAP_PIDS_NEW)
		return fail(err, FSNAP_E_USAGE, 0, "%d says nothing about process numbers", pids);
	restore->renumber.wanted = pids == FSNAP_PIDS_NEW || (pids == FSNAP_PIDS_DEFAULT && !may_choose_numbers());
	if (restore->renumber.wanted && pids == FSNAP_PIDS_DEFAULT)
		restore_note(restore, "this user may not choose process numbers: the tree has new ones (--user-ns keeps them); "
				      "what remembers old ones, as sh those of its children and Python's asyncio its own, may end");
	if (getpid() == 1)
		leave_numbers_free(&restore->model);
	restore->renumber.beside = restore->renumber.wanted && runs_still(&restore->model);
	return 0;
}

/* --- who is who ------------------------------------------------------------------------- */

static uint32_t find_task(const void *arg, int number)
{
	const struct numbers *task_of = arg;
	size_t task = numbers_get(task_of, number);
	return task == NUMBERS_NONE ? UINT32_MAX : (uint32_t)task;
}

static int put(struct restore *restore, int number, uint32_t task, struct fsnap_error *err)
{
	return numbers_put(&restore->renumber.task_of, number, task) < 0 ? fail(err, FSNAP_E_NOMEM, ENOMEM, "plans") : 0;
}

/* It was opened when nobody of ours was born yet: it would be that of somebody else. */
static int check_directory(const struct restore *restore, const image_process *process, const char *path,
			   struct fsnap_error *err)
{
	static const char proc[] = "/proc/";
	if (strncmp(path, proc, strlen(proc)) != 0 ||
	    numbers_get(&restore->renumber.task_of, atoi(path + strlen(proc))) == NUMBERS_NONE)
		return 0;
	fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d: its directory is %s, a process' own, which has another number now",
	     process->pid, path);
	return error_hint(err, "restore it with its numbers");
}

int renumber_prepare(struct restore *restore, struct fsnap_error *err)
{
	const struct model *model = &restore->model;
	if (!restore->renumber.wanted)
		return 0;
	for (size_t i = 0; i < restore->family.n_stand_ins; i++)
		if (put(restore, restore->family.stand_ins[i].pid, restore->stand_in_task[i], err) < 0)
			return -1;
	for (size_t i = 0; i < model->n_processes; i++) {
		const image_process *process = &model->processes[i];
		u_int threads = process->zombie ? 1 : process->threads.threads_len;
		for (u_int j = 0; j < threads; j++)
			if (put(restore, j ? process->threads.threads_val[j].tid : process->pid,
				restore->first_task[i] + j, err) < 0)
				return -1;
	}
	for (size_t i = 0; i < model->n_processes; i++)
		if (check_directory(restore, &model->processes[i], model->processes[i].cwd.path, err) < 0 ||
		    check_directory(restore, &model->processes[i], model->processes[i].root.path, err) < 0)
			return -1;
	plans_number_late(restore->plans, find_task, &restore->renumber.task_of);
	return 0;
}

pid_t restore_number(const struct restore *restore, int number)
{
	size_t task = restore->renumber.wanted ? numbers_get(&restore->renumber.task_of, number) : NUMBERS_NONE;
	return task == NUMBERS_NONE ? number : ctl_task(restore_control(restore), (uint32_t)task)->tid;
}

/* --- what copies must not have in common ------------------------------------------------- */

#ifndef MADV_DONTNEED_LOCKED /* Linux 5.18 */
#define MADV_DONTNEED_LOCKED 24
#endif
enum { DROPPABLE = 0x08 }; /* MAP_DROPPABLE, Linux 6.11 */

void renumber_wipe(struct restore *restore, const image_process *process, uint32_t task)
{
	const image_mm *mm = model_mm(&restore->model, process->mm);
	const struct fsnap_restore_options *options = restore->options;
	if (!restore->renumber.wanted && !options->copy && !options->wipe && !options->from && !restore->model.tree.mailbox)
		return;
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		bool droppable = (vma->flags & 0xf) == DROPPABLE;
		if (vma->kind != VMA_ANON || !(droppable || vma->advice & ADVICE_WIPEONFORK))
			continue;
		plan_note(restore->plans, "memory that children do not have (MADV_WIPEONFORK), nor do copies");
		plan_call(restore->plans, task, SYS_madvise, IMM(vma->start), IMM(vma->end - vma->start),
			  IMM(MADV_DONTNEED_LOCKED));
	}
}

/* --- memory ------------------------------------------------------------------------------- */

/* Memory of one process, read and written from here. What cannot be read holds nothing of ours. */
static bool get(pid_t pid, uint64_t from, void *to, size_t n)
{
	struct iovec here = { to, n }, there = { (void *)(uintptr_t)from, n };
	return from && process_vm_readv(pid, &here, 1, &there, 1, 0) == (ssize_t)n;
}

static bool set(pid_t pid, uint64_t at, uint32_t value)
{
	struct iovec here = { &value, sizeof(value) }, there = { (void *)(uintptr_t)at, sizeof(value) };
	return process_vm_writev(pid, &here, 1, &there, 1, 0) == (ssize_t)sizeof(value);
}

/* A word whose lower 30 bits are a TID: true if they were that of `old`, and are now that of its successor. */
static bool correct(const struct restore *restore, pid_t pid, uint64_t at, int old)
{
	uint32_t word;
	if (at % sizeof(word) || !get(pid, at, &word, sizeof(word)) || (int)(word & FUTEX_TID_MASK) != old)
		return false;
	return set(pid, at, (word & ~FUTEX_TID_MASK) | (uint32_t)restore_number(restore, old));
}

/* struct __pthread_mutex_s of glibc on x86-64: lock, count, owner, users, kind, ..., list of robust ones. */
enum { MUTEX_OWNER = 8, MUTEX_KIND = 16, MUTEX_LIST = 32 };

/* The kernel follows as many (ROBUST_LIST_LIMIT in linux/futex.h). */
static void correct_robust(const struct restore *restore, pid_t pid, const image_thread *thread)
{
	struct robust_list_head head;
	if (!get(pid, thread->robust_list, &head, sizeof(head)))
		return;
	uint64_t entry = (uint64_t)(uintptr_t)head.list.next & ~1ull;
	for (int i = 0; i < ROBUST_LIST_LIMIT && entry && entry != thread->robust_list; i++) {
		uint64_t word = entry + (uint64_t)head.futex_offset;
		if (correct(restore, pid, word, thread->tid) && head.futex_offset == -MUTEX_LIST)
			correct(restore, pid, word + MUTEX_OWNER, thread->tid);
		if (!get(pid, entry, &entry, sizeof(entry)))
			return;
		entry &= ~1ull;
	}
	if (head.list_op_pending)
		correct(restore, pid, ((uint64_t)(uintptr_t)head.list_op_pending & ~1ull) + (uint64_t)head.futex_offset,
			thread->tid);
}

static struct user_regs_struct *regs_of(const image_thread *thread)
{
	return (struct user_regs_struct *)thread->regs.regs_val;
}

/* Whoever waits for a futex shows where it is. One with priority inheritance holds the TID of its owner. Behind
 * another, if it is a mutex of glibc that knows its owner (recursive or error-checking), stands that TID. */
static void correct_awaited(const struct restore *restore, const image_process *process, pid_t pid,
			    const image_thread *thread)
{
	const struct user_regs_struct *regs = regs_of(thread);
	uint32_t mutex[MUTEX_KIND / 4 + 1];
	if (regs->orig_rax != SYS_futex || !get(pid, regs->rdi, mutex, sizeof(mutex)))
		return;
	int command = (int)regs->rsi & FUTEX_CMD_MASK;
	bool inherits = command == FUTEX_LOCK_PI || command == FUTEX_LOCK_PI2;
	bool knows = mutex[0] == 2 && (mutex[MUTEX_KIND / 4] & 3) % 3 != 0;
	int owner = (int)((inherits ? mutex[0] : mutex[MUTEX_OWNER / 4]) & FUTEX_TID_MASK);
	if (!(inherits || knows) || !plans_is_late(restore->plans, owner))
		return;
	if (inherits)
		correct(restore, pid, regs->rdi, owner);
	for (u_int i = 0; i < process->threads.threads_len; i++)
		if (process->threads.threads_val[i].tid == owner)
			correct(restore, pid, regs->rdi + MUTEX_OWNER, owner);
}

/* The cell that the kernel clears when the thread ends is where glibc remembers its TID. In musl it is a lock, and
 * the TID stands in the thread's own descriptor, whose first word is its address. */
enum { MUSL_TID = 48 };

static void correct_own(const struct restore *restore, pid_t pid, const image_thread *thread)
{
	uint64_t self = 0, at = regs_of(thread)->fs_base;
	if (correct(restore, pid, thread->clear_child_tid, thread->tid))
		return;
	if (get(pid, at, &self, sizeof(self)) && self == at)
		correct(restore, pid, at + MUSL_TID, thread->tid);
}

/* A call that was interrupted while it waited for a child by its number begins anew. */
static void correct_call(const struct restore *restore, const image_thread *thread)
{
	struct user_regs_struct *regs = regs_of(thread);
	bool in_call = (int64_t)regs->orig_rax >= 0 && (int64_t)regs->rax < 0 && (int64_t)regs->rax >= -4095;
	if (in_call && regs->orig_rax == SYS_wait4 && (int)regs->rdi > 0)
		regs->rdi = (uint64_t)restore_number(restore, (int)regs->rdi);
	if (in_call && regs->orig_rax == SYS_waitid && (int)regs->rdi == P_PID)
		regs->rsi = (uint64_t)restore_number(restore, (int)regs->rsi);
}

static void correct_process(const struct restore *restore, const image_process *process, pid_t pid)
{
	for (u_int i = process->leader_ended; i < process->threads.threads_len; i++) {
		image_thread *thread = &process->threads.threads_val[i];
		correct_robust(restore, pid, thread);
		correct_awaited(restore, process, pid, thread);
		correct_own(restore, pid, thread);
		correct_call(restore, thread);
	}
}

int renumber_memory(struct restore *restore, struct fsnap_error *err)
{
	(void)err;
	for (size_t i = 0; i < restore->tracees.n_processes && restore->renumber.wanted; i++) {
		const struct process *process = restore->tracees.processes[i];
		correct_process(restore, process->becomes, process->live);
	}
	return 0;
}
