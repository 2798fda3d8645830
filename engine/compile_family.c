/*
 * compile_family.c - the first operations of every plan: children, sessions, process groups, as
 * family.c has found that they can be had.
 */
#include <linux/sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/compile.h"
#include "store/scope.h"

/* --- before ------------------------------------------------------------------------- */

/* Can a process get this number? Only the kernel knows: sessions and groups outlive their leaders. */
static bool number_is_free(int pid)
{
	struct clone_args args = { .set_tid = (uintptr_t)&pid, .set_tid_size = 1 };
	long child = syscall(SYS_clone3, &args, sizeof(args));
	if (child == 0)
		_exit(0);
	if (child < 0)
		return errno != EEXIST; /* whatever else it is, it will be said when it matters */
	waitpid((pid_t)child, NULL, __WALL);
	return true;
}

/* The root's session and group may have other members, outside the tree, that are still there: then they
 * cannot be had, and are those of the restoring process as with any tree that began in a shell. */
static void borrow_if_taken(struct restore *restore, struct kin *kin, size_t n)
{
	int sid = kin[0].session_lost && !number_is_free(kin[0].sid) ? kin[0].sid : 0;
	int pgid = kin[0].group_lost && kin[0].pgid != kin[0].sid && !number_is_free(kin[0].pgid) ?
			   kin[0].pgid : sid;
	for (size_t i = 0; i < n; i++) {
		kin[i].session_lost = kin[i].session_lost && kin[i].sid != sid;
		kin[i].group_lost = kin[i].group_lost && kin[i].pgid != pgid && kin[i].pgid != sid;
	}
	if (sid || pgid)
		restore_note(restore, "the %s of process %d has other members that are still there: it comes back "
			     "in that of the restore", sid ? "session" : "process group", kin[0].pid);
}

static struct kin *list_kin(const struct model *model, struct fsnap_error *err)
{
	struct kin *kin = calloc(model->n_processes, sizeof(*kin));
	if (!kin)
		fail(err, FSNAP_E_NOMEM, ENOMEM, "the family of processes");
	for (size_t i = 0; kin && i < model->n_processes; i++) {
		const image_process *process = &model->processes[i];
		kin[i] = (struct kin){ .pid = process->pid, .ppid = process->ppid, .pgid = process->pgid,
				       .sid = process->sid, .exit_signal = process->exit_signal,
				       .zombie = process->zombie,
				       .session_lost = process->session_lost, .group_lost = process->group_lost };
	}
	if (kin)
		kin[0].exit_signal = SIGCHLD; /* we are its parent */
	return kin;
}

int family_prepare(struct restore *restore, struct fsnap_error *err)
{
	const struct model *model = &restore->model;
	struct kin *kin = list_kin(model, err);
	if (!kin)
		return -1;
	/* After `dump --kill` the last members of a session may still wait to be buried. */
	if ((kin[0].session_lost || kin[0].group_lost) && !restore->renumber.wanted) {
		launch_check_numbers(restore, NULL);
		borrow_if_taken(restore, kin, model->n_processes);
	}
	restore->family = (struct family){ .kin = kin, .n = model->n_processes };
	return family_plan(&restore->family, err);
}

/* --- memory in common ------------------------------------------------------------------ */

size_t family_bearer(const struct family *family, size_t number)
{
	const struct kin *kin = &family->kin[number];
	return kin->birth == BIRTH_STAND_IN ? family->stand_ins[kin->maker].parent : kin->maker;
}

int family_heirlooms_of(const struct model *model, const struct image *image, const struct family *family,
			const uint32_t *first_task, struct heirlooms **out, struct fsnap_error *err)
{
	cleanup_free struct heir *heirs = calloc(model->n_processes, sizeof(*heirs));
	if (!heirs)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plans");
	for (size_t i = 0; i < model->n_processes; i++) {
		const image_process *process = &model->processes[i];
		size_t from = family_bearer(family, i);
		heirs[i] = (struct heir){
			.mm = process->zombie ? NULL : model_mm(model, process->mm),
			.bearer = from == KIN_NONE ? -1 : (int)from,
			.task = first_task ? first_task[i] : 0,
		};
	}
	return heirlooms_find(out, image, heirs, model->n_processes, err);
}

