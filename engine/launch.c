#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/job_control.h"
#include "engine/machine.h"
#include "engine/procfs.h"
#include "engine/restore.h"
#include "engine/sleeps.h"
#include "engine/trace.h"
#include "store/scope.h"

/* Address space kept for control memory: its offsets are 32 bits wide. Behind it, room where the vDSO
 * waits, and then for pieces of System V segments and rings of asynchronous I/O (restorer/attach.c, restorer/aio.c). */
#define CONTROL_SPACE (1ull << 32)
#define PARKING_SPACE (1ull << 20)
#define LOOK_AROUND_MS 50
#define REAP_PATIENCE_MS 2000

static struct ctl *control(const struct restore *restore)
{
	return (struct ctl *)((char *)restore->control + AGENT_TEXT);
}

/* --- control memory ------------------------------------------------------------------ */

static struct memory_range *own_ranges(size_t *n, struct fsnap_error *err)
{
	cleanup_fd int self = procfs_open(getpid(), err);
	cleanup_free char *text = self >= 0 ? procfs_read(self, "maps", NULL, err) : NULL;
	size_t lines = 0;
	for (const char *c = text; c && *c; c++)
		lines += *c == '\n';
	struct memory_range *ranges = text ? malloc((lines + 1) * sizeof(*ranges)) : NULL;
	struct procfs_map map;
	if (text && !ranges)
		fail(err, FSNAP_E_NOMEM, ENOMEM, "looking for a place for control memory");
	*n = 0;
	for (char *cursor = text; ranges && *n < lines && procfs_next_map(&cursor, &map);)
		if (map.end < CONTROL_SPACE << 16)
			ranges[(*n)++] = (struct memory_range){ map.start, map.end };
	return ranges;
}

static uint64_t parking_space(const struct model *model)
{
	const image_ipc *ipc = &model->ipc;
	uint64_t most = PARKING_SPACE;
	for (size_t i = 0; i < model->n_mms; i++)
		for (u_int j = 0; j < model->mms[i].aios.aios_len; j++)
			if (model->mms[i].aios.aios_val[j].size > most)
				most = model->mms[i].aios.aios_val[j].size;
	for (u_int i = 0; i < ipc->shms.shms_len; i++) {
		uint64_t room = shm_bytes(&ipc->shms.shms_val[i]) + ipc->shms.shms_val[i].page;
		most = room > most ? room : most;
	}
	return most;
}

/* Descriptors of rings that stay on the bench for the mappings, wherever files wait. */
static int list_rings(struct restore *restore, struct fsnap_error *err)
{
	size_t n = restore->model.n_files;
	restore->ring_fd = malloc((n + 1) * sizeof(int));
	if (!restore->ring_fd)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "files");
	for (size_t i = 0; i <= n; i++)
		restore->ring_fd[i] = -1;
	for (size_t i = 0; i < n; i++) {
		if (strcmp(restore->model.files[i].kind, "io_uring") != 0)
			continue;
		int fd = fcntl(restore_fd(restore, (unsigned)i + 1), F_DUPFD_CLOEXEC, restore->bench);
		if (fd < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "an io_uring");
		restore->ring_fd[i + 1] = fd;
	}
	return 0;
}

int launch_reserve(struct restore *restore, struct fsnap_error *err)
{
	size_t n;
	cleanup_free struct memory_range *ours = own_ranges(&n, err);
	if (!ours || list_rings(restore, err) < 0)
		return -1;
	uint64_t hole = memory_find_hole(restore->model.mms, restore->model.n_mms, ours, n,
					 CONTROL_SPACE + parking_space(&restore->model));
	if (!hole)
		return fail(err, FSNAP_E_RESTORE_STEP, 0, "the program's address space has no gap of 4 GiB");
	size_t n_specials;
	struct memory_special *specials = machine_specials(&n_specials, err);
	restore->source = (struct memory_source){
		.image = restore->image,
		.image_fd = restore->image_fd,
		.mapped_fd = restore->mapped_fd,
		.mapped_write_fd = restore->mapped_write_fd,
		.ghost_fd = restore->ghost_fd,
		.ring_fd = restore->ring_fd,
		.ipc = &restore->model.ipc,
		.control = { hole, hole + CONTROL_SPACE },
		.parked = { hole + CONTROL_SPACE, hole + CONTROL_SPACE + parking_space(&restore->model) },
		.specials = specials,
		.n_specials = n_specials,
		.redirection = restore->foreign ? &restore->redirection : NULL,
	};
	return specials ? 0 : -1;
}

