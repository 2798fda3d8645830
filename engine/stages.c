/*
 * stages.c - system calls made in many frozen processes, stage by stage: while one
 * process makes its call, the next is being told to.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/placed.h"
#include "engine/trace.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

struct stage {
	const char *what;
	long nr;
	bool (*arguments)(struct placed *placed); /* fills args; false: nothing to do there */
	int (*then)(struct placed *placed, int64_t result, struct fsnap_error *err);
};

static int begin_call(struct placed *placed, const struct stage *stage, struct fsnap_error *err)
{
	const struct text_gadgets *text = &placed->process->text;
	uint64_t at = text->syscall_ret ? text->syscall_ret : text->syscall_any;
	return trace_check(trace_call_begin(leader(placed), at, placed->chain, stage->nr, placed->args, err),
			   leader(placed), err);
}

/* The agent needs three descriptors and some pages within the target's own limits. EAGAIN is mmap(2)'s word
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
		bool wanted = result == 0 && stage->arguments(placed);
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

/* Any NUL byte serves as a name; the vDSO's ELF header has some that every process shares. Without it,
 * the eight that the kernel has put at the very top of the stack. */
static uint64_t empty_string(const struct process *process)
{
	uint64_t top = 0;
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		if (strcmp(vma->name, "[vdso]") == 0)
			return vma->start + 8;
		if (strcmp(vma->name, "[stack]") == 0)
			top = vma->end - 8;
	}
	return top;
}

/* MFD_EXEC is refused before Linux 6.3 and wanted after it: ask our own kernel. */
unsigned stages_memfd_flags(void)
{
	int fd = memfd_create("probe", MFD_CLOEXEC | MFD_EXEC);
	if (fd < 0)
		return MFD_CLOEXEC;
	close(fd);
	return MFD_CLOEXEC | MFD_EXEC;
}

static bool memfd_arguments(struct placed *placed)
{
	/* Kept in args by place_run(): the flags are the same for all. */
	return set_args(placed, empty_string(placed->process), placed->args[1], 0, 0, 0);
}

static int got_memfd(struct placed *placed, int64_t fd, struct fsnap_error *err)
{
	placed->remote_memfd = (int)fd;
	placed->memfd = (int)syscall(SYS_pidfd_getfd, placed->process->pidfd, fd, 0);
	if (placed->memfd < 0 || ftruncate(placed->memfd, (off_t)placed->size) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "control memory");
	placed->map = mmap(NULL, placed->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			   placed->memfd, 0);
	if (placed->map != MAP_FAILED)
		return 0;
	placed->map = NULL;
	return fail(err, FSNAP_E_SYSTEM, errno, "control memory");
}

/* A process may have denied itself to make memory executable (PR_SET_MDWE), but may make it so no more. */
static bool mmap_arguments(struct placed *placed)
{
	return set_args(placed, 0, placed->size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_POPULATE,
			(uint64_t)placed->remote_memfd);
}

/* The agent's text and what it will read, written through our mapping. */
static int got_mapping(struct placed *placed, int64_t base, struct fsnap_error *err)
{
	struct ctl *ctl = placed_ctl(placed);
	struct process *process = placed->process;
	placed->base = (uint64_t)base;
	memcpy(placed->map, agent_blob, agent_blob_size);
	if (plans_write(placed->plans, ctl, placed->base, err) < 0)
		return -1;
	ctl->chain = placed->chain;
	ctl->gadget = process->text.syscall_ret;
	*ctl_slot(ctl, placed->memfd_slot) = placed->remote_memfd;
	for (uint32_t i = 0; i < process->n_tasks; i++)
		ctl_task(ctl, i)->home_frame = placed->homes[i].frame;
	return 0;
}

static bool data_arguments(struct placed *placed)
{
	return set_args(placed, placed->base + AGENT_TEXT, placed->size - AGENT_TEXT, PROT_READ | PROT_WRITE, 0, 0);
}

static const struct stage way_in[] = {
	{ "memfd_create", SYS_memfd_create, memfd_arguments, got_memfd },
	{ "mmap", SYS_mmap, mmap_arguments, got_mapping },
	{ "mprotect", SYS_mprotect, data_arguments, NULL },
};

/* --- out ------------------------------------------------------------------------------- */

/* One descriptor a call; which are open depends on how far the way in was gone. */
static bool close_arguments(struct placed *placed, int fd)
{
	return fd >= 0 && leader(placed)->stopped && set_args(placed, (uint64_t)fd, 0, 0, 0, 0);
}

static bool memfd_to_close(struct placed *placed)
{
	return close_arguments(placed, placed->remote_memfd);
}

static bool socket_to_close(struct placed *placed)
{
	return placed->base && close_arguments(placed, placed_ctl(placed)->socket);
}

/* The agent closes its copy of our end at the first order, and says so. */
static bool peer_to_close(struct placed *placed)
{
	return placed->base && close_arguments(placed, placed_ctl(placed)->peer);
}

static bool mapping_to_drop(struct placed *placed)
{
	return placed->base && leader(placed)->stopped && set_args(placed, placed->base, placed->size, 0, 0, 0);
}

static const struct stage way_out[] = {
	{ "close", SYS_close, memfd_to_close, NULL },
	{ "close", SYS_close, socket_to_close, NULL },
	{ "close", SYS_close, peer_to_close, NULL },
	{ "munmap", SYS_munmap, mapping_to_drop, NULL },
};

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
