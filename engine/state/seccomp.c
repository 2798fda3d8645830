/*
 * seccomp.c - strict mode and filters (seccomp(2)).
 *
 * Filters are read by ptrace, which asks for CAP_SYS_ADMIN and a reader that has none itself.
 * They go back oldest first, while the tracer has suspended them: the plan's remaining calls
 * were never meant for them.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>

#include "engine/state/state.h"
#include "engine/trace.h"

/* --- dump ------------------------------------------------------------------------- */

static int cannot_read(const struct task *task, struct fsnap_error *err)
{
	int sys = errno;
	if (sys == ESRCH)
		return trace_check(TRACE_DIED, task, err);
	int code = sys == EACCES ? FSNAP_E_PERMISSION :
		   sys == EMEDIUMTYPE ? FSNAP_E_UNSUPPORTED : FSNAP_E_SYSTEM;
	fail(err, code, sys, "process %d: thread %d: reading its seccomp filters",
	     task->process->pid, task->tid);
	if (sys == EACCES)
		error_hint(err, "run fsnap with CAP_SYS_ADMIN, and outside of seccomp itself");
	return -1;
}

/* Asks a supervisor that holds a descriptor made with the filter: that one cannot be made again. */
static bool asks_supervisor(const struct sock_filter *code, long n)
{
	for (long i = 0; i < n; i++)
		if (code[i].code == (BPF_RET | BPF_K) &&
		    (code[i].k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_USER_NOTIF)
			return true;
	return false;
}

/* Filter `index`, 0 the oldest, into *filter. 1: read; 0: there is none; -1: error. */
static int read_filter(const struct task *task, uint64_t index, image_filter *filter,
		       struct fsnap_error *err)
{
	long n = ptrace(PTRACE_SECCOMP_GET_FILTER, task->tid, index, NULL);
	if (n < 0)
		return errno == ENOENT ? 0 : cannot_read(task, err);
	struct sock_filter *code = calloc((size_t)n, sizeof(*code));
	if (!code)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "reading seccomp filters");
	filter->code.code_val = (char *)code;
	filter->code.code_len = (u_int)((size_t)n * sizeof(*code));
	struct __ptrace_seccomp_metadata metadata = { .filter_off = index };
	if (ptrace(PTRACE_SECCOMP_GET_FILTER, task->tid, index, code) < 0 ||
	    ptrace(PTRACE_SECCOMP_GET_METADATA, task->tid, sizeof(metadata), &metadata) < 0)
		return cannot_read(task, err);
	filter->flags = (unsigned)metadata.flags;
	if (asks_supervisor(code, n)) {
		fail(err, FSNAP_E_UNSUPPORTED, 0,
		     "process %d: thread %d: a seccomp filter that asks a supervisor",
		     task->process->pid, task->tid);
		return error_hint(err, "save it from outside of the sandbox that supervises it");
	}
	return 1;
}

int seccomp_collect_task(struct task_survey *survey, struct fsnap_error *err)
{
	struct task *task = survey->task;
	image_thread *image = &task->image;
	image->seccomp = survey->status.seccomp;
	if (image->seccomp != SECCOMP_MODE_FILTER)
		return 0;
	for (unsigned n = 0;; n++) {
		image_filter *more = reallocarray(image->filters.filters_val, n + 1, sizeof(*more));
		if (!more)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "reading seccomp filters");
		image->filters.filters_val = more;
		more[n] = (image_filter){ .flags = 0 };
		image->filters.filters_len = n + 1; /* so that what fails halfway is freed, too */
		int got = read_filter(task, n, &more[n], err);
		if (got < 0)
			return -1;
		if (got == 0) {
			image->filters.filters_len = n;
			return 0;
		}
	}
}

/* --- restore ------------------------------------------------------------------------ */

static int install(const struct rebuild *r, const image_filter *filter, struct fsnap_error *err)
{
	size_t size = filter->code.code_len;
	if (!size || size % sizeof(struct sock_filter) || size / sizeof(struct sock_filter) > BPF_MAXINSNS)
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0,
			    "process %d: a seccomp filter of %zu bytes", r->process->pid, size);
	struct sock_fprog program = { .len = (unsigned short)(size / sizeof(struct sock_filter)) };
	uint32_t at = plans_data(r->plans, &program, sizeof(program), 8);
	plans_pointer(r->plans, at + (uint32_t)offsetof(struct sock_fprog, filter),
		    plans_data(r->plans, filter->code.code_val, size, 8));
	plan_call(r->plans, r->task, SYS_seccomp, IMM(SECCOMP_SET_MODE_FILTER),
		  IMM(filter->flags & SECCOMP_FILTER_FLAG_LOG), DATA(at));
	return 0;
}

int seccomp_rebuild_task(const struct rebuild *r, struct fsnap_error *err)
{
	const image_thread *image = r->thread;
	if (!image->seccomp)
		return 0;
	/* Without privileges only who can gain none may install a filter. */
	plan_note(r->plans, "no new privileges");
	if (image->creds.no_new_privs)
		plan_call(r->plans, r->task, SYS_prctl, IMM(PR_SET_NO_NEW_PRIVS), IMM(1));
	plan_note(r->plans, "seccomp");
	if (image->seccomp == SECCOMP_MODE_STRICT)
		plan_call(r->plans, r->task, SYS_prctl, IMM(PR_SET_SECCOMP), IMM(SECCOMP_MODE_STRICT));
	for (unsigned i = 0; i < image->filters.filters_len; i++)
		if (install(r, &image->filters.filters_val[i], err) < 0)
			return -1;
	return 0;
}
