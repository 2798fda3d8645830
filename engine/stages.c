/*
 * stages.c - system calls made in many frozen processes, stage by stage: while one
 * process makes its call, the next is being told to.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/frame.h"
#include "engine/leftover.h"
#include "engine/placed.h"
#include "engine/trace.h"
#include "store/scope.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

struct stage {
	const char *what;
	long nr;
	bool (*arguments)(struct placed *placed); /* fills args; false: nothing to do there */
	int (*then)(struct placed *placed, int64_t result, struct fsnap_error *err);
	bool optional; /* where it is not permitted, another stage does without */
};

static int begin_call(struct placed *placed, const struct stage *stage, struct fsnap_error *err)
{
	const struct text_gadgets *text = &placed->process->text;
	uint64_t at = text->syscall_ret ? text->syscall_ret : text->syscall_any;
	return trace_check(trace_call_begin(leader(placed), at, placed->chain, stage->nr, placed->args, err),
			   leader(placed), err);
}

/* The agent may need a descriptor, and needs some pages, within the target's own limits. EAGAIN is mmap(2)'s word
 * for a program that has all of its memory locked (MCL_FUTURE), as much as it may. */
int placed_no_room(const struct placed *placed, int sys, struct fsnap_error *err)
{
	bool files = sys == EMFILE, locked = sys == EAGAIN;
	fail(err, FSNAP_E_UNSUPPORTED, sys, "it has no %s left, and needs some while it is being saved",
	     files ? "descriptors" : locked ? "memory it may lock" : "memory");
	return error_hint(err, "raise its limit: prlimit --pid %d --%s=...", placed->process->pid,
			  files ? "nofile" : locked ? "memlock" : "as");
}

static int end_call(struct placed *placed, const struct stage *stage, struct fsnap_error *err)
{
	int64_t result;
	if (trace_check(trace_call_end(leader(placed), &result, err), leader(placed), err) < 0)
		return -1;
	if (result == -EMFILE || result == -ENOMEM || result == -EAGAIN) {
		placed_no_room(placed, (int)-result, err);
		return error_context(err, "process %d (%s)", placed->process->pid, placed->process->comm);
	}
	if (stage->optional && (result == -EACCES || result == -EPERM)) {
		placed->by_address = false;
		return 0;
	}
	size_t wanted = AGENT_TEXT + plans_size(placed->plans);
	if (stage->optional && (result == -ENOMEM || result == -EAGAIN) && placed->size > wanted) {
		placed->size = wanted; /* as much as is needed there may be */
		return 0;
	}
	if (result < 0 && result >= -4095)
		return fail(err, FSNAP_E_SYSTEM, (int)-result, "process %d (%s): %s inside it",
			    placed->process->pid, placed->process->comm, stage->what);
	return stage->then ? stage->then(placed, result, err) : 0;
}

/* Calls that were begun are ended in any case: nobody is left in the midst of one. */
static int run_stage(struct placement *all, size_t n, const struct stage *stage, struct fsnap_error *err)
{
	int result = 0;
	for (size_t i = 0; i < n; i++) {
		struct placed *placed = all[i].placed;
		bool wanted = result == 0 && !trace_call_pending(leader(placed)) && stage->arguments(placed);
		if (wanted && begin_call(placed, stage, err) < 0)
			result = -1;
	}
	for (size_t i = 0; i < n; i++)
		if (trace_check(trace_call_enter(leader(all[i].placed), err), leader(all[i].placed), err) < 0)
			result = -1;
	for (size_t i = 0; i < n; i++)
		if (trace_call_pending(leader(all[i].placed)) && end_call(all[i].placed, stage, err) < 0)
			result = -1;
	return result;
}

static bool set_args(struct placed *placed, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	const uint64_t args[6] = { a, b, c, d, e, 0 };
	memcpy(placed->args, args, sizeof(args));
	return true;
}

/* --- in -------------------------------------------------------------------------------- */

/* A name by which it is known should we die (leftover.h), or else any NUL byte: the vDSO's ELF header has some that every
 * process shares. Without it, the eight that the kernel has put at the very top of the stack. */
static uint64_t memfd_name(const struct process *process)
{
	uint64_t top = 0;
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		uint64_t name = strcmp(vma->name, "[vdso]") == 0 ? leftover_name(process, vma->start) : 0;
		if (strcmp(vma->name, "[vdso]") == 0)
			return name ? name : vma->start + 8;
		if (strcmp(vma->name, "[stack]") == 0)
			top = vma->end - 8;
	}
	return top;
}

/* MFD_EXEC is refused before Linux 6.3 and wanted after it: ask our own kernel. */
static unsigned memfd_flags(void)
{
	static unsigned known; /* the same for ever */
	int fd = known ? -1 : memfd_create("probe", MFD_CLOEXEC | MFD_EXEC);
	if (fd >= 0)
		close(fd);
	if (!known)
		known = fd >= 0 ? MFD_CLOEXEC | MFD_EXEC : MFD_CLOEXEC;
	return known;
}

#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40 /* Linux 5.9 */
#endif

