#include "engine/trace.h"

#include <elf.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/procfs.h"
#include "store/scope.h"

#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21)
#endif

/* Room for any XSAVE area that exists: AMX tiles make it 11 KiB. */
#define XSTATE_MAX 16384

/* A stop takes some microseconds, if the other processor is idle. */
#define SPINS 400
#define SPINS_UNTIL_YIELD 40
#define YIELDS 200
#define NAP_US 100

#define SYSCALL_STOP (SIGTRAP | 0x80) /* with PTRACE_O_TRACESYSGOOD */

/* Results only the kernel sees: include/linux/errno.h. */
#define ERESTARTNOHAND 514

static enum trace_result request(struct task *task, int op, uintptr_t address, uintptr_t data,
				 const char *what, struct fsnap_error *err)
{
	if (ptrace(op, task->tid, address, data) == 0)
		return TRACE_OK;
	if (errno == ESRCH)
		return TRACE_DIED;
	fail(err, FSNAP_E_SYSTEM, errno, "thread %d: %s", task->tid, what);
	return TRACE_FAILED;
}

int trace_refuse_traced(pid_t pid, long tracer, struct fsnap_error *err)
{
	cleanup_fd int dir = procfs_open((pid_t)tracer, NULL);
	cleanup_free char *comm = dir >= 0 ? procfs_read(dir, "comm", NULL, NULL) : NULL;
	if (comm && strncmp(comm, "fsnap", strlen("fsnap")) == 0) {
		fail(err, FSNAP_E_TRACED, 0, "process %d is held by fsnap (process %ld), which is saving it now", pid, tracer);
		return error_hint(err, "try again in a moment; while `fsnap watch` runs, `fsnap list` shows its images");
	}
	fail(err, FSNAP_E_TRACED, 0, "process %d is being traced by process %ld", pid, tracer);
	return error_hint(err, "let the debugger or strace detach first");
}

/* Why was PTRACE_SEIZE refused? The kernel says EPERM for several reasons; users need one. */
static enum trace_result seize_refused(struct task *task, struct fsnap_error *err)
{
	cleanup_fd int dir = procfs_open(task->tid, NULL);
	cleanup_free char *status = dir >= 0 ? procfs_read(dir, "status", NULL, NULL) : NULL;
	/* A process on its way out has given up its memory, and may be traced by nobody. */
	bool kernel = status && strstr(status, "\nKthread:\t1");
	if (!status || (procfs_status_number(status, "VmSize") < 0 && !kernel))
		return TRACE_DIED;
	long tracer = procfs_status_number(status, "TracerPid");
	if (tracer > 0) {
		trace_refuse_traced(task->process->pid, tracer, err);
	} else if (kernel) {
		fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d is a kernel thread", task->process->pid);
	} else {
		fail(err, FSNAP_E_PERMISSION, EPERM, "process %d (%s) may not be traced by this user",
		     task->process->pid, task->process->comm);
		error_hint(err, "run fsnap as root or as the owner of the process; see also "
				"/proc/sys/kernel/yama/ptrace_scope");
	}
	return TRACE_FAILED;
}

enum trace_result trace_seize(struct task *task, bool kill_with_us, struct fsnap_error *err)
{
	long options = PTRACE_O_TRACESYSGOOD | (kill_with_us ? PTRACE_O_EXITKILL : 0);
	/* With seccomp suspended the agent may use any system call. The option needs CAP_SYS_ADMIN;
	 * without it, targets that use filters are refused later. */
	if (ptrace(PTRACE_SEIZE, task->tid, 0, options | PTRACE_O_SUSPEND_SECCOMP) < 0 &&
	    (errno != EPERM || ptrace(PTRACE_SEIZE, task->tid, 0, options) < 0))
		return errno == ESRCH ? TRACE_DIED : seize_refused(task, err);
	task->seized = true;
	return TRACE_OK;
}

enum trace_result trace_interrupt(struct task *task)
{
	return ptrace(PTRACE_INTERRUPT, task->tid, 0, 0) < 0 ? TRACE_DIED : TRACE_OK;
}

