/*
 * signals.c - handlers, signal masks, alternate stacks, and signals on their way.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>

#include "engine/state/state.h"
#include "engine/trace.h"

#define N_SIGNALS 64
#define BIT(signo) (1ull << ((signo) - 1))
#define MASK_SIZE 8 /* bytes of the kernel's sigset_t */
#define SIGINFO_BATCH 32
#define PENDING_MANY 1048576 /* more than any RLIMIT_SIGPENDING lets wait: a kernel gone mad */

struct kernel_action { /* what rt_sigaction(2) takes */
	uint64_t handler;
	uint64_t flags;
	uint64_t restorer;
	uint64_t mask;
};

/* --- dump: pending signals ---------------------------------------------------- */

struct siginfos { /* the two lists of the image have this shape */
	u_int *len;
	image_siginfo **val;
};

static int add_siginfos(struct siginfos list, const siginfo_t *infos, size_t n,
			struct fsnap_error *err)
{
	_Static_assert(sizeof(siginfo_t) == sizeof(image_siginfo), "an image holds whole siginfos");
	image_siginfo *more = reallocarray(*list.val, *list.len + n, sizeof(*more));
	if (!more)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "listing pending signals");
	memcpy(more + *list.len, infos, n * sizeof(*more));
	*list.val = more;
	*list.len += (u_int)n;
	return 0;
}

/* Reads a queue without taking anything from it. */
static int peek(const struct task *task, bool shared, struct siginfos list, struct fsnap_error *err)
{
	siginfo_t infos[SIGINFO_BATCH];
	struct __ptrace_peeksiginfo_args args = {
		.flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0,
		.nr = SIGINFO_BATCH,
	};
	while (args.off < PENDING_MANY) {
		long n = ptrace(PTRACE_PEEKSIGINFO, task->tid, &args, infos);
		if (n < 0)
			return trace_check(errno == ESRCH ? TRACE_DIED :
				(enum trace_result)fail(err, FSNAP_E_SYSTEM, errno,
					"process %d: reading pending signals of thread %d",
					task->process->pid, task->tid), task, err);
		if (n == 0)
			break;
		if (add_siginfos(list, infos, (size_t)n, err) < 0)
			return -1;
		args.off += (uint64_t)n;
	}
	return 0;
}

int signals_collect(struct survey *survey, struct fsnap_error *err)
{
	image_process *image = &survey->process->image;
	if (!survey->task[0].status.shared_pending)
		return 0;
	return peek(survey->task[0].task, true,
		    (struct siginfos){ &image->pending.pending_len, &image->pending.pending_val }, err);
}

/* A signal that fsnap itself holds back is in no queue of the kernel. */
static int add_owed(struct task *task, struct siginfos list, struct fsnap_error *err)
{
	siginfo_t info = { .si_signo = task->owed, .si_code = SI_USER };
	return task->owed ? add_siginfos(list, &info, 1, err) : 0;
}

int signals_collect_task(struct task_survey *survey, struct fsnap_error *err)
{
	struct task *task = survey->task;
	struct siginfos list = { &task->image.pending.pending_len, &task->image.pending.pending_val };
	if (!task->masked) {
		uint64_t mask;
		if (trace_check(trace_get_mask(task, &mask, err), task, err) < 0)
			return -1;
		task->image.sigmask = mask;
	}
	if (survey->status.pending && peek(task, false, list, err) < 0)
		return -1;
	return add_owed(task, list, err);
}

/* --- dump: handlers and stacks -------------------------------------------------- */

void signals_ask(struct survey *survey, struct plans *plans)
{
	const struct task_status *status = &survey->task[0].status;
	/* SA_NOCLDWAIT means something without a handler, too: ask for SIGCHLD always. */
	survey->asks.actions_of = (status->caught | status->ignored | BIT(SIGCHLD)) &
				  ~(BIT(SIGKILL) | BIT(SIGSTOP));
	unsigned n = (unsigned)__builtin_popcountll(survey->asks.actions_of);
	survey->asks.actions = plans_data(plans, NULL, n * sizeof(struct kernel_action), 8);
	plan_note(plans, "ask for signal handlers");
	uint32_t at = survey->asks.actions;
	for (int signo = 1; signo <= N_SIGNALS; signo++) {
		if (!(survey->asks.actions_of & BIT(signo)))
			continue;
		plan_call(plans, survey->task[0].plan, SYS_rt_sigaction, IMM(signo), IMM(0), DATA(at),
			  IMM(MASK_SIZE));
		at += sizeof(struct kernel_action);
	}
}

int signals_answer(struct survey *survey, const struct plans *plans, struct ctl *ctl,
		   struct fsnap_error *err)
{
	image_process *image = &survey->process->image;
	const struct kernel_action *action = plans_data_at(plans, ctl, survey->asks.actions);
	image_sigaction *to = calloc(N_SIGNALS, sizeof(*to));
	if (!to)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "listing signal handlers");
	image->actions.actions_val = to;
	for (int signo = 1; signo <= N_SIGNALS; signo++) {
		if (!(survey->asks.actions_of & BIT(signo)))
			continue;
		if (action->handler || action->flags)
			to[image->actions.actions_len++] = (image_sigaction){
				.signo = signo,
				.handler = action->handler,
				.flags = action->flags,
				.restorer = action->restorer,
				.mask = action->mask,
			};
		action++;
	}
	return 0;
}

void signals_ask_task(struct task_survey *task, struct plans *plans)
{
	task->asks.altstack = plans_data(plans, NULL, sizeof(stack_t), 8);
	plan_note(plans, "ask for the alternate signal stack");
	plan_call(plans, task->plan, SYS_sigaltstack, IMM(0), DATA(task->asks.altstack));
}

