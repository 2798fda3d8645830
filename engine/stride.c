/*
 * stride.c - a thread that was stopped inside the vDSO walks on until it is out of it.
 *
 * Elsewhere its registers would mean nothing: the code it stands in is another kernel's there, and
 * the data that code has half read is laid out differently (restorer/vdso.h).  A call takes tens of
 * nanoseconds, so it is enough to let the thread run for a moment and stop it again; who calls the
 * clock all the time may be met inside again, and needs more than one moment.
 *
 * Single steps or a breakpoint would find the very exit, but if we died, what they leave set in
 * the thread would be its end (see trace.c).  Like this, it would just run on.
 */
#include <string.h>
#include <unistd.h>

#include "engine/seize.h"
#include "engine/trace.h"

#define MOMENTS 5 /* what a busy one costs everybody: each is some 0.1 ms of frozen time */
#define MOMENT_US 10

/* As looked at before the freeze: what has executed another program since is not helped. */
static bool inside(const struct task *task)
{
	const image_mm *mm = &task->process->mm;
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		if (vma->kind == VMA_SPECIAL && task->regs.rip >= vma->start && task->regs.rip < vma->end)
			return true;
	}
	return false;
}

enum trace_result stride_out(struct task *task, struct fsnap_error *err)
{
	for (int i = 0; i < MOMENTS && !task->group_stop && inside(task); i++) {
		enum trace_result result = trace_continue(task, err);
		if (result != TRACE_OK)
			return result;
		usleep(MOMENT_US);
		if (trace_interrupt(task) != TRACE_OK)
			return TRACE_DIED;
		if ((result = trace_await_stop(task, err)) != TRACE_OK ||
		    (result = trace_hide_stop(task, err)) != TRACE_OK)
			return result;
	}
	return TRACE_OK;
}