void trace_bury_threads(struct process *process)
{
	for (size_t i = 1; i < process->n_tasks; i++) {
		struct task *task = process->tasks[i];
		siginfo_t info = { 0 };
		/* Stops of tracees are told whether or not one asks for them. */
		if (!task->seized ||
		    waitid(P_PID, (id_t)task->tid, &info, WEXITED | __WALL | WNOHANG | WNOWAIT) < 0 ||
		    info.si_pid == 0 || info.si_code == CLD_TRAPPED || info.si_code == CLD_STOPPED)
			continue;
		waitpid(task->tid, NULL, __WALL);
		task->seized = task->stopped = false;
	}
}

bool trace_has_news(const struct task *task)
{
	siginfo_t info = { 0 };
	return waitid(P_PID, (id_t)task->tid, &info, WEXITED | WSTOPPED | __WALL | WNOWAIT | WNOHANG) < 0 ||
	       info.si_pid != 0;
}

/* Who sleeps until a leader reports may sleep forever: see trace_bury_threads(). */
static void await_leader(struct task *task)
{
	struct process *process = task->process;
	if (process->n_tasks < 2 || process->tasks[0] != task)
		return;
	for (int rounds = 0; !trace_has_news(task); rounds++) {
		if (rounds < YIELDS) {
			sched_yield();
			continue;
		}
		usleep(NAP_US);
		trace_bury_threads(process);
	}
}

/* Most stops come within microseconds, on another processor: who sleeps until then pays for being woken (25-60 us
 * in a virtual machine, where an idle processor has to be fetched back from the host), a dump with ten such
 * stops more than for all else. Gives way from time to time: the tracee may need this very processor. */
static bool comes_soon(const struct task *task, siginfo_t *info)
{
	for (int rounds = 1; rounds <= SPINS; rounds++) {
		if (waitid(P_PID, (id_t)task->tid, info, WEXITED | WSTOPPED | __WALL | WNOWAIT | WNOHANG) < 0)
			return false;
		if (info->si_pid)
			return true;
		if (rounds % SPINS_UNTIL_YIELD == 0)
			sched_yield();
	}
	return false;
}

/* Waits for any stop; the one place where fsnap waits for a tracee. WNOWAIT leaves the stop as it is:
 * a signal that was taken from the kernel is lost should we die before it is handed back. */
static enum trace_result await(struct task *task, int *status, struct fsnap_error *err)
{
	siginfo_t info = { 0 };
	await_leader(task);
	while (!comes_soon(task, &info) && waitid(P_PID, (id_t)task->tid, &info, WEXITED | WSTOPPED | __WALL | WNOWAIT) < 0) {
		if (errno == EINTR)
			continue;
		if (errno != ECHILD) {
			fail(err, FSNAP_E_SYSTEM, errno, "waiting for thread %d", task->tid);
			return TRACE_FAILED;
		}
		task->seized = false;
		return TRACE_DIED;
	}
	if (info.si_code != CLD_TRAPPED && info.si_code != CLD_STOPPED) {
		waitpid(task->tid, status, __WALL);
		task->seized = false;
		return TRACE_DIED;
	}
	*status = info.si_status << 8 | 0x7f; /* as waitpid(2) has it */
	task->stopped = true;
	return TRACE_OK;
}

enum trace_result trace_await_stop(struct task *task, struct fsnap_error *err)
{
	for (;;) {
		int status;
		enum trace_result result = await(task, &status, err);
		if (result != TRACE_OK)
			return result;
		if (status >> 16 == PTRACE_EVENT_STOP) {
			task->group_stop = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
			return TRACE_OK;
		}
		/* A signal got there first. Deliver it, and ask again: any trap eats the request. */
		task->stopped = false;
		if (ptrace(PTRACE_CONT, task->tid, 0, WSTOPSIG(status)) < 0 ||
		    ptrace(PTRACE_INTERRUPT, task->tid, 0, 0) < 0)
			return TRACE_DIED;
	}
}

