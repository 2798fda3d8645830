/*
 * trace_call.c - system calls in stopped tasks, on an instruction of their own.
 */
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "engine/trace_parts.h"

#define SYSCALL_STOP (SIGTRAP | 0x80) /* with PTRACE_O_TRACESYSGOOD */

enum trace_result trace_call_begin(struct task *task, uint64_t at, uint64_t stack, long nr,
				   const uint64_t args[6], struct fsnap_error *err)
{
	struct user_regs_struct regs = task->regs;
	regs.rip = at;
	regs.rsp = stack ? stack : regs.rsp;
	regs.rax = (uint64_t)nr;
	regs.orig_rax = (uint64_t)-1; /* nothing for the kernel to restart */
	regs.rdi = args[0];
	regs.rsi = args[1];
	regs.rdx = args[2];
	regs.r10 = args[3];
	regs.r8 = args[4];
	regs.r9 = args[5];
	task->away = true;
	enum trace_result step = trace_set_regs(task, &regs, err);
	/* Not PTRACE_SINGLESTEP, which would be one stop less: should we die, nobody clears the trap
	 * flag it sets, and the next instruction of the target is its end (SIGTRAP). */
	if (step == TRACE_OK)
		step = trace_request(task, PTRACE_SYSCALL, 0, 0, "cannot make a system call", err);
	if (step == TRACE_OK) {
		task->stopped = false;
		task->calling = BEFORE_CALL;
	}
	return step;
}

bool trace_call_pending(const struct task *task)
{
	return task->calling != NO_CALL;
}

/* A fault, which no mask holds back: where the call was to be made there is none (force_sig_info_to_task(),
 * kernel/signal.c). The same instruction would fault again, for ever. */
static bool is_fault(int signo)
{
	return signo == SIGSEGV || signo == SIGBUS || signo == SIGILL || signo == SIGFPE || signo == SIGTRAP;
}

/* Waits for the next of the two stops, before the call and behind it. */
static enum trace_result await_call_stop(struct task *task, struct fsnap_error *err)
{
	for (;;) {
		int status;
		enum trace_result step = trace_await(task, &status, err);
		if (step != TRACE_OK || WSTOPSIG(status) == SYSCALL_STOP)
			return step;
		if (status >> 16 == 0 && is_fault(WSTOPSIG(status))) {
			fail(err, FSNAP_E_SYSTEM, 0, "thread %d: a system call in its text ended with signal %d",
			     task->tid, WSTOPSIG(status));
			return TRACE_FAILED;
		}
		/* Everything that can be is blocked: this is SIGSTOP, which has to wait. */
		if (status >> 16 == 0)
			task->owed = WSTOPSIG(status);
		if (ptrace(PTRACE_SYSCALL, task->tid, 0, 0) < 0)
			return TRACE_DIED;
	}
}

static enum trace_result reach_call(struct task *task, struct fsnap_error *err)
{
	if (task->calling != BEFORE_CALL)
		return TRACE_OK;
	enum trace_result step = await_call_stop(task, err);
	task->calling = step == TRACE_OK ? AT_CALL : NO_CALL;
	return step;
}

enum trace_result trace_call_enter(struct task *task, struct fsnap_error *err)
{
	enum trace_result step = reach_call(task, err);
	if (step == TRACE_OK && task->calling != AT_CALL)
		return TRACE_OK;
	if (step == TRACE_OK)
		step = trace_request(task, PTRACE_SYSCALL, 0, 0, "cannot make a system call", err);
	task->calling = step == TRACE_OK ? IN_CALL : NO_CALL;
	task->stopped = task->stopped && step != TRACE_OK;
	return step;
}

enum trace_result trace_call_end(struct task *task, int64_t *result, struct fsnap_error *err)
{
	struct user_regs_struct regs;
	enum trace_result step = trace_call_enter(task, err);
	if (step == TRACE_OK)
		step = await_call_stop(task, err);
	task->calling = NO_CALL;
	if (step == TRACE_OK)
		step = trace_request(task, PTRACE_GETREGS, 0, (uintptr_t)&regs, "cannot read registers", err);
	if (step == TRACE_OK)
		*result = (int64_t)regs.rax;
	return step;
}

enum trace_result trace_call(struct task *task, uint64_t at, uint64_t stack, long nr,
			     const uint64_t args[6], int64_t *result, struct fsnap_error *err)
{
	enum trace_result begun = trace_call_begin(task, at, stack, nr, args, err);
	return begun == TRACE_OK ? trace_call_end(task, result, err) : begun;
}

enum trace_result trace_call_interrupted(struct task *task, uint64_t at, long nr, const uint64_t args[6],
					 int64_t *result, struct fsnap_error *err)
{
	enum trace_result step = trace_call_begin(task, at, 0, nr, args, err);
	if (step == TRACE_OK)
		step = await_call_stop(task, err);
	/* A request to stop counts as a signal that is pending; it is stopped behind the call before that. */
	if (step == TRACE_OK)
		step = trace_request(task, PTRACE_INTERRUPT, 0, 0, "cannot be interrupted", err);
	if (step == TRACE_OK)
		step = trace_request(task, PTRACE_SYSCALL, 0, 0, "cannot make a system call", err);
	if (step != TRACE_OK)
		return step;
	task->stopped = false;
	task->calling = IN_CALL;
	return trace_call_end(task, result, err);
}
