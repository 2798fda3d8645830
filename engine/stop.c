/*
 * stop.c - every thread of one process, stopped.
 */
#include "engine/stop.h"

#include <linux/kcmp.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/procfs.h"
#include "engine/trace.h"
#include "store/scope.h"

/* Threads stop within microseconds; not those in the midst of an uninterruptible call. */
#define YIELDS 200
#define NAP_US 100
#define PATIENCE 20000 /* rounds: some three seconds */

static bool process_has(const struct process *process, pid_t tid)
{
	for (size_t i = 0; i < process->n_tasks; i++)
		if (process->tasks[i]->tid == tid)
			return true;
	for (size_t i = 0; i < process->n_workers; i++)
		if (process->workers[i]->tid == tid)
			return true;
	return false;
}

/* Threads that ended while we looked are no longer part of the process. How many are left of the first n? */
static size_t drop_dead_tasks(struct process *process, size_t n)
{
	size_t kept = 0, first = 0;
	for (size_t i = 0; i < process->n_tasks; i++) {
		struct task *task = process->tasks[i];
		if (!task->seized) {
			free(task);
			continue;
		}
		first += i < n;
		process->tasks[kept++] = task;
	}
	/* append() keeps room for all that are left. */
	process->n_tasks = kept;
	return first;
}

static enum trace_result stop_task(struct task *task, struct fsnap_error *err)
{
	enum trace_result result = trace_await_stop(task, err);
	if (result == TRACE_OK)
		result = trace_hide_stop(task, err);
	return result == TRACE_OK ? stride_out(task, err) : result;
}

/* A child that still runs in this process' memory: the thread that made it with vfork(2) sleeps until it
 * executes a program or ends, and cannot be stopped meanwhile. */
static pid_t vfork_child(const struct process *process)
{
	size_t n, count;
	cleanup_free pid_t *tids = procfs_threads(process->proc, &n, NULL);
	cleanup_free pid_t *pids = tids ? procfs_children(process->proc, tids, n, &count, NULL) : NULL;
	for (size_t i = 0; pids && i < count; i++)
		if (syscall(SYS_kcmp, process->live, pids[i], KCMP_VM, 0, 0) == 0)
			return pids[i];
	return 0;
}

static int fail_to_stop(const struct process *process, struct fsnap_error *err)
{
	pid_t child = vfork_child(process);
	size_t first = 0;
	while (first + 1 < process->n_tasks && (!process->tasks[first]->seized || process->tasks[first]->stopped))
		first++;
	if (child) {
		fail(err, FSNAP_E_TARGET_BUSY, 0, "process %d (%s): thread %d waits in vfork(2) for process %d",
		     process->pid, process->comm, process->tasks[first]->tid, child);
		return error_hint(err, "try again when process %d has executed a program or ended", child);
	}
	fail(err, FSNAP_E_TARGET_BUSY, 0, "process %d (%s): thread %d does not stop", process->pid,
	     process->comm, process->tasks[first]->tid);
	return error_hint(err, "it waits for a device: see /proc/%d/stack", process->tasks[first]->tid);
}

/* It may have been killed since it was stopped, by SIGKILL or by another thread that executes a program. */
static bool leader_stands_still(const struct process *process)
{
	return process->n_tasks > 0 && process->tasks[0]->stopped && trace_stands_still(process->tasks[0]);
}

/* A thread has died: by itself, or because another one executes a program, which takes the number of the main
 * one with it. Whether it is still that one which stands still can be seen only by looking again. */
static void doubt_leader(struct process *process)
{
	struct task *leader = process->n_tasks ? process->tasks[0] : NULL;
	if (!leader || !leader->seized || !leader->stopped)
		return;
	leader->stopped = false;
	if (!trace_has_news(leader))
		trace_interrupt(leader);
}

/* Takes note of those that have stopped or died meanwhile; *left: how many have not. */
static int note_stops(struct process *process, size_t *left, struct fsnap_error *err)
{
	bool died = false;
	*left = 0;
	for (size_t i = 0; i < process->n_tasks; i++) {
		struct task *task = process->tasks[i];
		if (!task->seized || task->stopped)
			continue;
		enum trace_result result = trace_has_news(task) ? stop_task(task, err) : TRACE_OK;
		if (result == TRACE_FAILED)
			return -1;
		died = died || result == TRACE_DIED;
		*left += task->seized && !task->stopped;
	}
	if (died) {
		doubt_leader(process);
		*left += 1;
	}
	return 0;
}

/* In whatever order they come: a thread that executes another program cannot stop before all others
 * are dead and buried, and it is us they report to. */
