/*
 * inherited.c - what the restoring process is, and so the tasks it makes at first.
 */
#include <fcntl.h>
#include <linux/prctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#define LIBC_HAS_RSEQ 1
#endif

#include "engine/procfs.h"
#include "engine/state/state.h"
#include "store/scope.h"

#ifndef PR_TIMER_CREATE_RESTORE_IDS
#define PR_TIMER_CREATE_RESTORE_IDS 77
#define PR_TIMER_CREATE_RESTORE_IDS_GET 2
#endif
#ifndef PR_GET_MEMORY_MERGE /* Linux 6.4 */
#define PR_GET_MEMORY_MERGE 68
#endif
#ifndef AT_RSEQ_FEATURE_SIZE
#define AT_RSEQ_FEATURE_SIZE 27
#define AT_RSEQ_ALIGN 28
#endif

static int collect_status(struct inherited *self, struct fsnap_error *err)
{
	struct task_status status;
	cleanup_free char *text = procfs_read(AT_FDCWD, "/proc/thread-self/status", NULL, err);
	if (!text || status_parse(text, &status, err) < 0)
		return -1;
	self->process.umask = status.umask;
	self->thread.seccomp = status.seccomp;
	self->thread.creds = status.creds;
	self->thread.creds.securebits = (unsigned)prctl(PR_GET_SECUREBITS);
	return 0;
}

static int collect_limits(struct inherited *self, struct fsnap_error *err)
{
	image_limit *limits = calloc(RLIM_NLIMITS, sizeof(*limits));
	if (!limits)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "listing resource limits");
	self->process.limits.limits_val = limits;
	self->process.limits.limits_len = RLIM_NLIMITS;
	for (unsigned i = 0; i < RLIM_NLIMITS; i++)
		if (syscall(SYS_prlimit64, 0, i, NULL, &limits[i]) < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "reading the limit of %s", limit_names[i]);
	return 0;
}

/* libc registers what the kernel can use, rounded up to its alignment, and never less than the
 * 32 bytes that rseq began with. */
static void collect_rseq(struct inherited *self)
{
#ifdef LIBC_HAS_RSEQ
	unsigned long size = getauxval(AT_RSEQ_FEATURE_SIZE), align = getauxval(AT_RSEQ_ALIGN);
	if (!__rseq_size)
		return;
	self->rseq = (uint64_t)(uintptr_t)__builtin_thread_pointer() + (uint64_t)__rseq_offset;
	self->rseq_size = size > 32 && align ? (unsigned)((size + align - 1) / align * align) : 32;
#else
	(void)self;
#endif
}

int inherited_collect(struct inherited *self, struct fsnap_error *err)
{
	*self = (struct inherited){ .rseq = 0 };
	char name[16];
	prctl(PR_GET_NAME, name);
	self->thread.comm = strdup(name);
	self->thread.timerslack_ns = (uint64_t)prctl(PR_GET_TIMERSLACK);
	settings_inherited(&self->thread);
	self->process.thp_disable = (unsigned)prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	self->merge_any = prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1;
	self->timer_ids = prctl(PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_GET, 0, 0,
				0) >= 0;
	collect_rseq(self);
	cleanup_fd int proc = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (future_allowed(err) < 0 || collect_status(self, err) < 0 || collect_limits(self, err) < 0 ||
	    sched_inherited(&self->thread.sched, err) < 0 ||
	    identity_read(&(struct process){ .proc = proc }, &self->process, err) < 0) {
		inherited_free(self);
		return error_context(err, "looking at the restoring process");
	}
	return 0;
}

void inherited_free(struct inherited *self)
{
	free(self->thread.comm);
	free(self->thread.creds.groups.groups_val);
	free(self->thread.sched.affinity.affinity_val);
	free(self->process.limits.limits_val);
	*self = (struct inherited){ .rseq = 0 };
}
