/*
 * home.c - how tasks leave the agent (drawn in README.md). The rules of survival are those of agent.c.
 */
#include "parasite/agent.h"

#include <asm/sigcontext.h>
#include <asm/siginfo.h>
#include <asm/signal.h>
#include <asm/ucontext.h>

#define STRAGGLERS_MS 128 /* the longest nap while the others leave: the serving agent waits twice that, in all */
#define TAKEN_AT_ONCE 16  /* signals of one number; more, if ever, come in another order */
_Static_assert(TAKEN_AT_ONCE * sizeof(siginfo_t) <= AGENT_STACK / 2, "room for them, and for who calls");
#define LEAVING_MS 10	  /* from being out of ctl.inside to being out of the agent's code */

static struct sigaction action_of(unsigned signo)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	SYSCALL(__NR_rt_sigaction, signo, 0, &action, sizeof(action.sa_mask));
	return action;
}

/*
 * Signals for the process are anybody's who does not block them, and all block them here: who asks first gets it, as it will be
 * for it alone from then on. False: another has it by now.
 * Those that queue up are taken together, lest they come in another order. A task may say of a signal to itself
 * whatever it likes (kernel/signal.c, do_rt_tgsigqueueinfo()); if there is no room any more it comes without what was said with
 * it: kill(2) is never refused for want of room (__send_signal_locked()).
 */
static bool take(unsigned signo)
{
	const uint64_t only = 1ull << (signo - 1);
	const struct __kernel_timespec no_time = {};
	siginfo_t infos[TAKEN_AT_ONCE];
	unsigned n = 0;
	while (n < (signo < SIGRTMIN ? 1 : TAKEN_AT_ONCE) &&
	       SYSCALL(__NR_rt_sigtimedwait, &only, &infos[n], &no_time, sizeof(only)) == signo)
		n++;
	int64_t process = SYSCALL(__NR_getpid);
	for (unsigned i = 0; i < n; i++)
		if (is_error(SYSCALL(__NR_rt_tgsigqueueinfo, process, SYSCALL(__NR_gettid), signo, &infos[i])))
			SYSCALL(__NR_kill, process, signo);
	return n > 0;
}

/* The first that has a handler decides, as in handle_signal() of arch/x86/kernel/signal.c. */
static bool end_the_call(uint64_t signals, uint32_t interrupted)
{
	for (unsigned signo = 1; signals; signo++, signals >>= 1) {
		if (!(signals & 1))
			continue;
		struct sigaction action = action_of(signo);
		if (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN && take(signo))
			return interrupted == CALL_ENDS || !(action.sa_flags & SA_RESTART);
	}
	return false;
}

/*
 * Signals that came while this task was held here are delivered by the signal return, ahead of the call that its frame
 * begins anew: who sleeps in pause(2) for just that signal would sleep on. So where the handler was to end the call it has ended.
 */
static void heed_signals(struct ctl_task *task)
{
	struct ucontext *home = (struct ucontext *)task->home_frame;
	uint64_t pending = 0;
	if (!home || task->interrupted == CALL_BEGINS_ANEW ||
	    is_error(SYSCALL(__NR_rt_sigpending, &pending, sizeof(pending))) ||
	    !end_the_call(pending & ~home->uc_sigmask, task->interrupted))
		return;
	task->interrupted = CALL_BEGINS_ANEW;
	home->uc_mcontext.rax = (uint64_t)-EINTR;
	home->uc_mcontext.rip += 2; /* the length of `syscall` */
}

/* rt_sigreturn(2) with the ucontext at `frame`. The agent, its mapping and `frame` stay behind. */
__attribute__((noreturn)) static void return_through(uint64_t frame)
{
	if (!frame) /* a thread that a plan has started has no life to go back to */
		SYSCALL(__NR_exit, 0);
	__asm__ volatile("mov %[frame], %%rsp\n"
			 "syscall\n"
			 "ud2"
			 :
			 : [frame] "r"(frame), "a"(__NR_rt_sigreturn)
			 : "memory");
	__builtin_unreachable();
}

