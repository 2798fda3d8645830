/*
 * sched.c - scheduling policy, nice, affinity, I/O priority, timer slack.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "engine/kinds/kinds.h"
#include "engine/state/state.h"

#define IOPRIO_WHO_PROCESS 1
/* Of <linux/sched.h>, which cannot stand beside <sched.h>. */
enum { POLICY_OTHER = 0, POLICY_FIFO = 1, POLICY_RR = 2, POLICY_BATCH = 3, POLICY_DEADLINE = 6 };
#define FLAG_RESET_ON_FORK 0x01u
#define FLAG_KEEP_ALL 0x18u
#define FLAGS_UTIL_CLAMP 0x60u
#define FULL_UTILISATION 1024u
#define MASK_SIZE 1024 /* bytes: more CPUs than a kernel can be built for */

/* What sched_setattr(2) takes, version 1; <linux/sched/types.h> cannot stand beside <sched.h>. */
struct kernel_sched {
	uint32_t size;
	uint32_t policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime;
	uint64_t deadline;
	uint64_t period;
	uint32_t util_min;
	uint32_t util_max;
};

static bool is_realtime(unsigned policy)
{
	return policy == POLICY_FIFO || policy == POLICY_RR || policy == POLICY_DEADLINE;
}

const struct other_kind kind_scheduling = {
	.name = "scheduling",
	.keeps = "policy (real-time and deadline, too), niceness, slice, reset on fork, utilisation clamps, CPUs allowed, "
		 "I/O priority, timer slack",
	.refuses = "at a restore: real-time policies in a control group without budget, or without privilege",
	.shown_by = "proc_sched thread_realtime cgroups",
};

/* --- dump ------------------------------------------------------------------------- */

/* The CPUs a thread may run on; nothing if that is all there are, so that an image of a small
 * machine is not pinned to as few on a larger one. */
static int read_affinity(pid_t tid, int processors, image_sched *sched, struct fsnap_error *err)
{
	unsigned char mask[MASK_SIZE];
	long size = syscall(SYS_sched_getaffinity, tid, sizeof(mask), mask);
	if (size < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "reading the CPU affinity of thread %d", tid);
	int allowed = 0;
	for (long i = 0; i < size; i++)
		allowed += __builtin_popcount(mask[i]);
	if (allowed >= (processors ? processors : get_nprocs()))
		return 0;
	while (size && !mask[size - 1])
		size--;
	sched->affinity.affinity_val = malloc((size_t)size);
	if (!sched->affinity.affinity_val)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "reading the CPU affinity of thread %d", tid);
	memcpy(sched->affinity.affinity_val, mask, (size_t)size);
	sched->affinity.affinity_len = (u_int)size;
	return 0;
}

/* A real-time thread has a niceness, too, for when it is one no more: sched_getattr(2) does not tell it. */
static int read_policy(pid_t tid, image_sched *sched, struct fsnap_error *err)
{
	struct kernel_sched attr = { .size = 0 };
	errno = 0;
	int nice = getpriority(PRIO_PROCESS, (id_t)tid);
	if (errno || syscall(SYS_sched_getattr, tid, &attr, sizeof(attr), 0) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "reading the scheduling of thread %d", tid);
	sched->policy = attr.policy;
	sched->flags = attr.flags & ~(uint64_t)FLAGS_UTIL_CLAMP;
	sched->nice = nice;
	sched->priority = attr.priority;
	sched->runtime = attr.runtime;
	sched->deadline = attr.deadline;
	sched->period = attr.period;
	sched->util_min = attr.util_min;
	sched->util_max = attr.util_max;
	return 0;
}

static int sched_read(pid_t tid, int processors, image_sched *sched, struct fsnap_error *err)
{
	if (read_policy(tid, sched, err) < 0)
		return -1;
	long ioprio = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid);
	if (ioprio < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "reading the I/O priority of thread %d", tid);
	sched->ioprio = (int)ioprio;
	return read_affinity(tid, processors, sched, err);
}

/* Of other policies than deadline the run time is a slice (EEVDF, Linux 6.12). One that is as ours is as the
 * kernel has chosen; set, it would be a choice. */
static void forget_common_slice(image_sched *sched, uint64_t ours)
{
	if (sched->policy != POLICY_DEADLINE && sched->runtime == ours)
		sched->runtime = 0;
}

static uint64_t own_slice(void)
{
	struct kernel_sched attr = { .size = 0 };
	syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0);
	return attr.runtime;
}

int sched_collect_task(struct task_survey *task, struct fsnap_error *err)
{
	image_sched *sched = &task->task->image.sched;
	if (sched_read(task->task->tid, task->task->process->processors, sched, err) < 0)
		return -1;
	forget_common_slice(sched, own_slice());
	return 0;
}

