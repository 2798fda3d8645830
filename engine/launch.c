/*
 * launch.c - plans -> tasks: the first is spawned and makes the others, each runs its plan and parks, and all are
 * taken hold of.
 */
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/keeper.h"
#include "engine/procfs.h"
#include "engine/renumber.h"
#include "engine/restore.h"
#include "engine/staging.h"
#include "engine/trace.h"
#include "store/scope.h"

#define LOOK_AROUND_MS 50
#define REAP_PATIENCE_MS 2000
#define LINGER_ROUNDS 1000 /* some 300 us */

/* --- spawning ---------------------------------------------------------------------------- */

static int number_taken(int pid, const char *comm, struct fsnap_error *err)
{
	fail(err, FSNAP_E_PID_TAKEN, 0, "process number %d of the image (%s) is in use", pid, comm);
	return error_hint(err, "is the original still running? end it first, or dump with --kill; or let the copy "
			       "have other numbers: fsnap restore --new-pids, or numbers of its own: --pid-ns");
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
	if (restore->renumber.wanted)
		return 0;
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

/* The signal mask is inherited: nothing may interrupt a task before it is the program again. What we ignore
 * ourselves must not be: who had ended sets no dispositions, and shows those that he is born with. */
static int fork_here(struct restore *restore, uint32_t task)
{
	const struct agent_entries *entries = restore->control;
	int (*agent_spawn)(struct ctl *, uint32_t, int, uint64_t) =
		(int (*)(struct ctl *, uint32_t, int, uint64_t))((uintptr_t)restore->control + entries->spawn);
	sigset_t all, was;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &was);
	sighandler_t file_size = signal(SIGXFSZ, SIG_DFL);
	int pid = agent_spawn(restore_control(restore), task, SIGCHLD, 0);
	signal(SIGXFSZ, file_size);
	sigprocmask(SIG_SETMASK, &was, NULL);
	return pid;
}

static int spawn(struct restore *restore, struct fsnap_error *err)
{
	const struct kin *root = &restore->family.kin[0];
	bool stand_in = root->birth == BIRTH_STAND_IN;
	uint32_t task = stand_in ? restore->stand_in_task[root->maker] : restore->first_task[0];
	int pid = restore->keeper ? keeper_bear(restore->keeper, task) : fork_here(restore, task);
	if (pid < 0)
		return spawn_failed(restore, -pid, err);
	/* It makes the root, a child of ours, and ends; if it could not, that shows as a failed step. */
	if (stand_in)
		waitpid(pid, NULL, __WALL);
	restore->root = restore->report->pid = restore_number(restore, root->pid);
	return 0;
}

/* --- waiting for the tasks ------------------------------------------------------------------ */

static int step_failed(struct restore *restore, struct fsnap_error *err)
{
	struct ctl *ctl = restore_control(restore);
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
		const struct ctl_task *task = ctl_task(restore_control(restore), restore->first_task[i]);
		bool leaving = process->leader_ended && task->pc + 1 >= task->n_ops;
		if (process->zombie || leaving || __atomic_load_n(&task->state, __ATOMIC_ACQUIRE) == TASK_NEW)
			continue;
		cleanup_fd int dir = procfs_open(restore_number(restore, process->pid), NULL);
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
	const struct ctl *ctl = restore_control(restore);
	uint64_t done = 0;
	if (!restore->options->progress)
		return;
	for (uint32_t i = 0; i < ctl->n_tasks; i++) {
		struct ctl_task *task = ctl_task(restore_control(restore), i);
		done += __atomic_load_n(&task->pc, __ATOMIC_RELAXED) + __atomic_load_n(&task->done, __ATOMIC_RELAXED);
	}
	restore->options->progress(restore->options->progress_arg, "restoring", done, ctl->n_ops);
}

/* A small tree is made in less time than it takes to wake us. */
static void linger(const struct ctl *ctl, uint32_t wanted)
{
	for (int rounds = 0; rounds < LINGER_ROUNDS; rounds++) {
		if (__atomic_load_n(&ctl->parked, __ATOMIC_ACQUIRE) >= wanted ||
		    __atomic_load_n(&ctl->failed, __ATOMIC_ACQUIRE))
			return;
		sched_yield();
	}
}

static int await_parked(struct restore *restore, uint32_t wanted, struct fsnap_error *err)
{
	struct ctl *ctl = restore_control(restore);
	linger(ctl, wanted);
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
		struct process *process = tree_add(&restore->tracees, restore_number(restore, image->pid),
						   restore_number(restore, image->ppid));
		if (!process)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "process %d", image->pid);
		process->becomes = image;
		for (u_int j = image->leader_ended; j < image->threads.threads_len; j++) {
			struct task *task = process_add_task(
				process, restore_number(restore, image->threads.threads_val[j].tid));
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
	struct ctl *ctl = restore_control(restore);
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
		cleanup_fd int dir = procfs_open(restore_number(restore, process->pid), err);
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
	    control_lay(restore, err) < 0 || spawn(restore, err) < 0)
		return -1;
	/* Meanwhile: are the pages what was written? The tasks copy, but nothing of them runs yet. */
	if ((restore->staging ? staging_read(restore, err) : streaming_verify(restore, err)) < 0 ||
	    await_parked(restore, restore->n_parking, err) < 0 ||
	    cgroups_place_threads(restore, err) < 0 || ghosts_seal(restore, err) < 0 ||
	    seize(restore, err) < 0 || streaming_hand_over(restore, err) < 0 ||
	    renumber_memory(restore, err) < 0 || environment_change(restore, err) < 0 ||
	    equip_files(restore, err) < 0)
		return -1;
	open_gate(restore);
	if (await_parked(restore, 2 * restore->n_parking - restore->n_leaving, err) < 0 ||
	    await_leaving(restore, err) < 0 || drive_files(restore, err) < 0 || files_complete(restore, err) < 0)
		return -1;
	shelves_retire(restore);
	return ipc_fill(restore, err);
}

void give_up(struct restore *restore)
{
	if (!restore->root)
		return;
	for (size_t i = 0; i < restore->model.n_processes; i++) {
		const struct ctl_task *task = ctl_task(restore_control(restore), restore->first_task[i]);
		if (__atomic_load_n(&task->state, __ATOMIC_ACQUIRE) != TASK_NEW)
			kill(task->tid, SIGKILL);
	}
	kill(restore->root, SIGKILL);
	/* Tracees report their end to their tracer, the root also to its parent: both are we. */
	for (size_t i = 0; i < restore->tracees.n_processes; i++) {
		const struct process *process = restore->tracees.processes[i];
		/* A leader's end is told when that of its last thread was. */
		for (size_t j = process->n_tasks; j-- > 0;)
			trace_await_end(process->tasks[j]);
	}
	waitpid(restore->root, NULL, __WALL);
	restore->root = 0;
}
