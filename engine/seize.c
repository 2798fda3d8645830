/*
 * seize.c - the whole tree, stopped and let go: who speaks for a process, which children it has, until nothing new
 * is found.
 */
#include "engine/seize.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/procfs.h"
#include "engine/stop.h"
#include "engine/time_left.h"
#include "engine/trace.h"
#include "engine/voice.h"
#include "store/scope.h"

/* A fork bomb outruns anybody; a compile job settles within a few rounds. */
#define SEIZE_ROUNDS 1000
#define PARTING_ROUNDS 20000
#define PARTING_NAP_US 100

/* Who has none, as most that are saved, is not one of our parents. */
static bool has_children(pid_t pid)
{
	cleanup_fd int proc = procfs_open(pid, NULL);
	size_t n, count = 0;
	cleanup_free pid_t *threads = proc >= 0 ? procfs_threads(proc, &n, NULL) : NULL;
	cleanup_free pid_t *children = threads ? procfs_children(proc, threads, n, &count, NULL) : NULL;
	return !children || count > 0;
}

/* Saving whoever waits for us would freeze ourselves. */
int seize_refuse_self(pid_t pid, struct fsnap_error *err)
{
	if (pid != getpid() && !has_children(pid))
		return 0;
	for (pid_t up = getpid(); up > 0; up = procfs_parent(up))
		if (up == pid) {
			fail(err, FSNAP_E_SELF, 0, "process %d is fsnap itself or one of its parents", pid);
			return error_hint(err, "start fsnap from outside the tree, for example from another "
					       "terminal");
		}
	return 0;
}

#define PF_KTHREAD 0x00200000 /* include/linux/sched.h: proc(5) shows the flags */

int seize_refuse_kernel(const struct process *process, struct fsnap_error *err)
{
	struct procfs_stat stat;
	if (procfs_stat(process->proc, "stat", &stat, NULL) < 0 || !(stat.flags & PF_KTHREAD))
		return 0;
	fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s) is a kernel thread", process->pid, process->comm);
	return error_hint(err, "only programs can be saved: kernel threads have neither memory nor descriptors");
}

/* Of the process, whichever thread /proc is asked through. */
static int read_stat(struct process *process, struct procfs_stat *stat, struct fsnap_error *err)
{
	char name[32] = "stat";
	if (process->image.leader_ended)
		snprintf(name, sizeof(name), "task/%d/stat", process->pid);
	return procfs_stat(process->proc, name, stat, err);
}

struct process *seize_prepare(struct tree *tree, pid_t pid, pid_t ppid, struct fsnap_error *err)
{
	cleanup_fd int proc = procfs_open(pid, err);
	struct procfs_stat stat;
	if (proc < 0 || procfs_stat(proc, "stat", &stat, err) < 0)
		return NULL;
	bool zombie = stat.state == 'Z' || stat.state == 'X';
	cleanup_fd int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0 && !zombie) {
		fail(err, FSNAP_E_NO_PROCESS, errno, "process %d", pid);
		return NULL;
	}
	struct process *process = tree_add(tree, pid, ppid);
	if (!process) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "process %d", pid);
		return NULL;
	}
	process->proc = steal_fd(&proc);
	process->pidfd = steal_fd(&pidfd);
	process->start = stat.start_time;
	voice_note(process, &stat);
	return voice_check(process, err) < 0 ? NULL : process;
}

static int stop_process(struct process *process, struct undertaker *undertaker, size_t *found, struct fsnap_error *err)
{
	if ((process->still = threads_are_known(process)))
		return 0;
	if (voice_check(process, err) < 0)
		return -1;
	if (process->image.zombie)
		return 0;
	struct fsnap_error why = { 0 };
	if (stop_threads(process, undertaker, found, &why) == 0 && process->n_tasks > 0 &&
	    process->tasks[0]->tid == process->live)
		return 0;
	/* Its voice was lost just now: it ended, or executed another program. */
	if (!error_is_set(&why) || why.code == FSNAP_E_TARGET_DIED) {
		seize_let_go(process);
		why = (struct fsnap_error){ 0 };
		if (voice_again(process, &why)) {
			(*found)++;
			return 0;
		}
		if (process->image.zombie) /* its parent still has to wait for it */
			return 0;
	}
	if (error_is_set(&why))
		*err = why;
	else
		fail(err, FSNAP_E_TARGET_DIED, 0, "process %d (%s) ended", process->pid, process->comm);
	return -1;
}