/*
 * A task other than the serving one leaves.  If the agent is going to be unmapped,
 * not one instruction of it may run once this task is out of ctl.inside.  So the
 * kernel counts it out, by FUTEX_WAKE_OP, in a call made from the target's own
 * `syscall; ret`; ret goes on to the target's own sigreturn, whose address the
 * serving task's chain has and any signal frame keeps right below its ucontext.
 */
void leave(struct ctl *ctl, struct ctl_task *task)
{
	uint64_t frame = task->home_frame;
	if (load(&task->alive)) /* a helper, which nobody has counted in: the kernel will say that it is gone */
		SYSCALL(__NR_exit, 0);
	heed_signals(task);
	if (!ctl->chain || !frame) {
		add_and_wake(&ctl->inside, -1u);
		return_through(frame);
	}
	uint64_t *chain = (uint64_t *)frame - 1;
	*chain = *(const uint64_t *)ctl->chain;
	register uint64_t wake_also __asm__("r10") = 0;
	register uint32_t *count __asm__("r8") = &ctl->inside;
	register uint64_t minus_one __asm__("r9") =
		(uint32_t)FUTEX_OP(FUTEX_OP_ADD, -1u, FUTEX_OP_CMP_EQ, 0u);
	__asm__ volatile("mov %[chain], %%rsp\n"
			 "jmp *%[gadget]"
			 :
			 : [chain] "b"(chain), [gadget] "c"(ctl->gadget), "a"(__NR_futex),
			   "D"(&ctl->inside), "S"(FUTEX_WAKE_OP), "d"(INT32_MAX), "r"(wake_also),
			   "r"(count), "r"(minus_one)
			 : "memory");
	__builtin_unreachable();
}

/* munmap(2) of this very code, and then, through the target's text, the signal return. */
__attribute__((noreturn)) static void unmap_and_return(const struct ctl *ctl)
{
	__asm__ volatile("mov %[chain], %%rsp\n"
			 "jmp *%[gadget]"
			 :
			 : [chain] "b"(ctl->chain), [gadget] "c"(ctl->gadget), "a"(__NR_munmap),
			   "D"(ctl->base), "S"(ctl->size)
			 : "memory");
	__builtin_unreachable();
}

void wake_everyone(struct ctl *ctl)
{
	for (uint32_t i = 0; i < ctl->n_tasks; i++)
		wake(&ctl_task(ctl, i)->state);
	for (uint32_t i = 0; i < CTL_BARRIERS; i++)
		wake(&ctl->barrier[i]);
	wake(&ctl->parked);
	wake(&ctl->release);
	wake(&ctl->failed);
	wake(&ctl->home);
}

/* Tasks that may still run agent code: those that were sent in, and helpers, which the kernel counts out itself. */
static bool others_are_here(struct ctl *ctl)
{
	bool any = load(&ctl->inside) != 0;
	for (uint32_t i = 0; i < ctl->n_tasks && !any; i++)
		any = load(&ctl_task(ctl, i)->alive) != 0;
	return any;
}

/* The engine is gone: undo what was done to this process and let it live on. */
void go_home(struct ctl *ctl, struct ctl_task *task)
{
	heed_signals(task); /* ahead of all others: so does the kernel give (kernel/signal.c, complete_signal()) */
	store_and_wake(&ctl->home, 1);
	wake_everyone(ctl);
	/* On a busy machine every nap is late: few, and longer and longer. */
	for (uint32_t ms = 1; others_are_here(ctl) && ms <= STRAGGLERS_MS; ms *= 2)
		nap(ms);
	if (ctl->n_tasks > 1)
		nap(LEAVING_MS);
	if (!others_are_here(ctl))
		give_back(ctl);
	heed_signals(task);
	if (!ctl->chain)
		return_through(task->home_frame);
	if (others_are_here(ctl)) /* somebody still needs the mapping: rather leak it than kill */
		return_through(ctl->chain + sizeof(uint64_t));
	unmap_and_return(ctl);
}
