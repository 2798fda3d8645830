#include "engine/job_control.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "engine/compile.h"
#include "engine/renumber.h"
#include "engine/trace.h"

/* --- dump -------------------------------------------------------------------------- */

void jobs_ask(struct process *parent, struct plans *plans)
{
	for (struct process *child = parent->first_child; child; child = child->next_sibling) {
		if (child->image.zombie)
			continue;
		plan_note(plans, "was child %d continued?", child->pid);
		child->continued_ask = plans_data(plans, NULL, sizeof(siginfo_t), 8);
		plan_call(plans, 0, SYS_waitid, IMM(P_PID), IMM(child->pid), DATA(child->continued_ask),
			  IMM(WCONTINUED | WNOHANG | WNOWAIT | __WALL), IMM(0));
		plan_accept_any(plans); /* ECHILD: it died since, which will be seen */
	}
}

void jobs_answer(struct process *parent, const struct plans *plans, struct ctl *ctl)
{
	for (struct process *child = parent->first_child; child; child = child->next_sibling) {
		if (child->image.zombie)
			continue;
		const siginfo_t *info = plans_data_at(plans, ctl, child->continued_ask);
		child->image.continued = info->si_pid == child->pid && info->si_code == CLD_CONTINUED;
	}
}

/* --- restore: continued ---------------------------------------------------------------- */

/* SIGCONT must have its default action meanwhile; what is left of it goes away with that (sigaction(2)). */
static void default_action(struct restore *restore, uint32_t task, int signo)
{
	uint32_t none = plans_data(restore->plans, NULL, 32, 8);
	plan_call(restore->plans, task, SYS_rt_sigaction, IMM(signo), DATA(none), IMM(0), IMM(8));
}

void jobs_stop_once(struct restore *restore, const image_process *process)
{
	uint32_t task = leader_task(restore, process);
	if (!process->continued || !process->ppid)
		return;
	plan_note(restore->plans, "stop, for the parent to continue us");
	default_action(restore, task, SIGCONT);
	plan_call(restore->plans, task, SYS_kill, plan_number(restore->plans, task, process->pid), IMM(SIGSTOP));
	default_action(restore, task, SIGCONT);
}

void jobs_continue_children(struct restore *restore, const image_process *parent)
{
	const struct kin *kin = restore->family.kin;
	size_t i = kin[parent - restore->model.processes].first_child;
	uint32_t task = leader_task(restore, parent);
	for (; i != KIN_NONE; i = kin[i].next_child) {
		if (!restore->model.processes[i].continued)
			continue;
		plan_note(restore->plans, "continue child %d, and do not ask about it", kin[i].pid);
		struct arg child = plan_number(restore->plans, task, kin[i].pid);
		plan_call(restore->plans, task, SYS_waitid, IMM(P_PID), child, IMM(0),
			  IMM(WSTOPPED | WNOWAIT | __WALL), IMM(0));
		plan_call(restore->plans, task, SYS_kill, child, IMM(SIGCONT));
	}
}

/* --- restore: stopped --------------------------------------------------------------------- */

static bool has_stopped_children(const struct restore *restore, const image_process *parent)
{
	const struct kin *kin = restore->family.kin;
	size_t i = kin[parent - restore->model.processes].first_child;
	while (i != KIN_NONE && !restore->model.processes[i].stopped)
		i = kin[i].next_child;
	return i != KIN_NONE;
}

static bool is_pending(const image_process *process, int signo)
{
	for (u_int i = 0; i < process->pending.pending_len; i++) {
		siginfo_t info;
		memcpy(&info, process->pending.pending_val[i].raw, sizeof(info));
		if (info.si_signo == signo)
			return true;
	}
	return false;
}

/* A SIGCHLD that is pending already swallows those that follow. */
bool jobs_hold_sigchld(const struct restore *restore, const image_process *parent)
{
	return has_stopped_children(restore, parent) && !is_pending(parent, SIGCHLD);
}

/* A handler, or being ignored, was set when it stood still already: then SIGSTOP is all that will stop it. */
static int stop_signal(const image_process *process)
{
	for (u_int i = 0; i < process->actions.actions_len; i++)
		if (process->actions.actions_val[i].signo == (int)process->stopped &&
		    process->actions.actions_val[i].handler)
			return SIGSTOP;
	return (int)process->stopped;
}

static int stop_job(const image_process *image, struct process *process, struct fsnap_error *err)
{
	for (size_t i = 0; i < process->n_tasks; i++) {
		struct task *task = process->tasks[i];
		enum trace_result result = i == 0 ? trace_stop_job(task, stop_signal(image), err) :
						    trace_join_stop(task, err);
		if (trace_check(result, task, err) < 0)
			return -1;
	}
	return 0;
}

static int call(struct restore *restore, struct process *process, long nr, const uint64_t args[6],
		struct fsnap_error *err)
{
	const image_process *image = process->becomes;
	uint64_t at = model_mm(&restore->model, image->mm)->syscall_gadget;
	int64_t result;
	if (trace_check(trace_call(process->tasks[0], at, 0, nr, args, &result, err), process->tasks[0], err) < 0)
		return -1;
	if (result < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, (int)-result, "process %d: system call %ld about its children",
			    process->pid, nr);
	return 0;
}

/* What it was told of stopped children it is told now, and no more: then SIGCHLD gets its action. */
static int tell_parent(struct restore *restore, struct process *process, struct fsnap_error *err)
{
	const image_process *parent = process->becomes;
	const struct kin *kin = restore->family.kin;
	if (!has_stopped_children(restore, parent))
		return 0;
	for (size_t i = kin[parent - restore->model.processes].first_child; i != KIN_NONE; i = kin[i].next_child) {
		const image_process *child = &restore->model.processes[i];
		const uint64_t wait[6] = { (uint64_t)restore_number(restore, child->pid), 0,
					   WUNTRACED | WNOHANG | __WALL };
		if (child->stopped && child->stop_told && call(restore, process, SYS_wait4, wait, err) < 0)
			return -1;
	}
	uint32_t data = restore->sigchld_data[parent - restore->model.processes];
	if (!jobs_hold_sigchld(restore, parent))
		return 0;
	struct ctl *ctl = (struct ctl *)((char *)restore->control + AGENT_TEXT);
	const uint64_t action[6] = { SIGCHLD, (uintptr_t)plans_data_at(restore->plans, ctl, data), 0, 8 };
	return call(restore, process, SYS_rt_sigaction, action, err);
}

int jobs_stop(struct restore *restore, struct fsnap_error *err)
{
	struct tree *tree = &restore->tracees;
	for (size_t i = 0; i < tree->n_processes; i++) {
		const image_process *image = tree->processes[i]->becomes;
		if (image->stopped && stop_job(image, tree->processes[i], err) < 0)
			return -1;
	}
	for (size_t i = 0; i < tree->n_processes; i++)
		if (tell_parent(restore, tree->processes[i], err) < 0)
			return -1;
	return 0;
}
