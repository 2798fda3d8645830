/*
 * registers.c - what a stopped task has in its registers, and its signal mask.
 */
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#include "engine/restarts.h"
#include "engine/trace_parts.h"

/* Room for any XSAVE area that exists: AMX tiles make it 11 KiB. */
#define XSTATE_MAX 16384

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
	enum trace_result result = trace_request(task, PTRACE_GETREGS, 0, (uintptr_t)&task->regs,
					   "cannot read registers", err);
	uint64_t seen = task->regs.rax;
	if (result != TRACE_OK)
		return result;
	hide_interruption(&task->regs);
	return task->regs.rax == seen ? TRACE_OK : trace_set_regs(task, &task->regs, err);
}

enum trace_result trace_get_state(struct task *task, struct fsnap_error *err)
{
	enum trace_result result = trace_request(task, PTRACE_GETREGS, 0, (uintptr_t)&task->regs,
					   "cannot read registers", err);
	if (result != TRACE_OK)
		return result;
	hide_interruption(&task->regs);
	char area[XSTATE_MAX];
	struct iovec vector = { area, sizeof(area) };
	result = trace_request(task, PTRACE_GETREGSET, NT_X86_XSTATE, (uintptr_t)&vector,
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
	return trace_request(task, PTRACE_SETREGS, 0, (uintptr_t)regs, "cannot set registers", err);
}

enum trace_result trace_set_xstate(struct task *task, const void *xstate, size_t size,
				   struct fsnap_error *err)
{
	struct iovec vector = { (void *)(uintptr_t)xstate, size };
	return trace_request(task, PTRACE_SETREGSET, NT_X86_XSTATE, (uintptr_t)&vector,
		       "cannot set vector state", err);
}

enum trace_result trace_get_mask(struct task *task, uint64_t *mask, struct fsnap_error *err)
{
	return trace_request(task, PTRACE_GETSIGMASK, sizeof(*mask), (uintptr_t)mask,
		       "cannot read the signal mask", err);
}

enum trace_result trace_set_mask(struct task *task, uint64_t mask, struct fsnap_error *err)
{
	return trace_request(task, PTRACE_SETSIGMASK, sizeof(mask), (uintptr_t)&mask,
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
