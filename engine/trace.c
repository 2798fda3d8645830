#include "engine/trace_parts.h"

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

/* A stop takes some microseconds, if the other processor is idle. */
#define SPINS 400
#define SPINS_UNTIL_YIELD 40
#define YIELDS 200
#define NAP_US 100

enum trace_result trace_request(struct task *task, int op, uintptr_t address, uintptr_t data,
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

/* With seccomp suspended the agent may use any system call. The option needs CAP_SYS_ADMIN;
 * without it, targets that use filters are refused later. */
static int seize(const struct task *task, long options)
{
	int result = (int)ptrace(PTRACE_SEIZE, task->tid, 0, options | PTRACE_O_SUSPEND_SECCOMP);
	return result < 0 && errno == EPERM ? (int)ptrace(PTRACE_SEIZE, task->tid, 0, options) : result;
}

/* Why was PTRACE_SEIZE refused? The kernel says EPERM for several reasons; users need one, if it was. */
static enum trace_result seize_refused(struct task *task, long options, struct fsnap_error *err)
{
	cleanup_fd int dir = procfs_open(task->tid, NULL);
	cleanup_free char *status = dir >= 0 ? procfs_read(dir, "status", NULL, NULL) : NULL;
	/* A process on its way out has given up its memory, and may be traced by nobody. */
	bool kernel = status && strstr(status, "\nKthread:\t1");
	if (!status || (procfs_status_number(status, "VmSize") < 0 && !kernel))
		return TRACE_DIED;
	long tracer = procfs_status_number(status, "TracerPid");
	/* One that has executed a program, and is its process' main thread now: seized under another number, or not yet,
	 * where it was the old one that was met, on its way out. */
	if (tracer == gettid() || (tracer == 0 && !kernel && seize(task, options) == 0)) {
		task->seized = true;
		return TRACE_OK;
	}
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
	if (seize(task, options) < 0)
		return errno == ESRCH ? TRACE_DIED : seize_refused(task, options, err);
	task->seized = true;
	return TRACE_OK;
}

enum trace_result trace_interrupt(struct task *task)
{
	return ptrace(PTRACE_INTERRUPT, task->tid, 0, 0) < 0 ? TRACE_DIED : TRACE_OK;
}

/* Stops of tracees are told whether or not one asks for them. */
bool trace_bury(pid_t tid)
{
	siginfo_t info = { 0 };
	if (waitid(P_PID, (id_t)tid, &info, WEXITED | __WALL | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0 ||
	    info.si_code == CLD_TRAPPED || info.si_code == CLD_STOPPED)
		return false;
	waitpid(tid, NULL, __WALL);
	return true;
}

bool trace_bury_threads(struct process *process)
{
	bool any = false;
	for (size_t i = 1; i < process->n_tasks; i++) {
		struct task *task = process->tasks[i];
		if (!task->seized || !trace_bury(task->tid))
			continue;
		task->seized = task->stopped = false;
		any = true;
	}
	return any;
}

bool trace_has_news(const struct task *task)
{
	siginfo_t info = { 0 };
	return waitid(P_PID, (id_t)task->tid, &info, WEXITED | WSTOPPED | __WALL | WNOWAIT | WNOHANG) < 0 ||
	       info.si_pid != 0;
}

bool trace_stands_still(const struct task *task)
{
	unsigned long message;
	return ptrace(PTRACE_GETEVENTMSG, task->tid, 0, &message) == 0;
}

/* Who sleeps until a leader reports may sleep forever: see trace_bury_threads(). So may who sleeps until anybody of a
 * process reports of which others still run: if one of them executes a program, the kernel lets the old leader go under
 * the other's number, for which nobody waits (exchange_tids() in de_thread(), fs/exec.c; eligible_pid(), kernel/exit.c). */
static bool may_sleep(const struct task *task)
{
	const struct process *process = task->process;
	bool leads = process->n_tasks > 1 && process->tasks[0] == task;
	return !leads && (process->still || !process->seizing);
}

static void await_awake(struct task *task)
{
	for (int rounds = 0; !trace_has_news(task); rounds++) {
		if (rounds < YIELDS) {
			sched_yield();
			continue;
		}
		usleep(NAP_US);
		trace_bury_threads(task->process);
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

/* The one place where fsnap waits for a tracee. WNOWAIT leaves the stop as it is:
 * a signal that was taken from the kernel is lost should we die before it is handed back. */
enum trace_result trace_await(struct task *task, int *status, struct fsnap_error *err)
{
	siginfo_t info = { 0 };
	if (!may_sleep(task))
		await_awake(task);
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
		enum trace_result result = trace_await(task, &status, err);
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
	enum trace_result result = trace_request(task, PTRACE_INTERRUPT, 0, 0, "cannot be stopped", err);
	if (result == TRACE_OK)
		result = trace_request(task, PTRACE_CONT, 0, (uintptr_t)signo, "cannot be continued", err);
	task->stopped = task->stopped && result != TRACE_OK;
	while (result == TRACE_OK && !task->stopped)
		result = trace_await(task, &status, err);
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
		result = trace_request(task, PTRACE_CONT, 0, 0, "cannot be continued", err);
	task->stopped = task->stopped && result != TRACE_OK;
	if (result == TRACE_OK)
		result = trace_await(task, &status, err);
	return result == TRACE_OK ? go_nowhere(task, signo, err) : result;
}

enum trace_result trace_join_stop(struct task *task, struct fsnap_error *err)
{
	return go_nowhere(task, 0, err);
}

void trace_await_end(struct task *task)
{
	int status;
	while (task->seized && trace_await(task, &status, NULL) == TRACE_OK)
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
	enum trace_result result = trace_request(task, PTRACE_CONT, 0, 0, "cannot be continued", err);
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

int trace_check(enum trace_result result, const struct task *task, struct fsnap_error *err)
{
	if (result == TRACE_DIED)
		fail(err, FSNAP_E_TARGET_DIED, 0, "process %d (%s): thread %d ended", task->process->pid,
		     task->process->comm, task->tid);
	return result == TRACE_OK ? 0 : -1;
}