int family_heirlooms(const struct model *model, const struct image *image, struct heirlooms **out,
		     struct fsnap_error *err)
{
	struct family family = { .kin = list_kin(model, err), .n = model->n_processes };
	*out = NULL;
	int result = family.kin ? family_plan(&family, err) : -1;
	if (result == 0)
		result = family_heirlooms_of(model, image, &family, NULL, out, err);
	family_free(&family);
	return result;
}

/* --- helpers -------------------------------------------------------------------------- */

int family_tasks(struct restore *restore, struct fsnap_error *err)
{
	struct family *family = &restore->family;
	restore->stand_in_task = calloc(family->n_stand_ins + 1, sizeof(uint32_t));
	restore->sigchld_data = calloc(family->n, sizeof(uint32_t));
	if (!restore->stand_in_task || !restore->sigchld_data)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plans");
	for (size_t i = 0; i < family->n_stand_ins; i++) {
		const struct stand_in *stand_in = &family->stand_ins[i];
		char who[96];
		snprintf(who, sizeof(who), "stand-in for the leader of %s %d",
			 stand_in->session ? "session" : "process group", stand_in->pid);
		restore->stand_in_task[i] = plans_task(restore->plans, stand_in->pid, who);
	}
	return 0;
}

static void end_helper(struct plans *plans, uint32_t task)
{
	plan_note(plans, "end");
	plan_call(plans, task, SYS_exit_group, IMM(0));
}

/* Right before process `number` forks those of kin[first] and its nexts that are born so, or a helper that
 * does it: what they are to inherit. */
static int bequeath(struct restore *restore, size_t number, size_t first, enum birth birth,
		    struct fsnap_error *err)
{
	const struct kin *kin = restore->family.kin;
	for (size_t i = first; i != KIN_NONE; i = kin[i].next)
		if (kin[i].birth == birth && heirlooms_lay(restore->heirlooms, restore->plans, &restore->source,
							   number, i, err) < 0)
			return -1;
	for (size_t i = first; i != KIN_NONE; i = kin[i].next)
		if (kin[i].birth == birth)
			heirlooms_born(restore->heirlooms, number, i);
	return 0;
}

static int bequeath_one(struct restore *restore, size_t number, size_t child, struct fsnap_error *err)
{
	if (heirlooms_lay(restore->heirlooms, restore->plans, &restore->source, number, child, err) < 0)
		return -1;
	heirlooms_born(restore->heirlooms, number, child);
	return 0;
}

static void make_siblings(struct restore *restore, uint32_t task, size_t first, enum birth birth)
{
	const struct family *family = &restore->family;
	for (size_t i = first; i != KIN_NONE; i = family->kin[i].next) {
		if (family->kin[i].birth != birth)
			continue;
		plan_note(restore->plans, "process %d, a child of our parent", family->kin[i].pid);
		plan_fork(restore->plans, task, restore->first_task[i], 0);
		plan_fork_flags(restore->plans, CLONE_PARENT);
	}
}

void family_helpers(struct restore *restore)
{
	struct plans *plans = restore->plans;
	for (size_t i = 0; i < restore->family.n_stand_ins; i++) {
		const struct stand_in *stand_in = &restore->family.stand_ins[i];
		uint32_t task = restore->stand_in_task[i];
		if (stand_in->session) {
			plan_note(plans, "session");
			plan_call(plans, task, SYS_setsid);
			make_siblings(restore, task, stand_in->first, BIRTH_STAND_IN);
		} else {
			plan_note(plans, "process group, until all have joined it");
			plan_call(plans, task, SYS_setpgid, IMM(0), IMM(0));
			plan_post_one_of(plans, task, BARRIER_GROUPS, restore->family.n_groups);
			plan_wait(plans, task, BARRIER_JOINED, restore->family.n_joiners);
		}
		end_helper(plans, task);
	}
}

/* --- children ----------------------------------------------------------------------------- */

static void bury(struct plans *plans, uint32_t task, struct arg pid)
{
	plan_call(plans, task, SYS_wait4, pid, IMM(0), IMM(__WALL), IMM(0));
}

static void make_orphan(struct restore *restore, uint32_t maker, size_t number)
{
	struct plans *plans = restore->plans;
	const struct kin *kin = &restore->family.kin[number];
	uint32_t helper = plans_task(plans, 0, "helper that leaves an orphan");
	plan_note(plans, "process %d, that comes to process %d when this helper has ended", kin->pid, kin->ppid);
	plan_fork(plans, helper, restore->first_task[number], kin->exit_signal);
	end_helper(plans, helper);
	plan_note(plans, "process %d, that comes to process %d as an orphan", kin->pid, kin->ppid);
	plan_fork(plans, maker, helper, 0);
	bury(plans, maker, SLOT(plan_result(plans)));
	plan_post_one_of(plans, maker, BARRIER_ORPHANS, restore->family.n_orphans);
}