static int lay_control(struct restore *restore, struct fsnap_error *err)
{
	void *base = (void *)restore->source.control.start;
	size_t size = AGENT_TEXT + plans_size(restore->plans);
	cleanup_fd int fd = memfd_create("fsnap-control", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0 ||
	    mmap(base, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0) != base)
		return fail(err, FSNAP_E_SYSTEM, errno, "control memory of %zu bytes", size);
	restore->control = base;
	restore->control_size = size;
	memcpy(base, agent_blob, agent_blob_size);
	if (plans_write(restore->plans, control(restore), (uint64_t)base, err) < 0)
		return -1;
	if (mprotect(base, AGENT_TEXT, PROT_READ | PROT_EXEC) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "control memory");
	return 0;
}

/* --- spawning ---------------------------------------------------------------------------- */

static int number_taken(int pid, const char *comm, struct fsnap_error *err)
{
	fail(err, FSNAP_E_PID_TAKEN, 0, "process number %d of the image (%s) is in use", pid, comm);
	return error_hint(err, "is the original still running? end it first, or dump with --kill");
}

/* Does a task of this number exist? A dead one that its parent has not waited for is given a moment:
 * after `dump --kill`, init or a shell is just about to. */
static bool in_use(int tid)
{
	for (int waited = 0; waited < REAP_PATIENCE_MS; waited += 2) {
		cleanup_fd int dir = procfs_open(tid, NULL);
		struct procfs_stat stat;
		if (dir < 0 || procfs_stat(dir, "stat", &stat, NULL) < 0)
			return false;
		if (stat.state != 'Z' && stat.state != 'X')
			return true;
		usleep(2000);
	}
	return true;
}

/* Cheaper to find out now than to undo later; what slips through is found by clone3. */
int launch_check_numbers(const struct restore *restore, struct fsnap_error *err)
{
	for (size_t i = 0; i < restore->model.n_processes; i++) {
		const image_process *process = &restore->model.processes[i];
		for (u_int j = 0; j < process->threads.threads_len; j++) {
			const image_thread *thread = &process->threads.threads_val[j];
			if (in_use(thread->tid))
				return number_taken(thread->tid, thread->comm, err);
		}
	}
	return 0;
}

static int spawn_failed(const struct restore *restore, int sys, struct fsnap_error *err)
{
	const image_process *root = &restore->model.processes[0];
	if (sys == EEXIST)
		return number_taken(root->pid, root->threads.threads_val[0].comm, err);
	if (sys == EPERM) {
		fail(err, FSNAP_E_PERMISSION, 0, "this user may not choose process numbers");
		return error_hint(err, "restore as root (the kernel asks for CAP_CHECKPOINT_RESTORE)");
	}
	return fail(err, FSNAP_E_SYSTEM, sys, "cannot make process %d", root->pid);
}

/* The signal mask is inherited: nothing may interrupt a task before it is the program again. */
static int spawn(struct restore *restore, struct fsnap_error *err)
{
	const struct agent_entries *entries = restore->control;
	int (*agent_spawn)(struct ctl *, uint32_t, int) =
		(int (*)(struct ctl *, uint32_t, int))((uintptr_t)restore->control + entries->spawn);
	sigset_t all, was;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &was);
	const struct kin *root = &restore->family.kin[0];
	bool stand_in = root->birth == BIRTH_STAND_IN;
	int pid = agent_spawn(control(restore),
			      stand_in ? restore->stand_in_task[root->maker] : restore->first_task[0], SIGCHLD);
	sigprocmask(SIG_SETMASK, &was, NULL);
	if (pid < 0)
		return spawn_failed(restore, -pid, err);
	restore->root = restore->report->pid = root->pid;
	/* It makes the root, a child of ours, and ends; if it could not, that shows as a failed step. */
	if (stand_in)
		waitpid(pid, NULL, __WALL);
	return 0;
}

/* --- waiting for the tasks ------------------------------------------------------------------ */

static int step_failed(struct restore *restore, struct fsnap_error *err)
{
	struct ctl *ctl = control(restore);
	const struct ctl_task *task = ctl_task(ctl, ctl->failed - 1);
	const struct plan_op *op = ctl_op(ctl, task->first_op + task->pc);
	if ((op->kind == PLAN_FORK || op->kind == PLAN_THREAD) && task->result == -EEXIST)
		return number_taken(ctl_task(ctl, (uint32_t)op->arg[0])->tid, "a task", err);
	plans_failure(restore->plans, ctl, FSNAP_E_RESTORE_STEP, err);
	return op->kind == PLAN_SYSCALL ? step_hint(op->nr, err->sys, err) : -1;
}