void signals_answer_task(struct task_survey *task, const struct plans *plans, struct ctl *ctl)
{
	const stack_t *stack = plans_data_at(plans, ctl, task->asks.altstack);
	image_thread *image = &task->task->image;
	image->altstack_sp = (uint64_t)(uintptr_t)stack->ss_sp;
	/* SS_ONSTACK is about the stack pointer of whoever asks. */
	image->altstack_flags = (unsigned)stack->ss_flags & ~(unsigned)SS_ONSTACK;
	image->altstack_size = stack->ss_size;
}

/* --- restore ------------------------------------------------------------------------ */

static const image_sigaction *find_action(const image_process *process, int signo)
{
	for (unsigned i = 0; i < process->actions.actions_len; i++)
		if (process->actions.actions_val[i].signo == signo)
			return &process->actions.actions_val[i];
	return NULL;
}

/* Children end during the restore, and each has its exit signal. Setting one to be ignored takes back what
 * is pending (sigaction(2)). */
static void forget(const struct rebuild *r)
{
	struct kernel_action ignore = { .handler = (uint64_t)(uintptr_t)SIG_IGN };
	uint32_t data = plans_data(r->plans, &ignore, sizeof(ignore), 8);
	plan_note(r->plans, "forget the signals of children that ended during the restore");
	for (int signo = 1; signo <= N_SIGNALS; signo++)
		if ((r->forget | BIT(SIGCHLD)) & BIT(signo) & ~(BIT(SIGKILL) | BIT(SIGSTOP)))
			plan_call(r->plans, r->task, SYS_rt_sigaction, IMM(signo), DATA(data), IMM(0),
				  IMM(MASK_SIZE));
}

/* All of them: what the restoring process catches or ignores, its children do at first. */
static void rebuild_actions(const struct rebuild *r)
{
	uint32_t none = plans_data(r->plans, NULL, sizeof(struct kernel_action), 8);
	forget(r);
	for (int signo = 1; signo <= N_SIGNALS; signo++) {
		if (signo == SIGKILL || signo == SIGSTOP)
			continue;
		const image_sigaction *image = find_action(r->process, signo);
		uint32_t action = none;
		if (image) {
			struct kernel_action a = { image->handler, image->flags, image->restorer,
						   image->mask };
			action = plans_data(r->plans, &a, sizeof(a), 8);
		}
		if (signo == SIGCHLD && r->hold_sigchld) {
			struct kernel_action silent = { .flags = SA_NOCLDSTOP };
			*r->hold_sigchld = action;
			action = plans_data(r->plans, &silent, sizeof(silent), 8);
		}
		plan_note(r->plans, "%s signal %d (%s)", image ? "handler of" : "default for", signo,
			  sigabbrev_np(signo) ?: "real-time");
		plan_call(r->plans, r->task, SYS_rt_sigaction, IMM(signo), DATA(action), IMM(0),
			  IMM(MASK_SIZE));
	}
}

/* Does it name a process? What else a signal carries is the program's. */
static bool tells_sender(const siginfo_t *info)
{
	switch (info->si_code) {
	case SI_USER: case SI_QUEUE: case SI_TKILL: case SI_MESGQ:
		return true;
	}
	return info->si_signo == SIGCHLD && info->si_code > 0 && info->si_code != SI_KERNEL;
}

/* A process may queue any siginfo, even the kernel's own, for itself. SIGSTOP would stop the plan,
 * and neither it nor SIGKILL can have been waiting in a process that was saved. */
static void rebuild_pending(const struct rebuild *r, const image_siginfo *infos, unsigned n,
			    bool thread)
{
	if (!n)
		return;
	plan_note(r->plans, "signals that wait for the %s", thread ? "thread" : "process");
	plan_call(r->plans, r->task, SYS_getpid);
	uint32_t pid = plan_result(r->plans);
	plan_call(r->plans, r->task, SYS_gettid);
	uint32_t tid = plan_result(r->plans);
	for (unsigned i = 0; i < n; i++) {
		siginfo_t info;
		memcpy(&info, infos[i].raw, sizeof(info));
		if (info.si_signo == SIGSTOP || info.si_signo == SIGKILL)
			continue;
		uint32_t data = plans_data(r->plans, &info, sizeof(info), 8);
		if (tells_sender(&info))
			plan_number_into(r->plans, r->task, DATA(data + offsetof(siginfo_t, si_pid)),
					 info.si_pid);
		if (thread)
			plan_call(r->plans, r->task, SYS_rt_tgsigqueueinfo, SLOT(pid), SLOT(tid),
				  IMM(info.si_signo), DATA(data));
		else
			plan_call(r->plans, r->task, SYS_rt_sigqueueinfo, SLOT(pid),
				  IMM(info.si_signo), DATA(data));
	}
}

void signals_rebuild(const struct rebuild *r)
{
	rebuild_actions(r);
	rebuild_pending(r, r->process->pending.pending_val, r->process->pending.pending_len, false);
}

void signals_rebuild_task(const struct rebuild *r)
{
	const image_thread *image = r->thread;
	stack_t stack = {
		.ss_sp = (void *)(uintptr_t)image->altstack_sp,
		.ss_flags = (int)image->altstack_flags,
		.ss_size = image->altstack_size,
	};
	plan_note(r->plans, "alternate signal stack");
	plan_call(r->plans, r->task, SYS_sigaltstack,
		  DATA(plans_data(r->plans, &stack, sizeof(stack), 8)));
}

void signals_rebuild_pending_task(const struct rebuild *r)
{
	rebuild_pending(r, r->thread->pending.pending_val, r->thread->pending.pending_len, true);
}
