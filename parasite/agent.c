/*
 * agent.c - the interpreter that runs plans inside other processes.
 *
 * This code lives in a process that does not know of it.  Its rules of survival:
 *
 *  1. It may run at any address: no relocation, no static variable, no call out
 *     of this folder.  All it knows comes in (ctl, task).
 *  2. It touches general registers only (-mgeneral-regs-only): floating point
 *     and vector state of the task are what they were, at every moment. Only
 *     bulk.c does otherwise, in threads that a plan has started.
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
 *     also sleeps on ctl.engine, where the kernel tells it of the engine's death.
 *  7. Whoever wrote the plan is trusted.
 */
#include "parasite/agent.h"

#define NUMBER_PATIENCE_MS 50

/* One task on its way through one plan. */
struct run {
	struct ctl *ctl;
	struct ctl_task *task; /* whose plan, whose report */
	bool watch;	       /* it is the serving agent's to see that the engine has died */
};

/* Called from the entries below only, which no compiler sees. */
__attribute__((used, noreturn)) void agent_start(struct ctl *ctl, uint32_t number);
__attribute__((used, noreturn)) void agent_serve(struct ctl *ctl, uint32_t number);
__attribute__((used)) int64_t agent_spawn(struct ctl *ctl, uint32_t number, int exit_signal, uint64_t flags);

/*
 * struct agent_entries ("agnt" is AGENT_MAGIC), and a defined state for C to begin in.
 *
 * To the serving agent control memory is not writable yet: it came with the text, in one mapping.  Its
 * mprotect(10) takes rdx bytes from rdi on; madvise(28) then has the first r10 of them mapped at once, which takes less
 * than a fault for each page (and does not matter if it is refused).  Where the first fails nothing can be said and no stack used: it waits for
 * the engine to notice (ppoll(271) for AGENT_PATIENCE_S), and if nobody is there goes home as unmap_and_return()
 * does: rbx bytes at r12, by the chain r14 and the target's `syscall; ret` at r15.
 */
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
	"	mov %rdi, %r8\n"
	"	mov %rsi, %r9\n"
	"	mov %rdx, %rsi\n"
	"	mov $3, %edx\n" /* PROT_READ | PROT_WRITE */
	"	mov $10, %eax\n"
	"	syscall\n"
	"	test %rax, %rax\n"
	"	jnz 1f\n"
	"	mov %r10, %rsi\n"
	"	mov $23, %edx\n" /* MADV_POPULATE_WRITE */
	"	mov $28, %eax\n"
	"	syscall\n"
	"	mov %r8, %rdi\n"
	"	mov %r9, %rsi\n"
	"	and $-16, %rsp\n"
	"	call agent_serve\n"
	"1:	mov $271, %eax\n"
	"	xor %edi, %edi\n"
	"	xor %esi, %esi\n"
	"	lea 2f(%rip), %rdx\n"
	"	xor %r10d, %r10d\n"
	"	syscall\n"
	"	test %r14, %r14\n"
	"	jz 1b\n"
	"	mov %r14, %rsp\n"
	"	mov %r12, %rdi\n"
	"	mov %rbx, %rsi\n"
	"	mov $11, %eax\n"
	"	jmp *%r15\n"
	"	.balign 8\n"
	"2:	.quad " STRING(AGENT_PATIENCE_S) ", 0\n" /* struct timespec */
	".popsection\n");

/* --- waiting -------------------------------------------------------------- */

/* Sleeps while *word is `seen` and *cancel and ctl.home are 0. false: the engine is gone. */
static bool doze(const struct run *run, uint32_t *word, uint32_t seen, uint32_t *cancel)
{
	uint32_t *engine = ctl_engine(run->ctl);
	/* The kernel wakes only those who have said that they wait (Documentation/locking/robust-futexes.rst). */
	uint32_t lives = run->watch ? __atomic_or_fetch(engine, FUTEX_WAITERS, __ATOMIC_ACQ_REL) : 0;
	struct futex_waitv words[] = {
		{.uaddr = (uintptr_t)word, .val = seen, .flags = FUTEX_32},
		{.uaddr = (uintptr_t)cancel, .val = 0, .flags = FUTEX_32},
		{.uaddr = (uintptr_t)&run->ctl->home, .val = 0, .flags = FUTEX_32},
		{.uaddr = (uintptr_t)engine, .val = lives, .flags = FUTEX_32},
	};
	if (!(lives & FUTEX_OWNER_DIED))
		sleep_on(words, run->watch ? 4 : 3);
	return !run->watch || !(load(engine) & FUTEX_OWNER_DIED);
}