/* A task that died of a signal cannot say so itself. */
static int look_for_dead(struct restore *restore, struct fsnap_error *err)
{
	for (size_t i = 0; i < restore->model.n_processes; i++) {
		const image_process *process = &restore->model.processes[i];
		const struct ctl_task *task = ctl_task(control(restore), restore->first_task[i]);
		bool leaving = process->leader_ended && task->pc + 1 >= task->n_ops;
		if (process->zombie || leaving || __atomic_load_n(&task->state, __ATOMIC_ACQUIRE) == TASK_NEW)
			continue;
		cleanup_fd int dir = procfs_open(process->pid, NULL);
		struct procfs_stat stat = { .state = 'X' };
		if (dir >= 0)
			procfs_stat(dir, "stat", &stat, NULL);
		if (stat.state == 'Z' || stat.state == 'X')
			return fail(err, FSNAP_E_RESTORE_STEP, 0,
				    "process %d died in step %u of its plan (see fsnap restore --explain)",
				    process->pid, task->pc);
	}
	return 0;
}

/* How many operations of all plans are done. */
static void report(const struct restore *restore)
{
	const struct ctl *ctl = control(restore);
	uint64_t done = 0;
	if (!restore->options->progress)
		return;
	for (uint32_t i = 0; i < ctl->n_tasks; i++)
		done += __atomic_load_n(&ctl_task(control(restore), i)->pc, __ATOMIC_RELAXED);
	restore->options->progress(restore->options->progress_arg, "restoring", done, ctl->n_ops);
}

static int await_parked(struct restore *restore, uint32_t wanted, struct fsnap_error *err)
{
	struct ctl *ctl = control(restore);
	const struct timespec patience = { .tv_nsec = LOOK_AROUND_MS * 1000000 };
	for (uint32_t seen; (seen = __atomic_load_n(&ctl->parked, __ATOMIC_ACQUIRE)) < wanted;) {
		if (__atomic_load_n(&ctl->failed, __ATOMIC_ACQUIRE))
			return step_failed(restore, err);
		if (syscall(SYS_futex, &ctl->parked, FUTEX_WAIT, seen, &patience, NULL, 0) < 0 &&
		    errno == ETIMEDOUT && look_for_dead(restore, err) < 0)
			return -1;
		report(restore);
	}
	return 0;
}

/* --- taking hold --------------------------------------------------------------------------------- */

/* From here on all of them die with us, whatever their parents do. */
static int seize(struct restore *restore, struct fsnap_error *err)
{
	for (size_t i = 0; i < restore->model.n_processes; i++) {
		const image_process *image = &restore->model.processes[i];
		if (image->zombie)
			continue;
		struct process *process = tree_add(&restore->tracees, image->pid, image->ppid);
		if (!process)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "process %d", image->pid);
		for (u_int j = image->leader_ended; j < image->threads.threads_len; j++) {
			struct task *task = process_add_task(process, image->threads.threads_val[j].tid);
			if (!task)
				return fail(err, FSNAP_E_NOMEM, ENOMEM, "process %d", image->pid);
			if (trace_check(trace_seize(task, true, err), task, err) < 0)
				return -1;
		}
	}
	return 0;
}