static int make_children(struct restore *restore, uint32_t task, size_t number, bool before,
			 struct fsnap_error *err)
{
	const struct family *family = &restore->family;
	for (size_t i = family->kin[number].first; i != KIN_NONE; i = family->kin[i].next) {
		const struct kin *child = &family->kin[i];
		if (child->birth != BIRTH_CHILD || child->before != before)
			continue;
		if (bequeath_one(restore, number, i, err) < 0)
			return -1;
		plan_note(restore->plans, "child process %d", child->pid);
		plan_fork(restore->plans, task, restore->first_task[i], child->exit_signal);
	}
	return 0;
}

/* Those that the leader of a session makes for others. */
static int make_relatives(struct restore *restore, uint32_t task, size_t number, struct fsnap_error *err)
{
	const struct family *family = &restore->family;
	size_t first = family->kin[number].first;
	if (bequeath(restore, number, first, BIRTH_SIBLING, err) < 0)
		return -1;
	make_siblings(restore, task, first, BIRTH_SIBLING);
	for (size_t i = first; i != KIN_NONE; i = family->kin[i].next) {
		if (family->kin[i].birth != BIRTH_ORPHAN)
			continue;
		if (bequeath_one(restore, number, i, err) < 0)
			return -1;
		make_orphan(restore, task, i);
	}
	return 0;
}

static int make_stand_ins(struct restore *restore, uint32_t task, size_t number, bool session,
			  struct fsnap_error *err)
{
	const struct family *family = &restore->family;
	for (size_t i = family->kin[number].first_stand_in; i != KIN_NONE; i = family->stand_ins[i].next) {
		const struct stand_in *stand_in = &family->stand_ins[i];
		if (stand_in->session != session)
			continue;
		if (bequeath(restore, number, stand_in->first, BIRTH_STAND_IN, err) < 0)
			return -1;
		plan_note(restore->plans, "stand-in for process %d", stand_in->pid);
		plan_fork(restore->plans, task, restore->stand_in_task[i], stand_in->exit_signal);
		if (session)
			bury(restore->plans, task, plan_number(restore->plans, task, stand_in->pid));
	}
	return 0;
}

static void bury_stand_ins(struct restore *restore, uint32_t task, size_t number)
{
	const struct family *family = &restore->family;
	for (size_t i = family->kin[number].first_stand_in; i != KIN_NONE; i = family->stand_ins[i].next)
		if (!family->stand_ins[i].session)
			bury(restore->plans, task,
			     plan_number(restore->plans, task, family->stand_ins[i].pid));
}

/* --- groups ----------------------------------------------------------------------------------- */

/* Is the tree in the foreground of our terminal, as a shell's job is? Then its own group must get
 * the terminal before it runs, or its first read() stops it. */
static bool takes_terminal(const struct restore *restore, const struct kin *root)
{
	if (restore->options->detach || root->sid == root->pid || root->session_lost || !root->joins)
		return false;
	return isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp();
}

static void join_group(struct restore *restore, uint32_t task, const struct kin *kin)
{
	struct plans *plans = restore->plans;
	if (kin->joins == kin->pid) {
		plan_note(plans, "process group");
		plan_call(plans, task, SYS_setpgid, IMM(0), IMM(0));
	} else if (kin->joins) {
		plan_note(plans, "process group of %d", kin->joins);
		plan_wait(plans, task, BARRIER_GROUPS, restore->family.n_groups);
		plan_call(plans, task, SYS_setpgid, IMM(0), plan_number(plans, task, kin->joins));
		if (kin->group_lost)
			plan_post_one_of(plans, task, BARRIER_JOINED, restore->family.n_joiners);
	}
	if (kin->pgid == kin->pid) /* setsid() has begun it otherwise */
		plan_post_one_of(plans, task, BARRIER_GROUPS, restore->family.n_groups);
}

/* --- the whole ---------------------------------------------------------------------------------- */

