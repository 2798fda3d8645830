/*
 * state.h - what a process and its threads have besides memory and descriptors.
 *
 * One file per family, both halves side by side: how it is read at dump, how it is
 * put back at restore.  Callers normally use the survey (dump) and the phases
 * (restore) below; the families' own functions follow for reference and tests.
 *
 * Dump, while the tree is stopped:
 *
 *	struct survey *survey = survey_new(process, err);
 *	survey_collect(survey, err)	outside: ptrace and /proc
 *	survey_ask(survey, plans)	adds to the plans of survey->task[i].plan, one per thread
 *	... the plans run inside ...
 *	survey_answer(survey, plans, ctl, err)	process->image and task->image are filled
 *	survey_free(survey)
 *
 * Restore: each task adds, with its own struct rebuild, in this order:
 *
 *	leader	rebuild_first()		its very first operations: the old memory and the old
 *					descriptors are still there; no thread or child made yet
 *	leader	[memory, descriptors; children and threads, which must all be made before
 *		 anything below runs in the task that makes them: what equals the restoring
 *		 process' own state is taken as inherited, and is not set again]
 *	thread	rebuild_task()		all memory is there, all threads of the process exist
 *	leader	rebuild_process()	after its rebuild_task(); children that shall be zombies have
 *					ended by now, for it may say that nobody waits for them
 *	each	PLAN_PARK(1)		the tracer sets PTRACE_O_SUSPEND_SECCOMP; files and memory are
 *					done, because privileges go now
 *	leader	limits_rebuild()	before privileges go
 *	thread	rebuild_privileges()	pending signals, seccomp, credentials, parent-death signal
 *	leader	[barrier: all threads of the tree have passed rebuild_privileges()]
 *	leader	identity_settle()	what a change of credentials resets: dumpable
 *	leader	timers_arm()		last of all: from here on time runs
 *
 * All signals are blocked in the task while any of this runs.
 */
#ifndef ENGINE_STATE_H
#define ENGINE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/tree.h"
#include "image.h"
#include "restorer/plan.h"

/* --- dump -------------------------------------------------------------------------- */

/* What /proc/PID/task/TID/status says, read once per thread. */
struct task_status {
	uint64_t pending, shared_pending; /* signal masks: bit signo - 1 */
	uint64_t ignored, caught;	  /* of the process */
	unsigned umask;
	unsigned seccomp;		  /* 0 none, 1 strict, 2 filter */
	bool shadow_stack;
	unsigned filters;		  /* how many; 0 where the kernel does not say */
	image_creds creds;		  /* but for securebits; moves into the image */
};

int status_parse(const char *text, struct task_status *status, struct fsnap_error *err);

#define N_SETTINGS 7 /* settings.c */

/* What is asked inside a thread: references and slots of the plan that asks. */
struct task_asks {
	uint32_t altstack;	/* data: stack_t */
	uint32_t name;		/* data: char[16] */
	uint32_t tid_address;	/* data: uint64_t */
	uint32_t pdeath_signal;	/* data: int */
	uint32_t timerslack;	/* slot */
	uint32_t securebits;	/* slot */
	uint32_t setting[N_SETTINGS], setting_data[N_SETTINGS]; /* slots; data where the answer is there */
};

struct task_survey {
	struct task *task;
	uint32_t plan;		/* the caller sets it: the thread's task number in plans */
	struct task_status status;
	struct task_asks asks;
};

#define PROTECTION_KEYS 16

/* What is asked inside the leader about the whole process. */
struct process_asks {
	uint64_t actions_of;	/* signals that were asked for */
	uint32_t actions;	/* data: struct kernel_action, one per signal of actions_of */
	uint32_t limits;	/* data: image_limit[RLIM_NLIMITS] */
	uint32_t itimers;	/* data: struct itimerval[3] */
	uint32_t timers;	/* data: struct itimerspec, one per POSIX timer */
	uint32_t overruns;	/* slots: first of one per POSIX timer */
	uint32_t dumpable;	/* slot */
	uint32_t subreaper;	/* data: int */
	uint32_t thp_disable;	/* slot */
	uint32_t new_page, dontneed, merge_any, mdwe; /* slots */
	uint32_t resident;	/* data: a byte of mincore(2) */
	uint32_t pkeys[PROTECTION_KEYS]; /* slots, by key */
};