/* It was asked to stop, and lives: so its number, which is among its parent's children, is still its own. What else
 * may have changed is read when it stands still. */
static bool is_still_there(const struct process *process)
{
	return process->n_tasks && syscall(SYS_pidfd_send_signal, process->pidfd, 0, NULL, 0) == 0;
}

static bool is_child_of(struct process *process, const struct process *parent)
{
	struct procfs_stat stat;
	if (is_still_there(process))
		return true;
	if (read_stat(process, &stat, NULL) < 0 || stat.ppid != parent->pid)
		return false;
	voice_note(process, &stat);
	return true;
}

/* A process that was prepared before the freeze, if it is still the same child of the same parent: its
 * directory in /proc cannot be mistaken for that of another with its number. */
static bool adopt(struct tree *tree, struct tree *known, pid_t pid, const struct process *parent)
{
	struct process *process = known ? tree_take(known, pid) : NULL;
	if (!process)
		return false;
	if (!is_child_of(process, parent) || tree_put(tree, process) < 0) {
		seize_let_go(process);
		process_free(process);
		return false;
	}
	process->ppid = parent->pid;
	return true;
}

/* Adds children that are not in the tree yet. */
static int find_children(struct tree *tree, struct tree *known, struct process *parent, size_t *found,
			 struct fsnap_error *err)
{
	if (parent->image.zombie)
		return 0;
	/* The list is final in the next round only, and nobody was met who might be on it now: one list will do. */
	if (!parent->still && tree->n_processes == 1 && known && !known->n_processes) {
		(*found)++;
		return 0;
	}
	size_t count;
	cleanup_free pid_t *tids = calloc(parent->n_tasks + 1, sizeof(*tids));
	if (!tids)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "children of process %d", parent->pid);
	for (size_t i = 0; i < parent->n_tasks; i++)
		tids[i] = parent->tasks[i]->tid;
	cleanup_free pid_t *pids = procfs_children(parent->proc, tids, parent->n_tasks, &count, err);
	if (!pids)
		return -1;
	parent->childless = parent->still && count == 0;
	for (size_t i = 0; i < count; i++) {
		if (tree_find(tree, pids[i]))
			continue;
		struct fsnap_error why = { 0 };
		if (!adopt(tree, known, pids[i], parent) &&
		    !seize_prepare(tree, pids[i], parent->pid, &why)) {
			/* Reaped between the listing and now: it was a zombie then. */
			if (why.code == FSNAP_E_NO_PROCESS || why.code == FSNAP_E_TARGET_DIED)
				continue;
			*err = why;
			return -1;
		}
		(*found)++;
	}
	return 0;
}

/* A parent is stopped before its children are listed, so that the list is final; only threads that
 * were still running could add to it: look again until a whole round brings nothing new. */
static int settle(struct tree *tree, struct tree *known, struct fsnap_error *err)
{
	for (int round = 0; round < SEIZE_ROUNDS; round++) {
		size_t found = 0;
		for (size_t i = 0; i < tree->n_processes; i++)
			if (!tree->processes[i]->childless &&
			    (stop_process(tree->processes[i], &tree->undertaker, &found, err) < 0 ||
			     find_children(tree, known, tree->processes[i], &found, err) < 0))
				return -1;
		if (found == 0)
			return 0;
	}
	fail(err, FSNAP_E_TARGET_BUSY, 0, "the tree below process %d forks faster than it can be stopped",
	     tree->processes[0]->pid);
	return error_hint(err, "stop its busiest part first: kill -STOP PID");
}

/* Some microseconds pass until each has stopped: all are asked at once, and awaited in order. Who runs in his parent's
 * memory is perhaps what it waits for in vfork(2): such a parent stops only when he has gone on. */