static void open_gate(struct restore *restore)
{
	struct ctl *ctl = control(restore);
	__atomic_store_n(&ctl->release, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &ctl->release, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* The agent's code may only go when they no longer run it. */
static int await_leaving(const struct restore *restore, struct fsnap_error *err)
{
	for (size_t i = 0; i < restore->model.n_processes && restore->n_leaving; i++) {
		const image_process *process = &restore->model.processes[i];
		if (!process->leader_ended)
			continue;
		struct procfs_stat stat = { .state = 'R' };
		cleanup_fd int dir = procfs_open(process->pid, err);
		for (int ms = 0; ms < REAP_PATIENCE_MS; ms++) {
			if (dir < 0 || procfs_stat(dir, "stat", &stat, err) < 0)
				return -1;
			if (stat.state == 'Z')
				break;
			usleep(1000);
		}
		if (stat.state != 'Z')
			return fail(err, FSNAP_E_RESTORE_STEP, 0, "process %d: its main thread does not end",
				    process->pid);
	}
	return 0;
}

int launch(struct restore *restore, struct fsnap_error *err)
{
	if (launch_check_numbers(restore, err) < 0 || ipc_make(restore, err) < 0 ||
	    lay_control(restore, err) < 0 || spawn(restore, err) < 0)
		return -1;
	/* Meanwhile: are the pages what was written? The tasks copy, but nothing of them runs yet. */
	if (image_verify_blocks(restore->image, 0, image_blocks(restore->image), err) < 0 ||
	    await_parked(restore, restore->n_parking, err) < 0 ||
	    cgroups_place_threads(restore, err) < 0 || ghosts_seal(restore, err) < 0 ||
	    seize(restore, err) < 0)
		return -1;
	open_gate(restore);
	if (await_parked(restore, 2 * restore->n_parking - restore->n_leaving, err) < 0 ||
	    await_leaving(restore, err) < 0)
		return -1;
	shelves_retire(restore);
	return ipc_fill(restore, err);
}

/* --- letting go ------------------------------------------------------------------------------------ */

static int stop_all(struct tree *tree, struct fsnap_error *err)
{
	for (size_t i = 0; i < tree->n_processes; i++)
		for (size_t j = 0; j < tree->processes[i]->n_tasks; j++)
			trace_interrupt(tree->processes[i]->tasks[j]);
	for (size_t i = 0; i < tree->n_processes; i++)
		for (size_t j = 0; j < tree->processes[i]->n_tasks; j++) {
			struct task *task = tree->processes[i]->tasks[j];
			if (trace_check(trace_await_stop(task, err), task, err) < 0)
				return -1;
		}
	return 0;
}

static int set_task(struct task *task, const image_thread *image, struct fsnap_error *err)
{
	memcpy(&task->regs, image->regs.regs_val, sizeof(task->regs));
	task->image.sigmask = image->sigmask;
	return trace_check(trace_set_xstate(task, image->xstate.xstate_val, image->xstate.xstate_len, err),
			   task, err);
}

/* The last trace of fsnap in the process: control memory, unmapped by an instruction of its own. */
static int unmap_control(struct restore *restore, struct task *leader, const image_mm *mm,
			 struct fsnap_error *err)
{
	const uint64_t args[6] = { (uint64_t)restore->control, restore->control_size };
	int64_t result;
	if (trace_check(trace_call(leader, mm->syscall_gadget, 0, SYS_munmap, args, &result, err), leader,
			err) < 0)
		return -1;
	if (result != 0)
		return fail(err, FSNAP_E_RESTORE_STEP, (int)-result, "process %d: unmapping control memory",
			    leader->tid);
	return 0;
}

static int set_tasks(struct restore *restore, struct process *process, struct fsnap_error *err)
{
	const image_process *image = model_process(&restore->model, process->pid);
	for (size_t i = 0; i < process->n_tasks; i++) {
		u_int thread = (u_int)i + image->leader_ended;
		if (set_task(process->tasks[i], &image->threads.threads_val[thread], err) < 0 ||
		    sleeps_begin(restore, process->tasks[i], image, thread, err) < 0)
			return -1;
	}
	return 0;
}

static int become_program(struct restore *restore, struct process *process, struct fsnap_error *err)
{
	const image_process *image = model_process(&restore->model, process->pid);
	if (unmap_control(restore, process->tasks[0], model_mm(&restore->model, image->mm), err) < 0)
		return -1;
	for (size_t i = 0; i < process->n_tasks; i++) {
		struct task *task = process->tasks[i];
		if (trace_check(trace_set_regs(task, &task->regs, err), task, err) < 0 ||
		    trace_check(trace_set_mask(task, task->image.sigmask, err), task, err) < 0)
			return -1;
	}
	return 0;
}

/* From the first of these on, the tree outlives us; should we die between the first and the last, those
 * that had not their turn die with us. That window is one system call a task. */
static void let_live(struct tree *tree)
{
	for (size_t i = 0; i < tree->n_processes; i++)
		for (size_t j = 0; j < tree->processes[i]->n_tasks; j++)
			trace_let_live(tree->processes[i]->tasks[j]);
}

/* Everything that can fail comes before the first task runs. */
int release(struct restore *restore, struct fsnap_error *err)
{
	struct tree *tree = &restore->tracees;
	if (stop_all(tree, err) < 0)
		return -1;
	for (size_t i = 0; i < tree->n_processes; i++)
		if (set_tasks(restore, tree->processes[i], err) < 0)
			return -1;
	if (jobs_stop(restore, err) < 0)
		return -1;
	for (size_t i = 0; i < tree->n_processes; i++)
		if (become_program(restore, tree->processes[i], err) < 0)
			return -1;
	workshop_release(restore);
	let_live(tree);
	for (size_t i = 0; i < tree->n_processes; i++) {
		struct process *process = tree->processes[i];
		for (size_t j = 0; j < process->n_tasks; j++)
			trace_detach(process->tasks[j]);
	}
	return 0;
}

void give_up(struct restore *restore)
{
	if (!restore->root)
		return;
	for (size_t i = 0; i < restore->model.n_processes; i++) {
		const struct ctl_task *task = ctl_task(control(restore), restore->first_task[i]);
		if (__atomic_load_n(&task->state, __ATOMIC_ACQUIRE) != TASK_NEW)
			kill(restore->model.processes[i].pid, SIGKILL);
	}
	kill(restore->root, SIGKILL);
	/* Tracees report their end to their tracer, the root also to its parent: both are we. */
	for (size_t i = 0; i < restore->tracees.n_processes; i++)
		waitpid(restore->tracees.processes[i]->pid, NULL, __WALL);
	waitpid(restore->root, NULL, __WALL);
	restore->root = 0;
}