void sched_ask_task(struct task_survey *task, struct plans *plans)
{
	plan_note(plans, "ask for the timer slack");
	plan_call(plans, task->plan, SYS_prctl, IMM(PR_GET_TIMERSLACK));
	task->asks.timerslack = plan_result(plans);
}

void sched_answer_task(struct task_survey *task, const struct plans *plans, struct ctl *ctl)
{
	task->task->image.timerslack_ns = (uint64_t)plans_slot(plans, ctl, task->asks.timerslack);
}

/* --- restore ------------------------------------------------------------------------ */

/* What children of the calling thread begin with (sched(7), "Reset scheduling policy for child processes"). */
int sched_inherited(image_sched *sched, struct fsnap_error *err)
{
	if (sched_read(0, 0, sched, err) < 0)
		return -1;
	forget_common_slice(sched, sched->runtime);
	if (!(sched->flags & FLAG_RESET_ON_FORK))
		return 0;
	if (is_realtime(sched->policy))
		*sched = (image_sched){ .affinity = sched->affinity, .ioprio = sched->ioprio,
					.util_min = sched->util_min, .util_max = sched->util_max };
	sched->nice = sched->nice < 0 ? 0 : sched->nice;
	sched->flags = 0;
	return 0;
}

static bool same_policy(const image_sched *a, const image_sched *b)
{
	return a->policy == b->policy && a->flags == b->flags && a->nice == b->nice &&
	       a->priority == b->priority && a->runtime == b->runtime &&
	       a->deadline == b->deadline && a->period == b->period;
}

static void set_attr(const struct rebuild *r, const struct kernel_sched *attr)
{
	plan_call(r->plans, r->task, SYS_sched_setattr, IMM(0),
		  DATA(plans_data(r->plans, attr, sizeof(*attr), 8)), IMM(0));
}

/* sched_setattr(2) sets the niceness only of those it tells it of: __setscheduler_params() in
 * kernel/sched/syscalls.c. */
static void rebuild_policy(const struct rebuild *r, const image_sched *to, const image_sched *from)
{
	struct kernel_sched attr = {
		.size = sizeof(attr),
		.policy = to->policy,
		.flags = to->flags,
		.nice = to->nice,
		.priority = to->priority,
		.runtime = to->runtime,
		.deadline = to->deadline,
		.period = to->period,
	};
	plan_note(r->plans, "scheduling policy %u, nice %d, priority %u", to->policy, to->nice,
		  to->priority);
	set_attr(r, &attr);
	if (to->nice == from->nice || to->policy == POLICY_OTHER || to->policy == POLICY_BATCH)
		return;
	plan_note(r->plans, "nice %d", to->nice);
	plan_call(r->plans, r->task, SYS_setpriority, IMM(PRIO_PROCESS), IMM(0), IMM(to->nice));
}

/* Utilisation clamps: where the kernel has none (CONFIG_UCLAMP_TASK) both are 0. A real-time thread has at first
 * what the system says (sched_util_clamp_min_rt_default), and nobody tells whether that is so. */
static void rebuild_clamps(const struct rebuild *r, const image_sched *to, const image_sched *from)
{
	struct kernel_sched attr = {
		.size = sizeof(attr),
		.flags = FLAG_KEEP_ALL | FLAGS_UTIL_CLAMP,
		.util_min = to->util_min,
		.util_max = to->util_max,
	};
	bool as_at_first = is_realtime(to->policy) && to->util_min == FULL_UTILISATION &&
			   to->util_max == FULL_UTILISATION;
	bool same = to->util_min == from->util_min && to->util_max == from->util_max;
	if (!to->util_max || !from->util_max || as_at_first || same)
		return;
	plan_note(r->plans, "utilisation clamped to %u...%u", to->util_min, to->util_max);
	set_attr(r, &attr);
}

void sched_rebuild_task(const struct rebuild *r)
{
	const image_sched *to = &r->thread->sched, *from = &r->self->thread.sched;
	if (to->affinity.affinity_len) { /* none: any CPU this restore may use */
		plan_note(r->plans, "CPU affinity");
		plan_call(r->plans, r->task, SYS_sched_setaffinity, IMM(0),
			  IMM(to->affinity.affinity_len),
			  DATA(plans_data(r->plans, to->affinity.affinity_val,
					  to->affinity.affinity_len, 8)));
	}
	if (!same_policy(to, from))
		rebuild_policy(r, to, from);
	rebuild_clamps(r, to, from);
	if (to->ioprio != from->ioprio) {
		plan_note(r->plans, "I/O priority");
		plan_call(r->plans, r->task, SYS_ioprio_set, IMM(IOPRIO_WHO_PROCESS), IMM(0),
			  IMM(to->ioprio));
	}
	if (r->thread->timerslack_ns != r->self->thread.timerslack_ns) {
		plan_note(r->plans, "timer slack");
		plan_call(r->plans, r->task, SYS_prctl, IMM(PR_SET_TIMERSLACK),
			  IMM(r->thread->timerslack_ns));
	}
}
