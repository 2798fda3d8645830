/*
 * sched.c - scheduling policy, nice, affinity, I/O priority, timer slack.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "engine/state/state.h"

#define IOPRIO_WHO_PROCESS 1
#define POLICY_DEADLINE 6
#define FLAGS_UTIL_CLAMP 0x60u /* SCHED_FLAG_UTIL_CLAMP of linux/sched.h */
#define MASK_SIZE 1024 /* bytes: more CPUs than a kernel can be built for */

/* What sched_setattr(2) takes, version 0; <linux/sched/types.h> cannot stand beside <sched.h>. */
struct kernel_sched {
	uint32_t size;
	uint32_t policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime;
	uint64_t deadline;
	uint64_t period;
};

/* --- dump ------------------------------------------------------------------------- */

/* The CPUs a thread may run on; nothing if that is all there are, so that an image of a small
 * machine is not pinned to as few on a larger one. */
static int read_affinity(pid_t tid, image_sched *sched, struct fsnap_error *err)
{
	unsigned char mask[MASK_SIZE];
	long size = syscall(SYS_sched_getaffinity, tid, sizeof(mask), mask);
	if (size < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "reading the CPU affinity of thread %d", tid);
	int allowed = 0;
	for (long i = 0; i < size; i++)
		allowed += __builtin_popcount(mask[i]);
	if (allowed >= get_nprocs())
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

int sched_read(pid_t tid, image_sched *sched, struct fsnap_error *err)
{
	struct kernel_sched attr = { .size = 0 };
	if (syscall(SYS_sched_getattr, tid, &attr, sizeof(attr), 0) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "reading the scheduling of thread %d", tid);
	sched->policy = attr.policy;
	sched->flags = attr.flags & ~(uint64_t)FLAGS_UTIL_CLAMP;
	sched->nice = attr.nice;
	sched->priority = attr.priority;
	/* Of other policies these say how the kernel has chosen; set, they would be a choice. */
	if (attr.policy == POLICY_DEADLINE) {
		sched->runtime = attr.runtime;
		sched->deadline = attr.deadline;
		sched->period = attr.period;
	}
	long ioprio = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid);
	if (ioprio < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "reading the I/O priority of thread %d", tid);
	sched->ioprio = (int)ioprio;
	return read_affinity(tid, sched, err);
}

int sched_collect_task(struct task_survey *task, struct fsnap_error *err)
{
	return sched_read(task->task->tid, &task->task->image.sched, err);
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

static bool same_policy(const image_sched *a, const image_sched *b)
{
	return a->policy == b->policy && a->flags == b->flags && a->nice == b->nice &&
	       a->priority == b->priority && a->runtime == b->runtime &&
	       a->deadline == b->deadline && a->period == b->period;
}

static void rebuild_policy(const struct rebuild *r, const image_sched *to)
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
	plan_call(r->plans, r->task, SYS_sched_setattr, IMM(0),
		  DATA(plans_data(r->plans, &attr, sizeof(attr), 8)), IMM(0));
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
		rebuild_policy(r, to);
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
