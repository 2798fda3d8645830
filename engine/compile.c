/*
 * compile.c - an image becomes one plan per task.
 *
 * What a process does, in order:
 *
 *	die with the restorer            until it is released
 *	forget what it inherited         forking little is cheap, so memory comes last; but
 *	lay what its children share      restorer/heirloom.h
 *	children, session, children      those of the old session before setsid(): compile_family.c
 *	process group, terminal
 *	wait for children to end         those that had ended
 *	memory
 *	descriptors, directories, locks
 *	threads
 *	signals, timers, names, ...      engine/state/
 *	owners of descriptors' signals   when everybody is born
 *	late descriptors                 pidfds: settle_files.c
 *	PARK 1                           the engine takes hold of every task, and equips late files
 *	limits, filters, credentials     from here on it may do no more than the program may
 *	dumpable, timers armed           when that is true of everybody; timers of descriptors, too
 *	end                              parks for good; registers are set from outside
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/clocks.h"
#include "engine/compile.h"
#include "engine/job_control.h"
#include "engine/keeper.h"
#include "engine/machine.h"
#include "engine/renumber.h"
#include "engine/restore.h"
#include "engine/sleeps.h"
#include "engine/template.h"
#include "store/scope.h"

/* --- a process, a thread ------------------------------------------------------------------ */

static struct rebuild rebuild_of(struct restore *restore, const image_process *process, u_int thread)
{
	return (struct rebuild){
		.plans = restore->plans,
		.task = leader_task(restore, process) + thread,
		.process = process,
		.thread = &process->threads.threads_val[thread],
		.mm = model_mm(&restore->model, process->mm),
		.self = &restore->self,
		.common_filters = restore->common_filters[process - restore->model.processes],
	};
}

/* The first that may be done only while the tracer suspends filters. */
static int share_filters(struct restore *restore, const struct rebuild *r, bool leader, struct fsnap_error *err)
{
	if (!r->common_filters)
		return 0;
	if (!leader)
		plan_wait(restore->plans, r->task, BARRIER_FILTERS, restore->n_filtered);
	else if (seccomp_rebuild_common(r, err) < 0)
		return -1;
	else
		plan_post_one_of(restore->plans, r->task, BARRIER_FILTERS, restore->n_filtered);
	return 0;
}

static void end_parked(struct restore *restore, uint32_t task, const struct rebuild *r, bool leader)
{
	plan_note(restore->plans, "privileges given up");
	plan_post_one_of(restore->plans, task, BARRIER_PRIVILEGES, restore->n_parking);
	if (!leader)
		return;
	plan_wait(restore->plans, task, BARRIER_PRIVILEGES, restore->n_parking);
	identity_settle(r);
	arm_files(restore, r->process, task);
	timers_arm(r);
}

static int compile_thread(struct restore *restore, const image_process *process, u_int thread,
			  struct fsnap_error *err)
{
	struct rebuild r = rebuild_of(restore, process, thread);
	rebuild_task(&r);
	settle_task_files(restore, process, r.thread->tid, r.task);
	plan_park(restore->plans, r.task, 1);
	settle_parked_files(restore, process, r.thread->tid, r.task);
	if (share_filters(restore, &r, false, err) < 0 || rebuild_privileges(&r, err) < 0)
		return -1;
	end_parked(restore, r.task, &r, false);
	return 0;
}

/* An ended child: it ends again, the way it did. */
static int compile_zombie(struct restore *restore, const image_process *process, struct fsnap_error *err)
{
	struct plans *plans = restore->plans;
	uint32_t task = leader_task(restore, process);
	int status = process->wait_status;
	const char *comm = process->threads.threads_val[0].comm;
	struct rebuild r = rebuild_of(restore, process, 0);
	if (heirlooms_enter(restore->heirlooms, plans, &restore->source,
			    (size_t)(process - restore->model.processes), err) < 0 ||
	    family_build(restore, process, err) < 0)
		return -1;
	creds_rebuild_task(&r);
	plan_note(plans, "end as it had ended");
	plan_call(plans, task, SYS_prctl, IMM(PR_SET_NAME), DATA(plans_data(plans, comm, strlen(comm) + 1, 1)));
	if (WCOREDUMP(status))
		restore_note(restore, "process %d had left a core dump; its status does not say so any more",
			     process->pid);
	if (WIFSIGNALED(status)) {
		int signo = WTERMSIG(status);
		uint64_t none = 0;
		struct {
			uint64_t handler, flags, restorer, mask;
		} action = { 0 };
		plan_call(plans, task, SYS_rt_sigaction, IMM(signo),
			  DATA(plans_data(plans, &action, sizeof(action), 8)), IMM(0), IMM(8));
		plan_accept_any(plans); /* SIGKILL has no handler to reset */
		plan_call(plans, task, SYS_prctl, IMM(PR_SET_DUMPABLE), IMM(0)); /* no core this time */
		plan_call(plans, task, SYS_kill, plan_number(plans, task, process->pid), IMM(signo));
		plan_call(plans, task, SYS_rt_sigprocmask, IMM(SIG_SETMASK),
			  DATA(plans_data(plans, &none, 8, 8)), IMM(0), IMM(8));
	}
	plan_call(plans, task, SYS_exit_group, IMM(WEXITSTATUS(status)));
	return 0;
}

