/*
 * seccomp.c - strict mode and filters (seccomp(2)).
 *
 * Filters are read by ptrace, which asks for CAP_SYS_ADMIN and a reader that has none itself.
 * They go back oldest first, while the tracer has suspended them: the plan's remaining calls
 * were never meant for them.
 *
 * Threads that inherited a filter, or got it by SECCOMP_FILTER_FLAG_TSYNC, have the same one; others
 * may have equal ones.  Nobody tells which, but a later TSYNC fails where they are only equal
 * (is_ancestor() in kernel/seccomp.c).  Oldest filters that are equal in all threads of a process
 * become the same in all: hardly ever were they something else.
 */
#include <linux/bpf_common.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>

#include "engine/kinds/kinds.h"
#include "engine/state/state.h"
#include "engine/trace.h"

const struct other_kind kind_seccomp = {
	.name = "seccomp",
	.keeps = "strict mode, chains of filters and whether they are logged; those that all threads have are the "
		 "same again, so that SECCOMP_FILTER_FLAG_TSYNC goes on working",
	.refuses = "filters that ask a supervisor (SECCOMP_RET_USER_NOTIF)",
	.shown_by = "seccomp_*",
};

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

/* Asks a supervisor that holds a descriptor made with the filter: that one cannot be made again. The answer
 * may be computed, too (BPF_RET | BPF_A). */
static bool asks_supervisor(const struct sock_filter *code, long n)
{
	bool returns = false, loads = false;
	for (long i = 0; i < n; i++) {
		bool asks = (code[i].k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_USER_NOTIF;
		if (code[i].code == (BPF_RET | BPF_K) && asks)
			return true;
		returns |= code[i].code == (BPF_RET | BPF_A);
		loads |= code[i].code == (BPF_LD | BPF_IMM) && asks;
	}
	return returns && loads;
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
	task->unconfined = image->seccomp == SECCOMP_MODE_DISABLED;
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

/* Without SPEC_ALLOW a filter would change what settings.c has set; with which it was made nobody tells
 * (seccomp_get_metadata() in kernel/seccomp.c: LOG only). */
static int install(const struct rebuild *r, const image_filter *filter, unsigned flags, struct fsnap_error *err)
{
	size_t size = filter->code.code_len;
	if (!size || size % sizeof(struct sock_filter) || size / sizeof(struct sock_filter) > BPF_MAXINSNS)
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0,
			    "process %d: a seccomp filter of %zu bytes", r->process->pid, size);
	struct sock_fprog program = { .len = (unsigned short)(size / sizeof(struct sock_filter)) };
	uint32_t at = plans_data(r->plans, &program, sizeof(program), 8);
	plans_pointer(r->plans, at + (uint32_t)offsetof(struct sock_fprog, filter),
		    plans_data(r->plans, filter->code.code_val, size, 8));
	flags |= (filter->flags & SECCOMP_FILTER_FLAG_LOG) | SECCOMP_FILTER_FLAG_SPEC_ALLOW;
	plan_call(r->plans, r->task, SYS_seccomp, IMM(SECCOMP_SET_MODE_FILTER), IMM(flags), DATA(at));
	plan_accept_equal(r->plans, 0); /* else: a thread that cannot have it */
	return 0;
}

static bool same_filter(const image_filter *a, const image_filter *b)
{
	return a->flags == b->flags && a->code.code_len == b->code.code_len &&
	       memcmp(a->code.code_val, b->code.code_val, a->code.code_len) == 0;
}

unsigned seccomp_common(const image_process *process)
{
	const image_thread *first = process->threads.threads_val;
	unsigned n = process->threads.threads_len > 1 && !process->leader_ended ? first->filters.filters_len : 0;
	for (u_int i = 1; n && i < process->threads.threads_len; i++) {
		const image_thread *thread = &first[i];
		/* Setting it for all would also set that. */
		if (thread->creds.no_new_privs != first->creds.no_new_privs)
			return 0;
		n = thread->filters.filters_len < n ? thread->filters.filters_len : n;
		for (unsigned same = 0; same < n; same++)
			if (!same_filter(&thread->filters.filters_val[same], &first->filters.filters_val[same]))
				n = same;
	}
	return n;
}

/* Without privileges only who can gain none may install a filter. */
static void gain_no_privileges(const struct rebuild *r)
{
	plan_note(r->plans, "no new privileges");
	if (r->thread->creds.no_new_privs)
		plan_call(r->plans, r->task, SYS_prctl, IMM(PR_SET_NO_NEW_PRIVS), IMM(1));
}

int seccomp_rebuild_common(const struct rebuild *r, struct fsnap_error *err)
{
	gain_no_privileges(r);
	plan_note(r->plans, "seccomp, for all threads");
	for (unsigned i = 0; i < r->common_filters; i++)
		if (install(r, &r->thread->filters.filters_val[i], SECCOMP_FILTER_FLAG_TSYNC, err) < 0)
			return -1;
	return 0;
}

int seccomp_rebuild_task(const struct rebuild *r, struct fsnap_error *err)
{
	const image_thread *image = r->thread;
	if (!image->seccomp)
		return 0;
	gain_no_privileges(r);
	plan_note(r->plans, "seccomp");
	if (image->seccomp == SECCOMP_MODE_STRICT)
		plan_call(r->plans, r->task, SYS_prctl, IMM(PR_SET_SECCOMP), IMM(SECCOMP_MODE_STRICT));
	for (unsigned i = r->common_filters; i < image->filters.filters_len; i++)
		if (install(r, &image->filters.filters_val[i], 0, err) < 0)
			return -1;
	return 0;
}