static int await_stops(struct process *process, struct fsnap_error *err)
{
	size_t left;
	if (!leader_stands_still(process))
		doubt_leader(process);
	for (size_t rounds = 0;; rounds++) {
		if (note_stops(process, &left, err) < 0)
			return -1;
		if (left == 0)
			return 0;
		if (rounds > PATIENCE)
			return fail_to_stop(process, err);
		if (rounds < YIELDS) {
			sched_yield();
			continue;
		}
		usleep(NAP_US);
		if (trace_bury_threads(process))
			doubt_leader(process);
	}
}

/* Threads that the kernel has made for io_uring belong to the process but run nothing of it: they have
 * neither stack nor instruction there (arch/x86/kernel/process.c, copy_thread()). */
static bool is_worker(const struct task *task)
{
	return task->regs.rip == 0 && task->regs.rsp == 0;
}

static int set_workers_aside(struct process *process, size_t first, struct fsnap_error *err)
{
	size_t kept = first, room = process->n_workers + process->n_tasks - first;
	struct task **workers = realloc(process->workers, (room + 1) * sizeof(*workers));
	if (!workers)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "process %d", process->pid);
	process->workers = workers;
	for (size_t i = first; i < process->n_tasks; i++) {
		struct task *task = process->tasks[i];
		if (is_worker(task))
			workers[process->n_workers++] = task;
		else
			process->tasks[kept++] = task;
	}
	process->n_tasks = kept;
	return 0;
}

/* Those from `first` on have been asked to stop. */
static int await_asked(struct process *process, size_t first, size_t *found, struct fsnap_error *err)
{
	if (await_stops(process, err) < 0)
		return -1;
	first = drop_dead_tasks(process, first);
	*found += process->n_tasks - first;
	return set_workers_aside(process, first, err);
}

void ask_to_stop(struct process *process)
{
	struct task *task = process->n_tasks ? NULL : process_add_task(process, process->live);
	process->seizing = true;
	if (task && trace_seize(task, false, NULL) == TRACE_OK)
		trace_interrupt(task);
	else if (task)
		process_forget_tasks(process);
}

/* Seizes those of the threads that are new, and asks them to stop. */
static int seize_listed(struct process *process, const pid_t *tids, size_t count, struct fsnap_error *err)
{
	for (size_t i = 0; i < count; i++) {
		bool ended = process->image.leader_ended && tids[i] == process->pid;
		if (ended || process_has(process, tids[i]))
			continue;
		struct task *task = process_add_task(process, tids[i]);
		if (!task)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "process %d", process->pid);
		if (trace_seize(task, false, err) == TRACE_FAILED)
			return -1;
		if (task->seized)
			trace_interrupt(task);
	}
	return 0;
}

/* Seizes and stops those of the threads that are new; *found counts them. */
static int stop_listed(struct process *process, const pid_t *tids, size_t count, struct undertaker *undertaker,
		       size_t *found, struct fsnap_error *err)
{
	size_t first_new = process->n_tasks;
	if (undertaker_watch(undertaker, tids, count, err) < 0)
		return -1;
	int seized = seize_listed(process, tids, count, err);
	undertaker_look_away(undertaker);
	return seized < 0 ? -1 : await_asked(process, first_new, found, err);
}

/* The task directory's link count tells the number of threads without listing them. */
bool threads_are_known(const struct process *process)
{
	struct stat stat;
	return leader_stands_still(process) && fstatat(process->proc, "task", &stat, 0) == 0 &&
	       stat.st_nlink == process->n_tasks + process->n_workers + 2 + process->image.leader_ended;
}

/* Most processes have one thread: it is stopped first, and only if there are others they are listed. */
int stop_threads(struct process *process, struct undertaker *undertaker, size_t *found, struct fsnap_error *err)
{
	bool asked = process->n_tasks == 1 && !process->tasks[0]->stopped;
	process->seizing = true;
	if (asked ? await_asked(process, 0, found, err) < 0 :
		    process->n_tasks == 0 && stop_listed(process, &process->live, 1, undertaker, found, err) < 0)
		return -1;
	if ((process->still = threads_are_known(process)))
		return 0;
	size_t count;
	cleanup_free pid_t *tids = procfs_threads(process->proc, &count, err);
	return tids ? stop_listed(process, tids, count, undertaker, found, err) : -1;
}

bool has_many_threads(const struct process *process)
{
	struct stat stat;
	return fstatat(process->proc, "task", &stat, 0) == 0 && stat.st_nlink > 2 + UNDERTAKER_FEW;
}

bool stops_soon(const struct task *task)
{
	for (int rounds = 0; !trace_has_news(task); rounds++) {
		if (rounds > YIELDS)
			return false;
		usleep(NAP_US);
	}
	return true;
}