static void die_with_restore(struct plans *plans, const image_process *process, uint32_t task)
{
	plan_note(plans, "end if the restore is given up");
	plan_call(plans, task, SYS_prctl, IMM(PR_SET_PDEATHSIG), IMM(SIGKILL));
	/* A parent that died before that does not count. */
	struct arg parent = process->ppid ? plan_number(plans, task, process->ppid) : IMM(getpid());
	plan_call(plans, task, SYS_getppid);
	plan_accept(plans, parent);
}

static void make_threads(struct plans *plans, const image_process *process, uint32_t task)
{
	for (u_int i = 1; i < process->threads.threads_len; i++) {
		plan_note(plans, "thread %d", process->threads.threads_val[i].tid);
		plan_thread(plans, task, task + i);
	}
}

/* What the restoring process has is not the program's, but what is held for it. */
static void begin_memory(struct restore *restore, uint32_t task)
{
	const struct fsnap_template *from = restore->options->from;
	if (!restore->keeper)
		memory_clear(restore->plans, task, &restore->source);
	for (size_t i = 0; restore->areas_lost && i < from->n_areas; i++)
		plan_call(restore->plans, task, SYS_munmap, IMM(from->areas[i].start),
			  IMM(from->areas[i].end - from->areas[i].start));
}

static int build_memory(struct restore *restore, size_t index, const image_mm *mm, struct memory_part *part,
			struct fsnap_error *err)
{
	struct plans *plans = restore->plans;
	uint32_t task = restore->first_task[index];
	struct template_part held;
	int result = template_part(restore->options->from, restore->keeper, restore->image,
				   (size_t)(mm - restore->model.mms), mm, part, &held, err);
	if (result == 0 && (streaming_choose(restore, index, mm, part, err) < 0 ||
			    (!part->settled && memory_specials(plans, task, &restore->source, mm, err) < 0) ||
			    memory_build(plans, task, &restore->source, mm, part, err) < 0))
		result = -1;
	if (result == 0)
		memory_fields(plans, task, &restore->source, mm);
	template_part_free(&held);
	return result;
}

static int compile_process(struct restore *restore, const image_process *process, struct fsnap_error *err)
{
	struct plans *plans = restore->plans;
	uint32_t task = leader_task(restore, process);
	struct rebuild r = rebuild_of(restore, process, 0);
	r.forget = family_exit_signals(restore, process);
	if (jobs_hold_sigchld(restore, process))
		r.hold_sigchld = &restore->sigchld_data[process - restore->model.processes];
	const image_mm *mm = model_mm(&restore->model, process->mm);
	family_await_parent(restore, process);
	size_t from = family_bearer(&restore->family, (size_t)(process - restore->model.processes));
	cgroups_join(restore, process, from == KIN_NONE ? NULL : &restore->model.processes[from], task);
	die_with_restore(plans, process, task);
	rebuild_first(&r);
	if (process->ppid == 0)
		begin_memory(restore, task);
	size_t index = (size_t)(process - restore->model.processes);
	struct memory_part part;
	if (heirlooms_enter(restore->heirlooms, plans, &restore->source, index, err) < 0 ||
	    family_build(restore, process, err) < 0)
		return -1;
	family_await_zombies(restore, process);
	jobs_stop_once(restore, process);
	jobs_continue_children(restore, process);
	helpers_turn_to(restore, process);
	if (heirlooms_settle(restore->heirlooms, plans, &restore->source, index, &part, err) < 0)
		return -1;
	if (build_memory(restore, index, mm, &part, err) < 0)
		return -1;
	family_foreground(restore, process);
	descriptors_build(restore, process);
	make_threads(plans, process, task);
	family_await_orphans(restore, process);
	if (process->leader_ended)
		identity_rebuild_task(&r);
	else
		rebuild_task(&r);
	if (!process->leader_ended)
		settle_task_files(restore, process, process->pid, task);
	if (rebuild_process(&r, err) < 0)
		return -1;
	ipc_rebuild(restore, process, task);
	plan_post_one_of(plans, task, BARRIER_BORN, restore->report->processes);
	plan_wait(plans, task, BARRIER_BORN, restore->report->processes);
	ipc_sign(restore, process, task);
	descriptors_own_signals(restore, process, task);
	if (arrive_files(restore, process, task, BARRIER_ARRIVED, err) < 0)
		return -1;
	renumber_wipe(restore, process, task);
	plan_park(plans, task, 1);
	if (!process->leader_ended)
		settle_parked_files(restore, process, process->pid, task);
	streaming_leave(restore, process, task);
	limits_rebuild(&r);
	if (share_filters(restore, &r, true, err) < 0 || rebuild_privileges(&r, err) < 0)
		return -1;
	end_parked(restore, task, &r, true);
	if (process->leader_ended) {
		plan_note(plans, "end as it had ended; the others go on");
		plan_call(plans, task, SYS_exit, IMM(WEXITSTATUS(process->wait_status)));
	}
	for (u_int i = 1; i < process->threads.threads_len; i++)
		if (compile_thread(restore, process, i, err) < 0)
			return -1;
	return 0;
}