/* A request to stop that stands when the task goes on keeps it from its next instruction. */
static enum trace_result go_nowhere(struct task *task, int signo, struct fsnap_error *err)
{
	int status;
	enum trace_result result = request(task, PTRACE_INTERRUPT, 0, 0, "cannot be stopped", err);
	if (result == TRACE_OK)
		result = request(task, PTRACE_CONT, 0, (uintptr_t)signo, "cannot be continued", err);
	task->stopped = task->stopped && result != TRACE_OK;
	while (result == TRACE_OK && !task->stopped)
		result = await(task, &status, err);
	if (result == TRACE_OK && status >> 16 == PTRACE_EVENT_STOP)
		task->group_stop = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
	return result;
}

enum trace_result trace_stop_job(struct task *task, int signo, struct fsnap_error *err)
{
	int status;
	/* Nothing else may be taken out of the queues, and what is delivered must not be blocked. */
	enum trace_result result = trace_set_mask(task, ~(1ull << (signo - 1)), err);
	if (result == TRACE_OK && syscall(SYS_tgkill, task->process->pid, task->tid, SIGSTOP) < 0)
		result = TRACE_DIED;
	if (result == TRACE_OK)
		result = request(task, PTRACE_CONT, 0, 0, "cannot be continued", err);
	task->stopped = task->stopped && result != TRACE_OK;
	if (result == TRACE_OK)
		result = await(task, &status, err);
	return result == TRACE_OK ? go_nowhere(task, signo, err) : result;
}

enum trace_result trace_join_stop(struct task *task, struct fsnap_error *err)
{
	return go_nowhere(task, 0, err);
}

void trace_await_end(struct task *task)
{
	int status;
	while (task->seized && await(task, &status, NULL) == TRACE_OK)
		;
	task->stopped = false;
}

bool trace_is_harmless(struct task *task, int status)
{
	if (status >> 16 == 0 && WSTOPSIG(status) == SIGSTOP)
		task->owed = SIGSTOP;
	return status >> 16 == PTRACE_EVENT_STOP || (status >> 16 == 0 && WSTOPSIG(status) == SIGSTOP);
}

enum trace_result trace_continue(struct task *task, struct fsnap_error *err)
{
	enum trace_result result = request(task, PTRACE_CONT, 0, 0, "cannot be continued", err);
	if (result == TRACE_OK)
		task->stopped = false;
	return result;
}

void trace_let_live(struct task *task)
{
	ptrace(PTRACE_SETOPTIONS, task->tid, 0, 0);
}

void trace_detach(struct task *task)
{
	if (task->seized)
		task->seized = ptrace(PTRACE_DETACH, task->tid, 0, task->owed) < 0 && errno == ESRCH;
	task->stopped = false;
}

bool trace_part(struct task *task)
{
	int status;
	pid_t got = task->seized ? waitpid(task->tid, &status, __WALL | WNOHANG) : -1;
	if (got == 0) {
		ptrace(PTRACE_INTERRUPT, task->tid, 0, 0);
		return false;
	}
	if (got < 0 || !WIFSTOPPED(status)) {
		task->seized = task->stopped = false;
		return true;
	}
	task->stopped = true;
	if (status >> 16 == 0)
		task->owed = WSTOPSIG(status);
	trace_bring_back(task);
	trace_detach(task);
	return !task->seized;
}

/* Stopping a thread ends calls like epoll_wait(2) and sigtimedwait(2) with EINTR although no handler
 * runs (signal(7), "Interruption of system calls by stop signals"). Most programs do not expect
 * that: have the kernel start the call again, as it does with the others. A handler that waits to
 * be run still turns this into EINTR. */
static void hide_interruption(struct user_regs_struct *regs)
{
	if ((int64_t)regs->orig_rax >= 0 && (int64_t)regs->rax == -EINTR)
		regs->rax = (uint64_t)-ERESTARTNOHAND;
}

enum trace_result trace_hide_stop(struct task *task, struct fsnap_error *err)
{
	enum trace_result result = request(task, PTRACE_GETREGS, 0, (uintptr_t)&task->regs,
					   "cannot read registers", err);
	uint64_t seen = task->regs.rax;
	if (result != TRACE_OK)
		return result;
	hide_interruption(&task->regs);
	return task->regs.rax == seen ? TRACE_OK : trace_set_regs(task, &task->regs, err);
}