/* Until *word is at least `goal`. Does not return if ctl.home is set meanwhile. */
static int64_t await(const struct run *run, uint32_t *word, uint64_t goal, uint32_t *cancel)
{
	for (;;) {
		uint32_t seen = load(word);
		if (!run->watch && load(&run->ctl->home))
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
		nap(1);
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

/* A process that helps: what it does wrong is its own end. CLONE_FS is not needed, and would be in the way of setns(2). */
#define APART_FLAGS (CLONE_VM | CLONE_FILES | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

/* Where the engine is gone, helpers need not finish. Nobody else waits for one that is a process: its number is
 * its own until then. */
static int64_t join(const struct run *run, struct ctl_task *helper, bool apart)
{
	uint32_t *failed = &run->ctl->failed;
	for (uint32_t seen; (seen = load(&helper->alive)) != 0;) {
		if (load(failed) && !apart)
			return -ECANCELED;
		if (!load(failed) && doze(run, &helper->alive, seen, failed))
			continue;
		store_and_wake(&run->ctl->home, 1);
		if (apart)
			SYSCALL(__NR_kill, seen, SIGKILL);
	}
	return apart && helper->tid > 0 ? SYSCALL(__NR_wait4, helper->tid, 0, __WALL) : 0;
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

/* The parent's death is ours (PR_SET_PDEATHSIG): there is nothing else to wake up for. */
__attribute__((noreturn)) static void keep(struct ctl *ctl, struct keep *keep)
{
	store_and_wake(&keep->answered, load(&keep->order)); /* from here on nothing of this plan is looked at */
	for (;;) {
		uint32_t order = load(&keep->order);
		if (order == keep->answered) {
			struct futex_waitv word = {.uaddr = (uintptr_t)&keep->order, .val = order, .flags = FUTEX_32};
			sleep_on(&word, 1);
			continue;
		}
		keep->result = clone_task(ctl, keep->task, CLONE_PARENT, 0);
		store_and_wake(&keep->answered, order);
	}
}

static bool accepted(struct ctl *ctl, const struct plan_op *op, int64_t result);
static void report_failed(const struct run *run);

/* What fails is a step of the shared plan, and that is what is blamed. */
static int64_t perform_shared(const struct run *run, const struct plan_op *op, uint32_t pc, struct ctl_task *shared)
{
	uint64_t arg[6];
	resolve_all(run->ctl, op, arg);
	int64_t result = op->kind == PLAN_WAIT ?
				 await(run, &run->ctl->barrier[arg[0]], arg[1], &run->ctl->failed) :
				 syscall6(op->nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
	if (accepted(run->ctl, op, result))
		return 0;
	shared->pc = pc;
	shared->result = result;
	struct run blamed = {.ctl = run->ctl, .task = shared};
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
		return clone_task(ctl, (uint32_t)arg[0], arg[1] ? APART_FLAGS : HELPER_FLAGS, 0);
	case PLAN_JOIN:
		return join(run, ctl_task(ctl, (uint32_t)arg[0]), arg[1]);
	case PLAN_SHARE:
		return share(run, ctl_task(ctl, (uint32_t)arg[0]), (struct plan_stretches *)arg[1]);
	case PLAN_SOCKETS:
		return make_sockets(ctl);
	case PLAN_BORROW:
		return borrow(ctl);
	case PLAN_GIVE_BACK:
		return give_back(ctl);
	case PLAN_BULK:
		return bulk_copy(ctl, run->task, (struct plan_bulk *)arg[0]);
	case PLAN_COPY:
		copy(arg[0], arg[1], arg[2]);
		return 0;
	case PLAN_POST:
		add_and_wake_at(&ctl->barrier[arg[0]], (uint32_t)arg[1], (uint32_t)arg[2]);
		return 0;
	case PLAN_WAIT:
		return await(run, &ctl->barrier[arg[0]], arg[1], &ctl->failed);
	case PLAN_FORK:
		return clone_task(ctl, (uint32_t)arg[0], arg[2], arg[1]);
	case PLAN_THREAD:
		return clone_task(ctl, (uint32_t)arg[0], THREAD_FLAGS, 0);
	case PLAN_PARK:
		return park(run, arg[0]);
	case PLAN_KEEP:
		keep(ctl, (struct keep *)arg[0]);
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
		if (!run->watch && load(&run->ctl->home))
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
	struct run run = {.ctl = ctl, .task = ctl_task(ctl, number)};
	run.task->tid = (int32_t)SYSCALL(__NR_gettid);
	/* A process that a plan has begun and cannot go on with has nobody to wait for it: the engine
	 * may be dead. One that was borrowed waits to be taken home. */
	if (run_plan(&run) == TASK_FAILED && !run.task->home_frame)
		SYSCALL(__NR_exit_group, 1);
	rest(&run);
}

int64_t agent_spawn(struct ctl *ctl, uint32_t number, int exit_signal, uint64_t flags)
{
	return clone_task(ctl, number, flags, (uint64_t)exit_signal);
}

/* --- serving -------------------------------------------------------------- */

void agent_serve(struct ctl *ctl, uint32_t number)
{
	struct run run = {.ctl = ctl, .task = ctl_task(ctl, number), .watch = true};
	run_plan(&run);
	while (doze(&run, &ctl->home, 0, &ctl->home))
		;
	go_home(ctl, run.task);
}