/* --- all --------------------------------------------------------------------------------------- */

static int number_tasks(struct restore *restore, struct fsnap_error *err)
{
	const struct model *model = &restore->model;
	uint32_t wanted = 0;
	restore->plans = plans_new();
	restore->first_task = calloc(model->n_processes, sizeof(*restore->first_task));
	restore->common_filters = calloc(model->n_processes, sizeof(*restore->common_filters));
	if (!restore->plans || !restore->first_task || !restore->common_filters)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plans");
	for (size_t i = 0; i < model->n_processes; i++) {
		const image_process *process = &model->processes[i];
		char who[96];
		snprintf(who, sizeof(who), "process %d (%s)", process->pid,
			 process->threads.threads_val[0].comm);
		restore->first_task[i] = plans_task(restore->plans, process->pid, who);
		wanted++;
		if (process->zombie)
			continue;
		restore->common_filters[i] = seccomp_common(process);
		restore->n_filtered += restore->common_filters[i] > 0;
		restore->report->processes++;
		restore->report->threads += process->threads.threads_len - process->leader_ended;
		restore->n_leaving += process->leader_ended;
		for (u_int j = 1; j < process->threads.threads_len; j++) {
			snprintf(who, sizeof(who), "process %d thread %d (%s)", process->pid,
				 process->threads.threads_val[j].tid, process->threads.threads_val[j].comm);
			plans_task(restore->plans, process->threads.threads_val[j].tid, who);
			wanted++;
		}
	}
	if (plans_task_count(restore->plans) != wanted) /* there are arrays as long as that */
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plans");
	restore->n_parking = restore->report->threads + restore->n_leaving;
	return family_tasks(restore, err) < 0 ? -1 : renumber_prepare(restore, err);
}

static int find_heirlooms(struct restore *restore, struct fsnap_error *err)
{
	if (family_heirlooms_of(&restore->model, restore->image, &restore->family, restore->first_task,
				&restore->heirlooms, err) < 0)
		return -1;
	restore->areas_lost = !template_offer(restore->options->from, restore->heirlooms, &restore->source) &&
			      restore->keeper;
	return 0;
}

/* What a process finds at birth is known when the plan of its bearer is written. */
static int compile_in_turn(struct restore *restore, size_t number, bool *done, struct fsnap_error *err)
{
	const image_process *process = &restore->model.processes[number];
	size_t from = family_bearer(&restore->family, number);
	if (done[number])
		return 0;
	done[number] = true;
	if (from != KIN_NONE && compile_in_turn(restore, from, done, err) < 0)
		return -1;
	if ((process->zombie ? compile_zombie : compile_process)(restore, process, err) < 0)
		return error_context(err, "process %d", process->pid);
	return 0;
}

/* Whoever restores detached is a parent that is about to end. */
static void forget_parent_death(struct restore *restore)
{
	image_process *root = &restore->model.processes[0];
	for (u_int i = 0; i < root->threads.threads_len && restore->options->detach; i++) {
		if (root->threads.threads_val[i].pdeath_signal)
			restore_note(restore, "process %d asks for signal %d when its parent ends: not set, as that "
				     "is fsnap", root->pid, root->threads.threads_val[i].pdeath_signal);
		root->threads.threads_val[i].pdeath_signal = 0;
	}
}

/* Everybody else descends from it. */
static uint32_t first_born(const struct restore *restore)
{
	const struct kin *root = &restore->family.kin[0];
	return root->birth == BIRTH_STAND_IN ? restore->stand_in_task[root->maker] : restore->first_task[0];
}

int compile(struct restore *restore, struct fsnap_error *err)
{
	forget_parent_death(restore);
	fit_affinities(restore);
	if (family_prepare(restore, err) < 0 || number_tasks(restore, err) < 0 || find_heirlooms(restore, err) < 0)
		return -1;
	clocks_enter(restore, first_born(restore));
	helpers_prepare(restore);
	family_helpers(restore);
	if (sleeps_prepare(restore, err) < 0)
		return -1;
	cleanup_free bool *done = calloc(restore->model.n_processes, sizeof(*done));
	if (!done)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plans");
	for (size_t i = 0; i < restore->model.n_processes; i++)
		if (compile_in_turn(restore, i, done, err) < 0)
			return -1;
	return 0;
}