static void ask_all(struct tree *tree, struct tree *known)
{
	struct process *root = tree->processes[0];
	ask_to_stop(root);
	for (size_t i = 0; known && i < known->n_processes; i++) {
		struct process *process = known->processes[i];
		const struct process *parent = process->ppid == root->pid ? root : tree_find(known, process->ppid);
		if (parent && process->prepared &&
		    syscall(SYS_kcmp, parent->live, process->live, KCMP_VM, 0, 0) > 0)
			ask_to_stop(process);
	}
}

/* Who has been asked, but is not in the tree any more. */
static void let_others_go(struct tree *known)
{
	for (size_t i = 0; known && i < known->n_processes; i++)
		if (known->processes[i]->n_tasks)
			seize_let_go(known->processes[i]);
}

/* To make the thread takes time, which nobody stands still for yet. */
static void find_undertaker(struct tree *tree, const struct tree *known)
{
	bool many = has_many_threads(tree->processes[0]);
	for (size_t i = 0; known && i < known->n_processes && !many; i++)
		many = has_many_threads(known->processes[i]);
	if (many)
		undertaker_begin(&tree->undertaker);
}

int seize_tree(struct tree *tree, struct tree *known, struct fsnap_error *err)
{
	find_undertaker(tree, known);
	ask_all(tree, known);
	int settled = settle(tree, known, err);
	let_others_go(known);
	undertaker_leave(&tree->undertaker);
	if (settled == 0) {
		if (!tree->processes[0]->image.zombie)
			return 0;
		fail(err, FSNAP_E_TARGET_DIED, 0, "process %d (%s) has ended", tree->processes[0]->pid,
		     tree->processes[0]->comm);
	}
	seize_release(tree);
	return -1;
}

static void release_task(struct task *task)
{
	if (!task->seized)
		return;
	/* PTRACE_DETACH needs a stopped tracee. Who does not stop is let go when we end. */
	if (!task->stopped && trace_interrupt(task) == TRACE_OK && stops_soon(task))
		trace_await_stop(task, NULL);
	trace_bring_back(task);
	time_left_set(task);
	trace_detach(task);
}

static void release_process(struct process *process)
{
	for (size_t i = 0; i < process->n_tasks; i++)
		release_task(process->tasks[i]);
	for (size_t i = 0; i < process->n_workers; i++)
		release_task(process->workers[i]);
}

void seize_release(struct tree *tree)
{
	for (size_t i = 0; i < tree->n_processes; i++)
		release_process(tree->processes[i]);
	undertaker_end(&tree->undertaker);
}

/* --- one process ---------------------------------------------------------------------- */

static int stop_alone(struct process *process, struct undertaker *undertaker, struct fsnap_error *err)
{
	for (int round = 0; round < SEIZE_ROUNDS; round++) {
		size_t found = 0;
		if (stop_process(process, undertaker, &found, err) < 0)
			return -1;
		if (process->image.zombie)
			return fail(err, FSNAP_E_TARGET_DIED, 0, "process %d (%s) has ended", process->pid,
				    process->comm);
		if (found == 0)
			return 0;
	}
	return fail(err, FSNAP_E_TARGET_BUSY, 0, "process %d (%s) makes threads faster than they can be stopped",
		    process->pid, process->comm);
}

int seize_alone(struct process *process, struct fsnap_error *err)
{
	struct undertaker undertaker = { 0 };
	int result = stop_alone(process, &undertaker, err);
	undertaker_end(&undertaker);
	if (result < 0)
		seize_let_go(process);
	return result;
}

static bool has_parted(struct process *process)
{
	bool all = true;
	for (size_t i = 0; i < process->n_tasks; i++)
		all = trace_part(process->tasks[i]) && all;
	for (size_t i = 0; i < process->n_workers; i++)
		all = trace_part(process->workers[i]) && all;
	return all;
}

/* We go on living, and would be the tracer of whoever could not be let go at once: a thread that is just dying. */
void seize_let_go(struct process *process)
{
	release_process(process);
	for (int round = 0; round < PARTING_ROUNDS && !has_parted(process); round++)
		usleep(PARTING_NAP_US);
	process_forget_tasks(process);
}