void family_await_parent(struct restore *restore, const image_process *process)
{
	const struct family *family = &restore->family;
	uint32_t task = leader_task(restore, process);
	if (family->kin[process - restore->model.processes].birth != BIRTH_ORPHAN)
		return;
	plan_note(restore->plans, "come to our parent");
	plan_wait(restore->plans, task, BARRIER_ORPHANS, family->n_orphans);
}

int family_build(struct restore *restore, const image_process *process, struct fsnap_error *err)
{
	struct plans *plans = restore->plans;
	uint32_t task = leader_task(restore, process);
	size_t number = (size_t)(process - restore->model.processes);
	const struct kin *kin = &restore->family.kin[number];
	if (kin->adopts) {
		plan_note(plans, "adopt orphans of the restore");
		plan_call(plans, task, SYS_prctl, IMM(PR_SET_CHILD_SUBREAPER), IMM(1));
	}
	if (make_children(restore, task, number, true, err) < 0)
		return -1;
	if (process->sid == process->pid) {
		plan_note(plans, "session");
		plan_call(plans, task, SYS_setsid);
		terminals_take(restore, process->pid, plans, task);
		if (process->terminal && !terminals_of(restore, process->pid))
			restore_note(restore, "process %d (%s) led the session of a terminal outside the tree: it has no "
				     "controlling terminal any more, and no job control", process->pid,
				     process->threads.threads_val[0].comm);
	}
	if (make_stand_ins(restore, task, number, true, err) < 0 ||
	    make_children(restore, task, number, false, err) < 0 ||
	    make_relatives(restore, task, number, err) < 0 ||
	    make_stand_ins(restore, task, number, false, err) < 0)
		return -1;
	join_group(restore, task, kin);
	bury_stand_ins(restore, task, number);
	if (process->ppid == 0 && takes_terminal(restore, kin)) {
		restore->report->terminal = 1;
		uint32_t group = plans_data(plans, &process->pgid, sizeof(process->pgid), 4);
		plan_note(plans, "foreground of the terminal");
		plan_number_into(plans, task, DATA(group), process->pgid);
		plan_call(plans, task, SYS_ioctl, IMM(restore->stdio[0]), IMM(TIOCSPGRP), DATA(group));
	}
	return 0;
}

void family_foreground(struct restore *restore, const image_process *process)
{
	uint32_t task = leader_task(restore, process);
	if (process->sid != process->pid || !terminals_of(restore, process->pid))
		return;
	plan_note(restore->plans, "until all process groups are there");
	plan_wait(restore->plans, task, BARRIER_GROUPS, restore->family.n_groups);
	terminals_foreground(restore, process->pid, restore->plans, task);
}

/* Zombies have to be dead, and not waited for, before the program looks. */
void family_await_zombies(struct restore *restore, const image_process *parent)
{
	const struct kin *kin = restore->family.kin;
	size_t i = kin[parent - restore->model.processes].first_child;
	for (; i != KIN_NONE; i = kin[i].next_child) {
		if (!kin[i].zombie)
			continue;
		plan_note(restore->plans, "child %d has ended", kin[i].pid);
		uint32_t task = leader_task(restore, parent);
		plan_call(restore->plans, task, SYS_waitid, IMM(P_PID),
			  plan_number(restore->plans, task, kin[i].pid), IMM(0),
			  IMM(WEXITED | WNOWAIT | __WALL), IMM(0));
	}
}

uint64_t family_exit_signals(const struct restore *restore, const image_process *parent)
{
	const struct kin *kin = restore->family.kin;
	uint64_t signals = 0;
	size_t i = kin[parent - restore->model.processes].first_child;
	for (; i != KIN_NONE; i = kin[i].next_child)
		if (kin[i].zombie && kin[i].exit_signal > 0 && kin[i].exit_signal <= 64)
			signals |= 1ull << (kin[i].exit_signal - 1);
	return signals;
}

void family_await_orphans(struct restore *restore, const image_process *process)
{
	const struct family *family = &restore->family;
	uint32_t task = leader_task(restore, process);
	bool adopts = family->kin[process - restore->model.processes].adopts;
	if (!family->n_orphans || (!adopts && !process->subreaper))
		return;
	plan_note(restore->plans, "until all orphans have come to their parents");
	plan_wait(restore->plans, task, BARRIER_ORPHANS, family->n_orphans);
	if (!process->subreaper)
		plan_call(restore->plans, task, SYS_prctl, IMM(PR_SET_CHILD_SUBREAPER), IMM(0));
}