/* In a user namespace these are not enough; opening will then tell. */
bool stages_by_address(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct have[_LINUX_CAPABILITY_U32S_3] = { 0 };
	return syscall(SYS_capget, &head, have) == 0 &&
	       (have[0].effective & 1u << CAP_SYS_ADMIN ||
		have[CAP_CHECKPOINT_RESTORE / 32].effective & 1u << CAP_CHECKPOINT_RESTORE % 32);
}

/* The kernel marks it when we die, and wakes the agent (parasite/plan.h): of so many that a thread holds, and no more
 * (exit_robust_list() of kernel/futex/core.c). The agents behind them would not be woken. */
_Static_assert(PLACE_BATCH < ROBUST_LIST_LIMIT, "all agents of a batch notice that we have died");

static int hold(struct placed *placed, struct fsnap_error *err)
{
	pthread_mutex_t *mutex = (pthread_mutex_t *)placed_ctl(placed)->engine;
	pthread_mutexattr_t attr;
	_Static_assert(sizeof(pthread_mutex_t) <= sizeof(placed_ctl(placed)->engine) &&
		       offsetof(pthread_mutex_t, __data.__lock) == 0, "the futex word of a mutex is its first");
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	int sys = pthread_mutex_init(mutex, &attr);
	if (sys == 0)
		sys = pthread_mutex_lock(mutex);
	placed->held = sys == 0;
	return sys == 0 ? 0 : fail(err, FSNAP_E_SYSTEM, sys, "a robust mutex");
}

void stages_let_go(struct placed *placed)
{
	if (placed->held)
		pthread_mutex_unlock((pthread_mutex_t *)placed_ctl(placed)->engine);
	placed->held = false;
}

/* What the agent will read, written through our mapping. */
static int fill(struct placed *placed, struct fsnap_error *err)
{
	struct ctl *ctl = placed_ctl(placed);
	const struct process *process = placed->process;
	if (plans_write(placed->plans, ctl, placed->base, err) < 0)
		return -1;
	ctl->size = placed->size;
	ctl->chain = placed->chain;
	ctl->gadget = process->text.syscall_ret;
	*ctl_slot(ctl, placed->memfd_slot) = placed->remote_memfd;
	for (uint32_t i = 0; i < placed->n; i++) {
		const struct task *task = process->tasks[i];
		ctl_task(ctl, i)->home_frame = placed->homes[i].frame;
		ctl_task(ctl, i)->interrupted = task->unconfined ? frame_interrupted(task) : CALL_BEGINS_ANEW;
	}
	return hold(placed, err);
}

#define WRITTEN_AT_ONCE (2 * 4096) /* struct ctl, tasks, and plans of one process */

