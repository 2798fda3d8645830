/*
 * identity.c - how a task is called, and what it has told the kernel about itself.
 */
#include <fcntl.h>
#include <linux/prctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "engine/state/state.h"
#include "engine/told.h"
#include "store/scope.h"

#define NAME_SIZE 16	    /* TASK_COMM_LEN */
#define ROBUST_LIST_SIZE 24 /* of struct robust_list_head; the kernel takes no other */

/* --- dump ------------------------------------------------------------------------- */

int identity_read(const struct process *process, image_process *image, struct fsnap_error *err)
{
	cleanup_free char *score = told_read(process, TOLD_OOM_SCORE, err);
	cleanup_free char *filter = score ? told_read(process, TOLD_CORE_FILTER, err) : NULL;
	if (!filter)
		return -1;
	image->oom_score_adj = (int)strtol(score, NULL, 10);
	image->coredump_filter = (unsigned)strtol(filter, NULL, 16);
	return 0;
}

int identity_collect(struct survey *survey, struct fsnap_error *err)
{
	image_process *image = &survey->process->image;
	image->umask = survey->task[0].status.umask;
	if (identity_read(survey->process, image, err) < 0)
		return error_context(err, "process %d", survey->process->pid);
	return 0;
}

int identity_collect_task(struct task_survey *survey, struct fsnap_error *err)
{
	struct task *task = survey->task;
	void *head = NULL;
	size_t size;
	if (syscall(SYS_get_robust_list, task->tid, &head, &size) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno,
			    "process %d: reading the list of robust futexes of thread %d",
			    task->process->pid, task->tid);
	task->image.robust_list = (uint64_t)(uintptr_t)head;
	return 0;
}

void identity_ask(struct survey *survey, struct plans *plans)
{
	struct process_asks *asks = &survey->asks;
	uint32_t plan = survey->task[0].plan;
	plan_note(plans, "ask for dumpable, THP and child subreaper");
	plan_call(plans, plan, SYS_prctl, IMM(PR_GET_DUMPABLE));
	asks->dumpable = plan_result(plans);
	plan_call(plans, plan, SYS_prctl, IMM(PR_GET_THP_DISABLE));
	asks->thp_disable = plan_result(plans);
	asks->subreaper = plans_data(plans, NULL, sizeof(int), 4);
	plan_call(plans, plan, SYS_prctl, IMM(PR_GET_CHILD_SUBREAPER), DATA(asks->subreaper));
}

void identity_answer(struct survey *survey, const struct plans *plans, struct ctl *ctl)
{
	image_process *image = &survey->process->image;
	const struct process_asks *asks = &survey->asks;
	image->dumpable = (unsigned)plans_slot(plans, ctl, asks->dumpable);
	image->thp_disable = (unsigned)plans_slot(plans, ctl, asks->thp_disable);
	image->subreaper = *(unsigned *)plans_data_at(plans, ctl, asks->subreaper);
}

void identity_ask_task(struct task_survey *task, struct plans *plans)
{
	struct task_asks *asks = &task->asks;
	plan_note(plans, "ask for the name, the thread-exit futex and the parent-death signal");
	asks->name = plans_data(plans, NULL, NAME_SIZE, 1);
	plan_call(plans, task->plan, SYS_prctl, IMM(PR_GET_NAME), DATA(asks->name));
	asks->tid_address = plans_data(plans, NULL, sizeof(uint64_t), 8);
	plan_call(plans, task->plan, SYS_prctl, IMM(PR_GET_TID_ADDRESS), DATA(asks->tid_address));
	asks->pdeath_signal = plans_data(plans, NULL, sizeof(int), 4);
	plan_call(plans, task->plan, SYS_prctl, IMM(PR_GET_PDEATHSIG), DATA(asks->pdeath_signal));
}

