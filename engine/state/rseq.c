/*
 * rseq.c - restartable sequences (rseq(2)): a thread's registered area, and the promise that a
 * critical section which is interrupted continues at its abort handler.
 */
#include <linux/rseq.h>
#include <string.h>
#include <sys/ptrace.h>
#include <unistd.h>

#include "engine/state/state.h"
#include "engine/trace.h"

#define LIBC_SIGNATURE 0x53053053 /* RSEQ_SIG of <sys/rseq.h> on x86 */

/* --- dump ------------------------------------------------------------------------- */

/*
 * A restore is an interruption: a thread that stands inside a critical section comes back at
 * its abort handler.  The kernel does the same for the target itself when it runs on, so only
 * the image is changed.
 */
static void leave_critical_section(struct task *task)
{
	struct user_regs_struct *regs = (void *)task->image.regs.regs_val;
	struct rseq_cs section;
	uint64_t address;
	off_t at = (off_t)(task->image.rseq + offsetof(struct rseq, rseq_cs));
	if (task->image.regs.regs_len != sizeof(*regs) ||
	    pread(task->process->mem, &address, sizeof(address), at) != sizeof(address) || !address ||
	    pread(task->process->mem, &section, sizeof(section), (off_t)address) != sizeof(section))
		return;
	if (regs->rip - section.start_ip < section.post_commit_offset)
		regs->rip = section.abort_ip;
}

int rseq_collect_task(struct task_survey *survey, struct fsnap_error *err)
{
	struct task *task = survey->task;
	struct __ptrace_rseq_configuration area;
	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, task->tid, sizeof(area), &area) < 0) {
		if (errno == ESRCH)
			return trace_check(TRACE_DIED, task, err);
		return fail(err, FSNAP_E_KERNEL_LACKS, errno,
			    "process %d: reading the rseq area of thread %d", task->process->pid,
			    task->tid);
	}
	task->image.rseq = area.rseq_abi_pointer;
	task->image.rseq_size = area.rseq_abi_size;
	task->image.rseq_signature = area.signature;
	if (task->image.rseq)
		leave_critical_section(task);
	return 0;
}

/* --- restore ------------------------------------------------------------------------ */

/* A fork inherits the registration, but not of a parent that has ended it by then. The kernel
 * would write to the area whenever it moves the task: it must be forgotten before that memory goes. */
void rseq_forget(const struct rebuild *r)
{
	if (!r->self->rseq)
		return;
	plan_note(r->plans, "forget the rseq area of the restoring process");
	plan_call(r->plans, r->task, SYS_rseq, IMM(r->self->rseq), IMM(r->self->rseq_size),
		  IMM(RSEQ_FLAG_UNREGISTER), IMM(LIBC_SIGNATURE));
	plan_accept_any(r->plans);
}

void rseq_rebuild_task(const struct rebuild *r)
{
	const image_thread *image = r->thread;
	if (!image->rseq)
		return;
	plan_note(r->plans, "rseq area");
	plan_call(r->plans, r->task, SYS_rseq, IMM(image->rseq), IMM(image->rseq_size), IMM(0),
		  IMM(image->rseq_signature));
}