struct survey {
	struct process *process;
	struct process_asks asks;
	size_t n_tasks;
	struct task_survey task[]; /* as process->tasks: the leader first */
};

/* NULL: no memory. */
struct survey *survey_new(struct process *process, struct fsnap_error *err);
void survey_free(struct survey *survey);

/* Every thread is in a ptrace stop, and its registers are in task->image.regs. */
int survey_collect(struct survey *survey, struct fsnap_error *err);
void survey_ask(struct survey *survey, struct plans *plans);
int survey_answer(struct survey *survey, const struct plans *plans, struct ctl *ctl,
		  struct fsnap_error *err);

/* --- restore ------------------------------------------------------------------------- */

/* What the restoring process is, and the tasks it makes are at first. */
struct inherited {
	image_process process;	/* umask, thp_disable, oom_score_adj, coredump_filter, limits */
	image_thread thread;	/* comm, sched, timerslack_ns, creds, seccomp, settings */
	uint64_t rseq;		/* address libc registered for the calling thread; 0: none */
	unsigned rseq_size;
	unsigned merge_any;	/* PR_GET_MEMORY_MERGE */
	bool timer_ids;		/* the kernel can make POSIX timers with given ids */
};

/* To be called by the thread that will spawn tasks. */
int inherited_collect(struct inherited *self, struct fsnap_error *err);
void inherited_free(struct inherited *self);

struct rebuild { /* who is being rebuilt, and in which plan */
	struct plans *plans;
	uint32_t task;
	const image_process *process;
	const image_thread *thread;
	const image_mm *mm; /* NULL: of an ended process */
	const struct inherited *self;
	uint64_t forget; /* bit signo - 1: may have come of what the restore did, and is taken back */
	uint32_t *hold_sigchld; /* not NULL: SIGCHLD gets no action yet; where the right one is, is noted */
	unsigned common_filters; /* seccomp_common(): of these the leader has taken care */
};

void rebuild_first(const struct rebuild *r);
void rebuild_task(const struct rebuild *r);
int rebuild_process(const struct rebuild *r, struct fsnap_error *err);
int rebuild_privileges(const struct rebuild *r, struct fsnap_error *err);

/* --- signals.c: handlers, masks, alternate stacks, pending signals ------------------------ */

int signals_collect(struct survey *survey, struct fsnap_error *err);
int signals_collect_task(struct task_survey *task, struct fsnap_error *err);
void signals_ask(struct survey *survey, struct plans *plans);
void signals_ask_task(struct task_survey *task, struct plans *plans);
int signals_answer(struct survey *survey, const struct plans *plans, struct ctl *ctl,
		   struct fsnap_error *err);
void signals_answer_task(struct task_survey *task, const struct plans *plans, struct ctl *ctl);
/* Handlers, then what is pending: setting a handler may throw pending signals away. So the
 * signals of threads come after the leader's signals_rebuild(). */
void signals_rebuild(const struct rebuild *r);
void signals_rebuild_task(const struct rebuild *r);
void signals_rebuild_pending_task(const struct rebuild *r);

/* --- timers.c: interval timers and POSIX timers -------------------------------------------- */

int timers_collect(struct survey *survey, struct fsnap_error *err);
void timers_ask(struct survey *survey, struct plans *plans);
void timers_answer(struct survey *survey, const struct plans *plans, struct ctl *ctl);
int timers_rebuild(const struct rebuild *r, struct fsnap_error *err); /* made, not armed */
void timers_arm(const struct rebuild *r);

