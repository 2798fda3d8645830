/*
 * agent.c - the interpreter that runs plans inside other processes.
 *
 * This code lives in a process that does not know of it.  Its rules of survival:
 *
 *  1. It may run at any address: no relocation, no static variable, no call out
 *     of this file.  All it knows comes in (ctl, task).
 *  2. It touches general registers only (-mgeneral-regs-only): floating point
 *     and vector state of the task are what they were, at every moment.
 *  3. All signals are blocked while it runs; the engine sees to that before it
 *     enters.  A fault is therefore death of the process: a plan that copies names
 *     only memory that is surely there (MADV_POPULATE_READ tells without faulting).
 *  4. It has AGENT_STACK bytes of stack and a direction flag that may be anything.
 *     Tasks share control memory even after a fork, so a child never runs on, nor
 *     returns into, the frames of its parent.
 *  5. No system call that leaves a restart block behind when it is interrupted
 *     (nanosleep, a futex with a timeout, poll; restart_syscall(2)): there is one
 *     block per task and the target may need the one it has.
 *  6. Anybody may die at any time.  No sleep depends on one waker only: failure
 *     ends waits for barriers, ctl.home ends all sleeps, and the serving agent
 *     looks at its socket while it sleeps.
 *  7. Whoever wrote the plan is trusted; task numbers that arrive by the socket
 *     are checked, nothing else.
 */
#include "parasite/kernel.h"
#include "parasite/plan.h"

#define STRAGGLERS_MS 1000 /* how long the serving agent waits for the others to leave */
#define LEAVING_MS 10	   /* from being out of ctl.inside to being out of the agent's code */
#define NUMBER_PATIENCE_MS 50

/* One task on its way through one plan. */
struct run {
	struct ctl *ctl;
	struct ctl_task *task; /* whose plan, whose report */
	int watch;	       /* the serving agent's socket; -1 in any other task */
};

/* Called from the entries below only, which no compiler sees. */
__attribute__((used, noreturn)) void agent_start(struct ctl *ctl, uint32_t number);
__attribute__((used, noreturn)) void agent_serve(struct ctl *ctl, uint32_t number);
__attribute__((used)) int64_t agent_spawn(struct ctl *ctl, uint32_t number, int exit_signal);

/* struct agent_entries ("agnt" is AGENT_MAGIC), and a defined state for C to begin in. */
__asm__(".pushsection .entries, \"ax\", @progbits\n"
	"	.globl agent_entries\n"
	"	.hidden agent_entries\n"
	"agent_entries:\n"
	"	.ascii \"agnt\"\n"
	"	.long agent_enter_start - agent_entries\n"
	"	.long agent_enter_serve - agent_entries\n"
	"	.long agent_spawn - agent_entries\n"
	"agent_enter_start:\n"
	"	cld\n"
	"	xor %ebp, %ebp\n"
	"	and $-16, %rsp\n"
	"	call agent_start\n"
	"agent_enter_serve:\n"
	"	cld\n"
	"	xor %ebp, %ebp\n"
	"	and $-16, %rsp\n"
	"	call agent_serve\n"
	".popsection\n");

