/*
 * release.c - tasks that have run their plans become the program: everything that can fail comes before the first
 * of them runs.
 */
#include <string.h>
#include <sys/syscall.h>

#include "engine/aside.h"
#include "engine/job_control.h"
#include "engine/restore.h"
#include "engine/sleeps.h"
#include "engine/takeback.h"
#include "engine/trace.h"

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
	const image_process *image = process->becomes;
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
	const image_process *image = process->becomes;
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

/* A tree that ends at once takes those along that we still hold: a caller that lives on would keep them from being
 * waited for. But the root is the caller's own. */
static void bury(struct tree *tree)
{
	for (size_t i = 0; i < tree->n_processes; i++)
		for (size_t j = tree->processes[i]->n_tasks; j-- > 0;)
			if (i > 0 || j > 0)
				trace_await_end(tree->processes[i]->tasks[j]);
}

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
	if (streaming_begin(restore, err) < 0)
		return -1;
	workshop_release(restore);
	takeback_keep(restore);
	if (tree->n_processes == 1)
		aside_step();
	let_live(tree);
	for (size_t i = 0; i < tree->n_processes; i++) {
		struct process *process = tree->processes[i];
		for (size_t j = 0; j < process->n_tasks; j++)
			trace_detach(process->tasks[j]);
	}
	bury(tree);
	return 0;
}