/* --- limits.c --------------------------------------------------------------------------------- */

void limits_ask(struct survey *survey, struct plans *plans);
int limits_answer(struct survey *survey, const struct plans *plans, struct ctl *ctl,
		  struct fsnap_error *err);
void limits_relax(const struct rebuild *r); /* soft limits up, so that they hinder no step */
void limits_rebuild(const struct rebuild *r);
extern const char *const limit_names[16];

/* --- creds.c: users, groups, capabilities, no_new_privs ------------------------------------------ */

void creds_collect_task(struct task_survey *task);
void creds_ask_task(struct task_survey *task, struct plans *plans);
void creds_answer_task(struct task_survey *task, const struct plans *plans, struct ctl *ctl);
void creds_rebuild_task(const struct rebuild *r);

/* --- sched.c: policy, nice, affinity, I/O priority, timer slack ------------------------------------ */

int sched_collect_task(struct task_survey *task, struct fsnap_error *err);
int sched_inherited(image_sched *sched, struct fsnap_error *err);
void sched_ask_task(struct task_survey *task, struct plans *plans);
void sched_answer_task(struct task_survey *task, const struct plans *plans, struct ctl *ctl);
void sched_rebuild_task(const struct rebuild *r);

/* --- identity.c: names, and what the kernel has been told about a task ------------------------------ */

int identity_collect(struct survey *survey, struct fsnap_error *err);
int identity_collect_task(struct task_survey *task, struct fsnap_error *err);
int identity_read(const struct process *process, image_process *image, struct fsnap_error *err); /* what /proc/PID shows */
void identity_ask(struct survey *survey, struct plans *plans);
void identity_ask_task(struct task_survey *task, struct plans *plans);
void identity_answer(struct survey *survey, const struct plans *plans, struct ctl *ctl);
int identity_answer_task(struct task_survey *task, const struct plans *plans, struct ctl *ctl,
			 struct fsnap_error *err);
void identity_first(const struct rebuild *r);
void identity_rebuild(const struct rebuild *r);
void identity_rebuild_task(const struct rebuild *r);
void identity_rebuild_pdeath(const struct rebuild *r); /* after creds, which reset it */
void identity_settle(const struct rebuild *r);	       /* after the creds of all threads */

/* --- settings.c: what prctl(2) tells as one number ----------------------------------------------------- */

int settings_collect_task(struct task_survey *task, struct fsnap_error *err); /* refuses what cannot be */
void settings_ask_task(struct task_survey *task, struct plans *plans);
void settings_answer_task(struct task_survey *task, const struct plans *plans, struct ctl *ctl);
void settings_inherited(image_thread *self);
void settings_rebuild_task(const struct rebuild *r);

/* --- future.c: what holds for memory to come: locking, merging, protection keys -------------------------- */

void future_ask(struct survey *survey, struct plans *plans);
void future_answer(struct survey *survey, const struct plans *plans, struct ctl *ctl);
int future_allowed(struct fsnap_error *err); /* is the restoring process one that can do so? */
void future_rebuild(const struct rebuild *r); /* all memory is there; protection keys came with it */

/* --- rseq.c: restartable sequences -------------------------------------------------------------------- */

int rseq_collect_task(struct task_survey *task, struct fsnap_error *err);
void rseq_forget(const struct rebuild *r); /* the one inherited from the restoring process */
void rseq_rebuild_task(const struct rebuild *r);

/* --- seccomp.c ------------------------------------------------------------------------------------------- */

int seccomp_collect_task(struct task_survey *task, struct fsnap_error *err);
/* How many of the oldest filters are equal in all threads: the leader installs them for all, before any other. */
unsigned seccomp_common(const image_process *process);
int seccomp_rebuild_common(const struct rebuild *r, struct fsnap_error *err);
int seccomp_rebuild_task(const struct rebuild *r, struct fsnap_error *err);

#endif