/* Pages come as they are touched: most are not. The agent's text is not mapped here, only written. */
static bool map_here(struct placed *placed, int fd)
{
	void *map = MAP_FAILED;
	if (pwrite(fd, agent_blob, agent_blob_size, 0) == (ssize_t)agent_blob_size)
		map = mmap(NULL, placed->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	placed->map = map == MAP_FAILED ? NULL : map;
	if (placed->map) /* in one go; where the kernel cannot (before Linux 5.14), by faults */
		madvise(placed_ctl(placed), WRITTEN_AT_ONCE, MADV_POPULATE_WRITE);
	/* Nothing is lent before there is a plan either: zeroes would name standard input, which is closed on the way out. */
	for (unsigned i = 0; placed->map && i < 3; i++)
		placed_ctl(placed)->lent[i] = -1;
	return placed->map;
}

/* Shared anonymous memory is a file without a name, which the kernel lets the privileged open. A process may have
 * denied itself to make memory executable (PR_SET_MDWE), but may make it so no more. */
static bool shared_arguments(struct placed *placed)
{
	return placed->by_address && !placed->map &&
	       set_args(placed, leftover_place(placed->process, placed->size), placed->size, PROT_READ | PROT_EXEC,
			MAP_SHARED | MAP_ANONYMOUS, (uint64_t)-1);
}

/* What of it cannot be used is taken out again. */
static int leave_stray(struct placed *placed, int64_t base)
{
	placed->stray = (uint64_t)base;
	placed->stray_size = placed->size;
	return 0;
}

static int got_shared(struct placed *placed, int64_t base, struct fsnap_error *err)
{
	char name[64];
	size_t wanted = AGENT_TEXT + plans_size(placed->plans), size = placed->size;
	if (size < wanted) {
		leave_stray(placed, base);
		placed->size = wanted;
		return 0;
	}
	snprintf(name, sizeof(name), "map_files/%lx-%lx", (unsigned long)base, (unsigned long)base + size);
	cleanup_fd int fd = openat(placed->process->proc, name, O_RDWR | O_CLOEXEC);
	placed->by_address = fd >= 0 && map_here(placed, fd);
	if (!placed->by_address)
		return leave_stray(placed, base);
	placed->base = (uint64_t)base;
	return fill(placed, err);
}

static bool stray_arguments(struct placed *placed)
{
	return placed->stray && leader(placed)->stopped && set_args(placed, placed->stray, placed->stray_size, 0, 0, 0);
}

static int dropped_stray(struct placed *placed, int64_t result, struct fsnap_error *err)
{
	(void)result;
	(void)err;
	placed->stray = 0;
	return 0;
}

static bool memfd_arguments(struct placed *placed)
{
	return !placed->map && set_args(placed, memfd_name(placed->process), memfd_flags(), 0, 0, 0);
}

static int got_memfd(struct placed *placed, int64_t remote, struct fsnap_error *err)
{
	placed->remote_memfd = (int)remote;
	cleanup_fd int fd = (int)syscall(SYS_pidfd_getfd, placed->process->pidfd, remote, 0);
	if (fd < 0 || ftruncate(fd, (off_t)placed->size) < 0 || !map_here(placed, fd))
		return fail(err, FSNAP_E_SYSTEM, errno, "control memory");
	return 0;
}

static bool mmap_arguments(struct placed *placed)
{
	return !placed->base && set_args(placed, 0, placed->size, PROT_READ | PROT_EXEC, MAP_SHARED,
					 (uint64_t)placed->remote_memfd);
}

static int got_mapping(struct placed *placed, int64_t base, struct fsnap_error *err)
{
	placed->base = (uint64_t)base;
	return fill(placed, err);
}

static const struct stage way_in[] = {
	{ "mmap", SYS_mmap, shared_arguments, got_shared, true },
	{ "munmap", SYS_munmap, stray_arguments, dropped_stray, false },
	{ "mmap", SYS_mmap, shared_arguments, got_shared, true }, /* the first, where it was begun, may have been too small */
	{ "munmap", SYS_munmap, stray_arguments, dropped_stray, false },
	{ "memfd_create", SYS_memfd_create, memfd_arguments, got_memfd, false },
	{ "mmap", SYS_mmap, mmap_arguments, got_mapping, false },
};

/* --- out ------------------------------------------------------------------------------- */

static bool memfd_to_close(struct placed *placed)
{
	return placed->remote_memfd >= 0 && leader(placed)->stopped &&
	       set_args(placed, (uint64_t)placed->remote_memfd, 0, 0, 0, 0);
}

static bool lent_to_close(struct placed *placed, unsigned which)
{
	int fd = placed->base ? placed_ctl(placed)->lent[which] : -1;
	return fd >= 0 && leader(placed)->stopped && set_args(placed, (uint64_t)fd, 0, 0, 0, 0);
}

/* Where the plan has not come as far as giving them back. */
static bool first_to_close(struct placed *placed)
{
	return lent_to_close(placed, 0);
}

static bool second_to_close(struct placed *placed)
{
	return lent_to_close(placed, 1);
}

static bool third_to_close(struct placed *placed)
{
	return lent_to_close(placed, 2);
}

static bool mapping_to_drop(struct placed *placed)
{
	return placed->base && leader(placed)->stopped && set_args(placed, placed->base, placed->size, 0, 0, 0);
}

static const struct stage way_out[] = {
	{ "close", SYS_close, memfd_to_close, NULL, false },
	{ "close", SYS_close, first_to_close, NULL, false },
	{ "close", SYS_close, second_to_close, NULL, false },
	{ "close", SYS_close, third_to_close, NULL, false },
	{ "munmap", SYS_munmap, stray_arguments, dropped_stray, false },
	{ "munmap", SYS_munmap, mapping_to_drop, NULL, false },
};

/* --- the first call, ahead of all else --------------------------------------------------- */

#define ROOM (256u << 10)	/* for what is asked of a process */
#define ROOM_PER_TASK (16u << 10)

/* The plans are not known yet; pages that are not needed cost nothing. */
int stages_begin(struct placed *placed, struct fsnap_error *err)
{
	placed->size = AGENT_TEXT + ROOM + placed->process->n_tasks * ROOM_PER_TASK;
	return shared_arguments(placed) ? begin_call(placed, &way_in[0], err) : 0;
}

int stages_go_on(struct placed *placed, struct fsnap_error *err)
{
	return trace_call_pending(leader(placed)) ? end_call(placed, &way_in[0], err) : 0;
}

void stages_give_up(struct placed *placed)
{
	int64_t result;
	if (trace_call_pending(leader(placed)) && trace_call_end(leader(placed), &result, NULL) == TRACE_OK &&
	    (result > 0 || result < -4095))
		leave_stray(placed, result);
}

/* --- all of a way -------------------------------------------------------------------------- */

int stages_in(struct placement *all, size_t n, struct fsnap_error *err)
{
	for (size_t i = 0; i < sizeof(way_in) / sizeof(way_in[0]); i++)
		if (run_stage(all, n, &way_in[i], err) < 0)
			return -1;
	return 0;
}

/* Every stage, whatever became of the others. */
int stages_out(struct placement *all, size_t n, struct fsnap_error *err)
{
	int result = 0;
	for (size_t i = 0; i < sizeof(way_out) / sizeof(way_out[0]); i++)
		if (run_stage(all, n, &way_out[i], err) < 0)
			result = -1;
	return result;
}