/* --- the way home (drawn in README.md) ---------------------------------- */

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
__attribute__((noreturn)) static void leave(struct ctl *ctl, const struct ctl_task *task)
{
	uint64_t frame = task->home_frame;
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

static void wake_everyone(struct ctl *ctl)
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

static void close_sockets(struct ctl *ctl)
{
	if (ctl->socket >= 0)
		SYSCALL(__NR_close, ctl->socket);
	if (ctl->peer >= 0)
		SYSCALL(__NR_close, ctl->peer);
}

/* The engine is gone: undo what was done to this process and let it live on. */
__attribute__((noreturn)) static void go_home(struct ctl *ctl, const struct ctl_task *task)
{
	store_and_wake(&ctl->home, 1);
	wake_everyone(ctl);
	for (uint32_t ms = 0; load(&ctl->inside) && ms < STRAGGLERS_MS; ms++)
		nap(-1, 0, 1);
	nap(-1, 0, LEAVING_MS);
	close_sockets(ctl);
	if (!ctl->chain)
		return_through(task->home_frame);
	if (load(&ctl->inside)) /* somebody still needs the mapping: rather leak it than kill */
		return_through(ctl->chain + sizeof(uint64_t));
	unmap_and_return(ctl);
}

/* --- waiting -------------------------------------------------------------- */

/* Sleeps while *word is `seen` and *cancel and ctl.home are 0. false: the engine is gone. */
static bool doze(const struct run *run, uint32_t *word, uint32_t seen, uint32_t *cancel)
{
	if (run->watch >= 0) /* a nudge ends it sooner */
		return !(nap(run->watch, POLLIN, 1) & POLLHUP);
	struct futex_waitv words[] = {
		{.uaddr = (uintptr_t)word, .val = seen, .flags = FUTEX_32},
		{.uaddr = (uintptr_t)cancel, .val = 0, .flags = FUTEX_32},
		{.uaddr = (uintptr_t)&run->ctl->home, .val = 0, .flags = FUTEX_32},
	};
	sleep_on(words, 3);
	return true;
}

/* Until *word is at least `goal`. Does not return if ctl.home is set meanwhile. */
static int64_t await(const struct run *run, uint32_t *word, uint64_t goal, uint32_t *cancel)
{
	for (;;) {
		uint32_t seen = load(word);
		if (run->watch < 0 && load(&run->ctl->home))
			leave(run->ctl, run->task);
		if (seen >= goal)
			return 0;
		if (load(cancel))
			return -ECANCELED;
		if (!doze(run, word, seen, cancel))
			return -EPIPE;
	}
}

static void report_parked(const struct run *run)
{
	store_and_wake(&run->task->state, TASK_PARKED);
	add_and_wake(&run->ctl->parked, 1);
}

static int64_t park(const struct run *run, uint64_t goal)
{
	report_parked(run);
	int64_t result = await(run, &run->ctl->release, goal, &run->ctl->home);
	store_and_wake(&run->task->state, TASK_RUNNING);
	return result;
}

/* The end of a plan, good or bad: there is nothing to do until somebody says where to go. */
__attribute__((noreturn)) static void rest(const struct run *run)
{
	for (;;)
		await(run, &run->ctl->home, 1, &run->ctl->home);
}

/* --- operations ----------------------------------------------------------- */

/*
 * A new task, on its own stack and its own plan.  It begins with the registers
 * of its parent, none of which points at the parent's stack when C begins anew.
 */
static int64_t clone_once(struct ctl *ctl, uint32_t number, uint64_t flags, uint64_t exit_signal)
{
	const struct ctl_task *task = ctl_task(ctl, number);
	int32_t tid = task->tid; /* a copy: the child overwrites the original */
	struct clone_args args = {
		.flags = flags,
		.exit_signal = exit_signal,
		.stack = (uintptr_t)ctl + task->stack - AGENT_STACK,
		.stack_size = AGENT_STACK,
		.parent_tid = (uintptr_t)&ctl_task(ctl, number)->alive, /* where the flags ask for it */
		.child_tid = (uintptr_t)&ctl_task(ctl, number)->alive,
		.set_tid = tid ? (uintptr_t)&tid : 0,
		.set_tid_size = tid ? 1 : 0,
	};
	register struct ctl *child_ctl __asm__("r12") = ctl;
	register uint64_t child_number __asm__("r13") = number;
	int64_t result;
	__asm__ volatile("syscall\n"
			 "test %%rax, %%rax\n"
			 "jnz 1f\n"
			 "mov %[ctl], %%rdi\n"
			 "mov %[number], %%rsi\n"
			 "jmp agent_enter_start\n"
			 "1:"
			 : "=a"(result)
			 : "a"(__NR_clone3), "D"(&args), "S"(CLONE_ARGS_SIZE_VER1),
			   [ctl] "r"(child_ctl), [number] "r"(child_number)
			 : "rcx", "r11", "memory", "cc");
	return result;
}

/* A number that nobody in /proc has can still be taken: that of a dead task is given back a little after
 * the task has vanished there, and as a group's or session's it lives as long as those. */
static int64_t clone_task(struct ctl *ctl, uint32_t number, uint64_t flags, uint64_t exit_signal)
{
	int64_t result = clone_once(ctl, number, flags, exit_signal);
	for (uint32_t ms = 0; result == -EEXIST && ms < NUMBER_PATIENCE_MS; ms++) {
		nap(-1, 0, 1);
		result = clone_once(ctl, number, flags, exit_signal);
	}
	/* The child writes the same, but perhaps not before our plan asks for it. */
	if (result > 0)
		ctl_task(ctl, number)->tid = (int32_t)result;
	return result;
}

#define THREAD_FLAGS                                                                             \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

/* Set before anybody can look, cleared when not one instruction more of the thread will run. */
#define HELPER_FLAGS (THREAD_FLAGS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

static int64_t join(const struct run *run, uint32_t *alive)
{
	for (uint32_t seen; (seen = load(alive)) != 0;) {
		if (load(&run->ctl->failed))
			return -ECANCELED;
		doze(run, alive, seen, &run->ctl->failed);
	}
	return 0;
}

static void copy(uint64_t to, uint64_t from, uint64_t bytes)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

static void decimal(char *to, uint64_t value)
{
	uint64_t unit = 1;
	while (value / unit >= 10)
		unit *= 10;
	for (; unit; unit /= 10)
		*to++ = (char)('0' + value / unit % 10);
	*to = '\0';
}

static uint64_t resolve(struct ctl *ctl, uint8_t kind, uint64_t arg)
{
	switch (kind) {
	case ARG_CTL:
		return (uintptr_t)ctl + arg;
	case ARG_SLOT:
		return (uint64_t)*ctl_slot(ctl, (uint32_t)arg);
	}
	return arg;
}

static void resolve_all(struct ctl *ctl, const struct plan_op *op, uint64_t arg[6])
{
	for (int i = 0; i < 6; i++)
		arg[i] = resolve(ctl, op->arg_kind[i], op->arg[i]);
}

static bool accepted(struct ctl *ctl, const struct plan_op *op, int64_t result);
static void report_failed(const struct run *run);

/* What fails is a step of the shared plan, and that is what is blamed. */
static int64_t perform_shared(const struct run *run, const struct plan_op *op, uint32_t pc, struct ctl_task *shared)
{
	uint64_t arg[6];
	resolve_all(run->ctl, op, arg);
	int64_t result = syscall6(op->nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
	if (accepted(run->ctl, op, result))
		return 0;
	shared->pc = pc;
	shared->result = result;
	struct run blamed = {.ctl = run->ctl, .task = shared, .watch = -1};
	report_failed(&blamed);
	return -ECANCELED;
}

static int64_t share(const struct run *run, struct ctl_task *shared, struct plan_stretches *stretches)
{
	int64_t result = 0;
	for (uint32_t i; !result && (i = __atomic_fetch_add(&stretches->next, 1, __ATOMIC_ACQ_REL)) < stretches->n;) {
		if (load(&run->ctl->failed))
			return -ECANCELED;
		for (uint32_t pc = stretches->first[i]; !result && pc < stretches->first[i + 1]; pc++)
			result = perform_shared(run, ctl_op(run->ctl, shared->first_op + pc), pc, shared);
		__atomic_fetch_add(&shared->done, stretches->first[i + 1] - stretches->first[i], __ATOMIC_RELAXED);
	}
	return result;
}

static int64_t perform(const struct run *run, const struct plan_op *op)
{
	struct ctl *ctl = run->ctl;
	uint64_t arg[6];
	resolve_all(ctl, op, arg);

	switch (op->kind) {
	case PLAN_SYSCALL:
		return syscall6(op->nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
	case PLAN_HELPER:
		return clone_task(ctl, (uint32_t)arg[0], HELPER_FLAGS, 0);
	case PLAN_JOIN:
		return join(run, &ctl_task(ctl, (uint32_t)arg[0])->alive);
	case PLAN_SHARE:
		return share(run, ctl_task(ctl, (uint32_t)arg[0]), (struct plan_stretches *)arg[1]);
	case PLAN_COPY:
		copy(arg[0], arg[1], arg[2]);
		return 0;
	case PLAN_POST:
		add_and_wake(&ctl->barrier[arg[0]], (uint32_t)arg[1]);
		return 0;
	case PLAN_WAIT:
		return await(run, &ctl->barrier[arg[0]], arg[1], &ctl->failed);
	case PLAN_FORK:
		return clone_task(ctl, (uint32_t)arg[0], arg[2], arg[1]);
	case PLAN_THREAD:
		return clone_task(ctl, (uint32_t)arg[0], THREAD_FLAGS, 0);
	case PLAN_PARK:
		return park(run, arg[0]);
	case PLAN_DECIMAL:
		decimal((char *)arg[0], arg[1]);
		return 0;
	}
	return -ENOSYS;
}

static bool accepted(struct ctl *ctl, const struct plan_op *op, int64_t result)
{
	switch (op->accept) {
	case ACCEPT_EQUAL:
		return result == op->expected;
	case ACCEPT_SLOT:
		return result == *ctl_slot(ctl, (uint32_t)op->expected);
	case ACCEPT_ANY:
		return true;
	}
	return !is_error(result);
}

/* --- plans ---------------------------------------------------------------- */

/* task.pc and .result say what happened; the first to fail is the one to blame. */
static void report_failed(const struct run *run)
{
	struct ctl *ctl = run->ctl;
	uint32_t nobody = 0;
	uint32_t me = (uint32_t)(run->task - ctl_task(ctl, 0)) + 1;
	store_and_wake(&run->task->state, TASK_FAILED);
	__atomic_compare_exchange_n(&ctl->failed, &nobody, me, false, __ATOMIC_ACQ_REL,
				    __ATOMIC_ACQUIRE);
	wake_everyone(ctl);
}

/* Runs the plan to its end or to its first failure, and reports which it was. */
static enum task_state run_plan(const struct run *run)
{
	struct ctl_task *task = run->task;
	store_and_wake(&task->state, TASK_RUNNING);
	for (uint32_t pc = 0; pc < task->n_ops; pc++) {
		if (run->watch < 0 && load(&run->ctl->home))
			leave(run->ctl, task);
		const struct plan_op *op = ctl_op(run->ctl, task->first_op + pc);
		task->pc = pc;
		task->result = perform(run, op);
		if (op->result)
			*ctl_slot(run->ctl, op->result - 1) = task->result;
		if (!accepted(run->ctl, op, task->result)) {
			report_failed(run);
			return TASK_FAILED;
		}
	}
	task->pc = task->n_ops;
	report_parked(run);
	return TASK_PARKED;
}

void agent_start(struct ctl *ctl, uint32_t number)
{
	struct run run = {.ctl = ctl, .task = ctl_task(ctl, number), .watch = -1};
	run.task->tid = (int32_t)SYSCALL(__NR_gettid);
	/* A process that a plan has begun and cannot go on with has nobody to wait for it: the engine
	 * may be dead. One that was borrowed waits to be taken home. */
	if (run_plan(&run) == TASK_FAILED && !run.task->home_frame)
		SYSCALL(__NR_exit_group, 1);
	rest(&run);
}

int64_t agent_spawn(struct ctl *ctl, uint32_t number, int exit_signal)
{
	return clone_task(ctl, number, 0, (uint64_t)exit_signal);
}

/* --- serving -------------------------------------------------------------- */

/* The engine finds both ends in ctl, and takes a copy of ctl.peer from outside. */
static bool open_sockets(struct ctl *ctl)
{
	int32_t ends[2];
	if (SYSCALL(__NR_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
		store_and_wake((uint32_t *)&ctl->peer, (uint32_t)-2); /* the engine, if alive, takes us home */
		nap(-1, 0, AGENT_PATIENCE_MS);
		return false;
	}
	ctl->socket = ends[0];
	store_and_wake((uint32_t *)&ctl->peer, (uint32_t)ends[1]);
	return true;
}

static bool receive(const struct ctl *ctl, struct agent_order *order)
{
	int64_t got;
	do
		got = SYSCALL(__NR_recvfrom, ctl->socket, order, sizeof(*order));
	while (got == -EINTR || (got == sizeof(*order) && order->verb == AGENT_NUDGE));
	return got == sizeof(*order) && order->verb == AGENT_RUN && order->task < ctl->n_tasks;
}

static bool answer(const struct ctl *ctl, const struct agent_answer *answer)
{
	return SYSCALL(__NR_sendto, ctl->socket, answer, sizeof(*answer), MSG_NOSIGNAL) ==
	       sizeof(*answer);
}

/* Only when nobody else holds the engine's end does its death show as end of file. */
static void close_peer(struct ctl *ctl)
{
	if (ctl->peer >= 0)
		SYSCALL(__NR_close, ctl->peer);
	ctl->peer = -1;
}

void agent_serve(struct ctl *ctl, uint32_t number)
{
	struct agent_order order;
	struct agent_answer done;
	bool engine_lives = open_sockets(ctl) && nap(ctl->socket, POLLIN, AGENT_PATIENCE_MS);
	while (engine_lives && receive(ctl, &order)) {
		close_peer(ctl);
		struct run run = {ctl, ctl_task(ctl, order.task), ctl->socket};
		done = (struct agent_answer){.state = run_plan(&run), .task = order.task};
		engine_lives = answer(ctl, &done);
	}
	go_home(ctl, ctl_task(ctl, number));
}