int identity_answer_task(struct task_survey *survey, const struct plans *plans, struct ctl *ctl,
			 struct fsnap_error *err)
{
	image_thread *image = &survey->task->image;
	const struct task_asks *asks = &survey->asks;
	free(image->comm);
	image->comm = strndup(plans_data_at(plans, ctl, asks->name), NAME_SIZE);
	if (!image->comm)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "copying the name of a thread");
	image->clear_child_tid = *(uint64_t *)plans_data_at(plans, ctl, asks->tid_address);
	image->pdeath_signal = *(int *)plans_data_at(plans, ctl, asks->pdeath_signal);
	return 0;
}

/* --- restore ------------------------------------------------------------------------ */

static void write_own(const struct rebuild *r, const char *path, const char *format, long value)
{
	char text[32];
	int length = snprintf(text, sizeof(text), format, value);
	plan_note(r->plans, "%s: %s", path, text);
	plan_call(r->plans, r->task, SYS_openat, IMM(AT_FDCWD),
		  DATA(plans_data(r->plans, path, strlen(path) + 1, 1)), IMM(O_WRONLY | O_CLOEXEC));
	uint32_t fd = plan_result(r->plans);
	plan_call(r->plans, r->task, SYS_write, SLOT(fd),
		  DATA(plans_data(r->plans, text, (size_t)length + 1, 1)), IMM(length));
	plan_accept_equal(r->plans, length);
	plan_call(r->plans, r->task, SYS_close, SLOT(fd));
}

void identity_first(const struct rebuild *r)
{
	const image_process *process = r->process, *self = &r->self->process;
	if (process->oom_score_adj != self->oom_score_adj)
		write_own(r, "/proc/self/oom_score_adj", "%ld", process->oom_score_adj);
	if (process->coredump_filter != self->coredump_filter)
		write_own(r, "/proc/self/coredump_filter", "%#lx", process->coredump_filter);
}

void identity_rebuild(const struct rebuild *r)
{
	plan_note(r->plans, "umask");
	plan_call(r->plans, r->task, SYS_umask, IMM(r->process->umask));
	plan_note(r->plans, "child subreaper");
	if (r->process->subreaper)
		plan_call(r->plans, r->task, SYS_prctl, IMM(PR_SET_CHILD_SUBREAPER), IMM(1));
	/* Memory has been filled with and without (restorer/memory.c), and left with them. Bit 0: disabled; above:
	 * PR_THP_DISABLE_* flags. */
	unsigned thp = r->process->thp_disable;
	plan_note(r->plans, "transparent huge pages");
	if (thp)
		plan_call(r->plans, r->task, SYS_prctl, IMM(PR_SET_THP_DISABLE), IMM(thp & 1),
			  IMM(thp & ~1u));
}

void identity_rebuild_task(const struct rebuild *r)
{
	const image_thread *image = r->thread;
	char name[NAME_SIZE] = "";
	strncat(name, image->comm, sizeof(name) - 1);
	plan_note(r->plans, "name");
	plan_call(r->plans, r->task, SYS_prctl, IMM(PR_SET_NAME),
		  DATA(plans_data(r->plans, name, strlen(name) + 1, 1)));
	plan_note(r->plans, "futex of the thread's exit");
	plan_call(r->plans, r->task, SYS_set_tid_address, IMM(image->clear_child_tid));
	plan_note(r->plans, "list of robust futexes");
	plan_call(r->plans, r->task, SYS_set_robust_list, IMM(image->robust_list),
		  IMM(ROBUST_LIST_SIZE));
}

/* None is set, too: a plan may begin with a signal of its own, so as not to outlive the restore. */
void identity_rebuild_pdeath(const struct rebuild *r)
{
	plan_note(r->plans, "parent-death signal");
	plan_call(r->plans, r->task, SYS_prctl, IMM(PR_SET_PDEATHSIG), IMM(r->thread->pdeath_signal));
}

/* 2 ("only root may dump") is what a change of credentials can leave behind; nobody can set it. */
void identity_settle(const struct rebuild *r)
{
	plan_note(r->plans, "dumpable");
	plan_call(r->plans, r->task, SYS_prctl, IMM(PR_SET_DUMPABLE), IMM(r->process->dumpable == 1));
}
