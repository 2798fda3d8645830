/*
 * survey.c - all families, asked about one process.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/early.h"
#include "engine/procfs.h"
#include "engine/state/state.h"
#include "engine/told.h"
#include "store/scope.h"

struct survey *survey_new(struct process *process, struct fsnap_error *err)
{
	struct survey *survey =
		calloc(1, sizeof(*survey) + process->n_tasks * sizeof(struct task_survey));
	if (!survey) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "surveying process %d", process->pid);
		return NULL;
	}
	survey->process = process;
	survey->n_tasks = process->n_tasks;
	for (size_t i = 0; i < survey->n_tasks; i++)
		survey->task[i].task = process->tasks[i];
	return survey;
}

void survey_free(struct survey *survey)
{
	if (!survey)
		return;
	for (size_t i = 0; i < survey->n_tasks; i++)
		free(survey->task[i].status.creds.groups.groups_val);
	free(survey);
}

static char *status_text(const struct task *task, bool *early, struct fsnap_error *err)
{
	char name[48];
	snprintf(name, sizeof(name), "task/%d/status", task->tid);
	*early = false;
	if (task->tid != task->process->live)
		return procfs_read_once(task->process->proc, name, NULL, err);
	char *text = early_take(task->process, EARLY_STATUS);
	*early = text != NULL;
	return text ? text : told_read(task->process, TOLD_STATUS, err);
}

static int read_status(struct task_survey *survey, struct fsnap_error *err)
{
	bool early;
	cleanup_free char *text = status_text(survey->task, &early, err);
	if (!text || status_parse(text, &survey->status, err) < 0)
		return error_context(err, "process %d", survey->task->process->pid);
	if (early) /* signals may have come since: who looks at their queues finds out */
		survey->status.pending = survey->status.shared_pending = ~0ull;
	return 0;
}

static int collect_task(struct task_survey *survey, struct fsnap_error *err)
{
	survey->task->image.tid = survey->task->tid;
	if (read_status(survey, err) < 0)
		return -1;
	creds_collect_task(survey);
	if (settings_collect_task(survey, err) < 0 || signals_collect_task(survey, err) < 0 ||
	    sched_collect_task(survey, err) < 0 || identity_collect_task(survey, err) < 0 ||
	    rseq_collect_task(survey, err) < 0)
		return -1;
	return seccomp_collect_task(survey, err);
}

int survey_collect(struct survey *survey, struct fsnap_error *err)
{
	for (size_t i = 0; i < survey->n_tasks; i++)
		if (collect_task(&survey->task[i], err) < 0)
			return -1;
	if (signals_collect(survey, err) < 0 || timers_collect(survey, err) < 0)
		return -1;
	return identity_collect(survey, err);
}

void survey_ask(struct survey *survey, struct plans *plans)
{
	for (size_t i = 0; i < survey->n_tasks; i++) {
		struct task_survey *task = &survey->task[i];
		signals_ask_task(task, plans);
		creds_ask_task(task, plans);
		sched_ask_task(task, plans);
		identity_ask_task(task, plans);
		settings_ask_task(task, plans);
	}
	signals_ask(survey, plans);
	timers_ask(survey, plans);
	limits_ask(survey, plans);
	identity_ask(survey, plans);
	future_ask(survey, plans);
}

int survey_answer(struct survey *survey, const struct plans *plans, struct ctl *ctl,
		  struct fsnap_error *err)
{
	for (size_t i = 0; i < survey->n_tasks; i++) {
		struct task_survey *task = &survey->task[i];
		signals_answer_task(task, plans, ctl);
		creds_answer_task(task, plans, ctl);
		sched_answer_task(task, plans, ctl);
		settings_answer_task(task, plans, ctl);
		if (identity_answer_task(task, plans, ctl, err) < 0)
			return -1;
	}
	if (signals_answer(survey, plans, ctl, err) < 0 || limits_answer(survey, plans, ctl, err) < 0)
		return -1;
	timers_answer(survey, plans, ctl);
	identity_answer(survey, plans, ctl);
	future_answer(survey, plans, ctl);
	return 0;
}