enum trace_result trace_get_state(struct task *task, struct fsnap_error *err)
{
	enum trace_result result = request(task, PTRACE_GETREGS, 0, (uintptr_t)&task->regs,
					   "cannot read registers", err);
	if (result != TRACE_OK)
		return result;
	hide_interruption(&task->regs);
	char area[XSTATE_MAX];
	struct iovec vector = { area, sizeof(area) };
	result = request(task, PTRACE_GETREGSET, NT_X86_XSTATE, (uintptr_t)&vector,
			 "cannot read vector state", err);
	if (result != TRACE_OK)
		return result;
	char *copy = malloc(vector.iov_len);
	if (!copy)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "vector state");
	memcpy(copy, area, vector.iov_len);
	free(task->image.xstate.xstate_val);
	task->image.xstate.xstate_val = copy;
	task->image.xstate.xstate_len = (u_int)vector.iov_len;
	return TRACE_OK;
}

enum trace_result trace_set_regs(struct task *task, const struct user_regs_struct *regs,
				 struct fsnap_error *err)
{
	return request(task, PTRACE_SETREGS, 0, (uintptr_t)regs, "cannot set registers", err);
}

enum trace_result trace_set_xstate(struct task *task, const void *xstate, size_t size,
				   struct fsnap_error *err)
{
	struct iovec vector = { (void *)(uintptr_t)xstate, size };
	return request(task, PTRACE_SETREGSET, NT_X86_XSTATE, (uintptr_t)&vector,
		       "cannot set vector state", err);
}

enum trace_result trace_get_mask(struct task *task, uint64_t *mask, struct fsnap_error *err)
{
	return request(task, PTRACE_GETSIGMASK, sizeof(*mask), (uintptr_t)mask,
		       "cannot read the signal mask", err);
}

enum trace_result trace_set_mask(struct task *task, uint64_t mask, struct fsnap_error *err)
{
	return request(task, PTRACE_SETSIGMASK, sizeof(mask), (uintptr_t)&mask,
		       "cannot set the signal mask", err);
}

void trace_bring_back(struct task *task)
{
	if (!task->stopped)
		return;
	if (task->masked && trace_set_mask(task, task->image.sigmask, NULL) == TRACE_OK)
		task->masked = false;
	if (task->away && trace_set_regs(task, &task->regs, NULL) == TRACE_OK)
		task->away = false;
}

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
		step = request(task, PTRACE_SYSCALL, 0, 0, "cannot make a system call", err);
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

/* Waits for the next of the two stops, before the call and behind it. */
static enum trace_result await_call_stop(struct task *task, struct fsnap_error *err)
{
	for (;;) {
		int status;
		enum trace_result step = await(task, &status, err);
		if (step != TRACE_OK || WSTOPSIG(status) == SYSCALL_STOP)
			return step;
		/* Everything that can be is blocked: this is SIGSTOP, which has to wait. */
		if (status >> 16 == 0)
			task->owed = WSTOPSIG(status);
		if (ptrace(PTRACE_SYSCALL, task->tid, 0, 0) < 0)
			return TRACE_DIED;
	}
}

enum trace_result trace_call_enter(struct task *task, struct fsnap_error *err)
{
	if (task->calling != BEFORE_CALL)
		return TRACE_OK;
	enum trace_result step = await_call_stop(task, err);
	if (step == TRACE_OK)
		step = request(task, PTRACE_SYSCALL, 0, 0, "cannot make a system call", err);
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
		step = request(task, PTRACE_GETREGS, 0, (uintptr_t)&regs, "cannot read registers", err);
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
		step = request(task, PTRACE_INTERRUPT, 0, 0, "cannot be interrupted", err);
	if (step == TRACE_OK)
		step = request(task, PTRACE_SYSCALL, 0, 0, "cannot make a system call", err);
	if (step != TRACE_OK)
		return step;
	task->stopped = false;
	task->calling = IN_CALL;
	return trace_call_end(task, result, err);
}

int trace_check(enum trace_result result, const struct task *task, struct fsnap_error *err)
{
	if (result == TRACE_DIED)
		fail(err, FSNAP_E_TARGET_DIED, 0, "process %d (%s): thread %d ended", task->process->pid,
		     task->process->comm, task->tid);
	return result == TRACE_OK ? 0 : -1;
}
