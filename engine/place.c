#include "engine/place.h"

#include <linux/futex.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/frame.h"
#include "engine/seize.h"
#include "engine/trace.h"
#include "store/scope.h"

#define RED_ZONE 128
#define ALL_SIGNALS (~0ull)
#define LOOK_AROUND_MS 50 /* how often a wait checks that the target still lives */
#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

struct placed {
	struct process *process;
	struct plans *plans;
	void *map;	 /* the agent's memory, here */
	size_t size;	 /* bytes of it, text included */
	uint64_t base;	 /* there; 0: not mapped */
	uint64_t chain;	 /* there; 0: none */
	struct home {	 /* of each task: its signal frame, outside control memory */
		uint64_t frame;	 /* there */
		char *was;	 /* what lay there, from 8 bytes below */
	} *homes;
	size_t n_homes;
	int remote_memfd; /* its number there; -1: closed */
	int memfd;	  /* a duplicate of it, here */
	int socket;
};

struct ctl *placed_ctl(struct placed *placed)
{
	return (struct ctl *)((char *)placed->map + AGENT_TEXT);
}

static struct task *leader(const struct placed *placed)
{
	return placed->process->tasks[0];
}

/* --- the way home ---------------------------------------------------------- */

/* What a task's frame takes: the word below it, and alignment. */
static size_t home_size(const struct task *task)
{
	return (frame_size(task) + sizeof(uint64_t) + 127) & ~63ul;
}

static const image_vma *find_vma(const struct process *process, uint64_t address)
{
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		if (address >= vma->start && address < vma->end)
			return vma;
	}
	return NULL;
}

/* The lower part of the main stack, which its owner has grown but does not use now. */
static void find_spare(const struct process *process, uint64_t *start, uint64_t *end)
{
	uint64_t sp = process->tasks[0]->regs.rsp;
	*start = *end = 0;
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		if (strcmp(vma->name, "[stack]") != 0)
			continue;
		bool here = sp > vma->start && sp <= vma->end;
		*start = vma->start;
		/* On a stack of its own making? Then how deep the main stack was is not known. */
		*end = here ? sp - RED_ZONE : vma->start + (vma->end - vma->start) / 2;
	}
}

/* Where the frames go: the spare part of the main stack; threads beyond that use their own stacks,
 * below the red zone. Stacks that a runtime carves out of its heap may be too small for that, which
 * is why they come second. All of it is put back before the process runs. */
static int place_frames(struct placed *placed, struct fsnap_error *err)
{
	struct process *process = placed->process;
	uint64_t spare, end;
	find_spare(process, &spare, &end);
	for (size_t i = 0; i < process->n_tasks; i++) {
		const struct task *task = process->tasks[i];
		size_t size = home_size(task);
		uint64_t low = spare;
		if (spare + size <= end) {
			spare += size;
		} else {
			low = task->regs.rsp - RED_ZONE - size;
			const image_vma *vma = find_vma(process, low);
			if (!vma || !(vma->prot & PROT_WRITE) || low + size > vma->end)
				return fail(err, FSNAP_E_UNSUPPORTED, 0,
					    "thread %d: no room for a signal frame on its stack", task->tid);
		}
		placed->homes[i].frame = (low + sizeof(uint64_t) + 63) & ~63ull;
	}
	return 0;
}

static int lay_frame(struct placed *placed, size_t number, struct fsnap_error *err)
{
	struct process *process = placed->process;
	struct home *home = &placed->homes[number];
	size_t size = sizeof(uint64_t) + frame_size(process->tasks[number]);
	off_t at = (off_t)(home->frame - sizeof(uint64_t));
	cleanup_free char *buf = malloc(size);
	char *was = malloc(size);
	if (!buf || !was || pread(process->mem, was, size, at) != (ssize_t)size) {
		free(was);
		return fail(err, FSNAP_E_SYSTEM, errno, "thread %d: cannot read its stack",
			    process->tasks[number]->tid);
	}
	home->was = was;
	memcpy(buf, &process->text.sigreturn, sizeof(uint64_t));
	frame_build(process->tasks[number], home->frame, buf + sizeof(uint64_t));
	if (pwrite(process->mem, buf, size, at) != (ssize_t)size)
		return fail(err, FSNAP_E_SYSTEM, errno, "thread %d: cannot write below its stack pointer",
			    process->tasks[number]->tid);
	return 0;
}

static int lay_frames(struct placed *placed, struct fsnap_error *err)
{
	if (place_frames(placed, err) < 0)
		return -1;
	for (size_t i = 0; i < placed->process->n_tasks; i++)
		if (lay_frame(placed, i, err) < 0)
			return -1;
	if (placed->process->text.syscall_ret && placed->process->text.sigreturn)
		placed->chain = placed->homes[0].frame - sizeof(uint64_t);
	return 0;
}

static void take_frames(struct placed *placed)
{
	for (size_t i = 0; i < placed->process->n_tasks; i++) {
		const struct home *home = &placed->homes[i];
		size_t size = sizeof(uint64_t) + frame_size(placed->process->tasks[i]);
		/* A process that died meanwhile has no stack to mend. */
		if (home->was && pwrite(placed->process->mem, home->was, size,
					(off_t)(home->frame - sizeof(uint64_t))) < 0)
			return;
	}
}

/* Any NUL byte serves as a name; the vDSO's ELF header has some that every process shares. */
static uint64_t empty_string(const struct process *process)
{
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++)
		if (strcmp(process->mm.vmas.vmas_val[i].name, "[vdso]") == 0)
			return process->mm.vmas.vmas_val[i].start + 8;
	return 0;
}

/* --- in ---------------------------------------------------------------------- */

static int call(struct placed *placed, int64_t *result, struct fsnap_error *err, const char *what,
		long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	const struct text_gadgets *text = &placed->process->text;
	uint64_t at = text->syscall_ret ? text->syscall_ret : text->syscall_any;
	const uint64_t args[6] = { a, b, c, d, e, f };
	if (trace_check(trace_call(leader(placed), at, placed->chain, nr, args, result, err),
			leader(placed), err) < 0)
		return -1;
	if (*result < 0 && *result >= -4095)
		return fail(err, FSNAP_E_SYSTEM, (int)-*result, "%s inside the process", what);
	return 0;
}

/* Signals must not interfere with the threads the agent borrows; the frame gives the mask back. */
static int mask_threads(struct process *process, struct fsnap_error *err)
{
	for (size_t i = 0; i < process->n_tasks; i++) {
		struct task *task = process->tasks[i];
		if (trace_check(trace_set_mask(task, ALL_SIGNALS, err), task, err) < 0)
			return -1;
		task->masked = true;
	}
	return 0;
}

static int make_memory(struct placed *placed, struct fsnap_error *err)
{
	int64_t fd = -1;
	uint64_t name = empty_string(placed->process);
	/* MFD_EXEC is refused before Linux 6.3 and wanted after it. */
	if (call(placed, &fd, NULL, "memfd_create", SYS_memfd_create, name, MFD_CLOEXEC | MFD_EXEC, 0, 0, 0,
		 0) < 0 &&
	    call(placed, &fd, err, "memfd_create", SYS_memfd_create, name, MFD_CLOEXEC, 0, 0, 0, 0) < 0)
		return -1;
	placed->remote_memfd = (int)fd;
	placed->memfd = (int)syscall(SYS_pidfd_getfd, placed->process->pidfd, fd, 0);
	if (placed->memfd < 0 || ftruncate(placed->memfd, (off_t)placed->size) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "control memory");
	placed->map = mmap(NULL, placed->size, PROT_READ | PROT_WRITE, MAP_SHARED, placed->memfd, 0);
	if (placed->map == MAP_FAILED) {
		placed->map = NULL;
		return fail(err, FSNAP_E_SYSTEM, errno, "control memory");
	}
	int64_t base;
	if (call(placed, &base, err, "mmap", SYS_mmap, 0, placed->size, PROT_READ | PROT_WRITE, MAP_SHARED,
		 (uint64_t)fd, 0) < 0)
		return -1;
	placed->base = (uint64_t)base;
	memcpy(placed->map, agent_blob, agent_blob_size);
	return 0;
}

static int fill_memory(struct placed *placed, struct fsnap_error *err)
{
	struct ctl *ctl = placed_ctl(placed);
	struct process *process = placed->process;
	if (plans_write(placed->plans, ctl, placed->base, err) < 0)
		return -1;
	ctl->size = placed->size;
	ctl->socket = ctl->peer = -1;
	ctl->chain = placed->chain;
	ctl->gadget = process->text.syscall_ret;
	for (uint32_t i = 0; i < process->n_tasks; i++)
		ctl_task(ctl, i)->home_frame = placed->homes[i].frame;
	return 0;
}

/* Sets a thread off into the agent; it leaves its registers behind. */
static int send_in(struct placed *placed, uint32_t number, uint32_t entry, struct fsnap_error *err)
{
	struct task *task = placed->process->tasks[number];
	uint64_t ctl = placed->base + AGENT_TEXT;
	struct user_regs_struct regs = task->regs;
	regs.rip = placed->base + entry;
	regs.rdi = ctl;
	regs.rsi = number;
	/* As behind a call instruction: the stack pointer is 8 off a multiple of 16. */
	regs.rsp = ctl + ctl_task(placed_ctl(placed), number)->stack - 8;
	regs.orig_rax = (uint64_t)-1;
	regs.eflags &= ~0x500ull; /* direction and trap flags: a compiler expects them clear */
	task->away = true;
	if (trace_check(trace_set_regs(task, &regs, err), task, err) < 0)
		return -1;
	return trace_check(trace_continue(task, err), task, err);
}

/* --- running ------------------------------------------------------------------- */

/* Between two looks at a word or socket: has the thread ended, or stopped where it should not? */
static int still_runs(struct task *task, struct fsnap_error *err)
{
	int status;
	pid_t got = waitpid(task->tid, &status, __WALL | WNOHANG);
	if (got == 0)
		return 0;
	if (got > 0 && WIFSTOPPED(status)) {
		task->stopped = true;
		return fail(err, FSNAP_E_SYSTEM, 0, "thread %d stopped inside the agent (signal %d)",
			    task->tid, WSTOPSIG(status));
	}
	task->seized = false;
	return trace_check(TRACE_DIED, task, err);
}

static int await_word(uint32_t *word, uint32_t unlike, struct task *task, struct fsnap_error *err)
{
	const struct timespec patience = { .tv_nsec = LOOK_AROUND_MS * 1000000 };
	for (uint32_t seen; (seen = __atomic_load_n(word, __ATOMIC_ACQUIRE)) == unlike;)
		if (syscall(SYS_futex, word, FUTEX_WAIT, seen, &patience, NULL, 0) < 0 &&
		    errno == ETIMEDOUT && still_runs(task, err) < 0)
			return -1;
	return 0;
}

static int connect_agent(struct placed *placed, struct fsnap_error *err)
{
	struct ctl *ctl = placed_ctl(placed);
	if (await_word((uint32_t *)&ctl->peer, (uint32_t)-1, leader(placed), err) < 0)
		return -1;
	placed->socket = (int)syscall(SYS_pidfd_getfd, placed->process->pidfd, ctl->peer, 0);
	if (placed->socket < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "the agent's socket");
	return 0;
}

static int order_leader(struct placed *placed, struct fsnap_error *err)
{
	struct agent_order order = { AGENT_RUN, 0 };
	if (send(placed->socket, &order, sizeof(order), MSG_NOSIGNAL) != sizeof(order))
		return fail(err, FSNAP_E_SYSTEM, errno, "the agent's socket");
	for (;;) {
		struct pollfd poller = { .fd = placed->socket, .events = POLLIN };
		int ready = poll(&poller, 1, LOOK_AROUND_MS);
		if (ready == 0 && still_runs(leader(placed), err) < 0)
			return -1;
		if (ready > 0)
			break;
	}
	struct agent_answer answer;
	if (recv(placed->socket, &answer, sizeof(answer), 0) != sizeof(answer))
		return fail(err, FSNAP_E_SYSTEM, 0, "the agent went home early");
	if (answer.state != TASK_PARKED)
		return plans_failure(placed->plans, placed_ctl(placed), FSNAP_E_SYSTEM, err);
	return 0;
}

static int await_thread(struct placed *placed, uint32_t number, struct fsnap_error *err)
{
	struct ctl *ctl = placed_ctl(placed);
	uint32_t *state = &ctl_task(ctl, number)->state;
	for (uint32_t seen; (seen = __atomic_load_n(state, __ATOMIC_ACQUIRE)) != TASK_PARKED;) {
		if (seen == TASK_FAILED)
			return plans_failure(placed->plans, ctl, FSNAP_E_SYSTEM, err);
		if (await_word(state, seen, placed->process->tasks[number], err) < 0)
			return -1;
	}
	return 0;
}

static int run(struct placed *placed, struct fsnap_error *err)
{
	const struct agent_entries *entries = placed->map;
	uint32_t threads = (uint32_t)placed->process->n_tasks;
	placed_ctl(placed)->inside = threads - 1;
	if (send_in(placed, 0, entries->serve, err) < 0)
		return -1;
	for (uint32_t i = 1; i < threads; i++)
		if (send_in(placed, i, entries->start, err) < 0)
			return -1;
	if (connect_agent(placed, err) < 0 || order_leader(placed, err) < 0)
		return -1;
	for (uint32_t i = 1; i < threads; i++)
		if (await_thread(placed, i, err) < 0)
			return -1;
	return 0;
}

static int enter(struct placed *placed, struct fsnap_error *err)
{
	int64_t ignored;
	if (mask_threads(placed->process, err) < 0 || lay_frames(placed, err) < 0 ||
	    make_memory(placed, err) < 0 || fill_memory(placed, err) < 0 ||
	    call(placed, &ignored, err, "mprotect", SYS_mprotect, placed->base, AGENT_TEXT,
		 PROT_READ | PROT_EXEC, 0, 0, 0) < 0 ||
	    call(placed, &ignored, err, "close", SYS_close, (uint64_t)placed->remote_memfd, 0, 0, 0, 0, 0) < 0)
		return -1;
	placed->remote_memfd = -1;
	return run(placed, err);
}

/* --- out ------------------------------------------------------------------------- */

static int stop_threads(struct process *process, struct fsnap_error *err)
{
	for (size_t i = 0; i < process->n_tasks; i++)
		if (!process->tasks[i]->stopped)
			trace_interrupt(process->tasks[i]);
	for (size_t i = 0; i < process->n_tasks; i++)
		if (!process->tasks[i]->stopped && process->tasks[i]->seized &&
		    trace_check(trace_await_stop(process->tasks[i], err), process->tasks[i], err) < 0)
			return -1;
	return 0;
}

static void close_there(struct placed *placed, int fd)
{
	int64_t ignored;
	if (fd >= 0)
		call(placed, &ignored, NULL, "close", SYS_close, (uint64_t)fd, 0, 0, 0, 0, 0);
}

/* Undoes everything enter() did, in whatever state it was left. */
static int leave(struct placed *placed, struct fsnap_error *err)
{
	struct process *process = placed->process;
	if (stop_threads(process, err) < 0)
		return -1;
	int64_t ignored;
	close_there(placed, placed->remote_memfd);
	if (placed->base) {
		close_there(placed, placed_ctl(placed)->socket);
		if (placed->socket < 0) /* the agent closes its copy of our end at the first order */
			close_there(placed, placed_ctl(placed)->peer);
		if (call(placed, &ignored, err, "munmap", SYS_munmap, placed->base, placed->size, 0, 0, 0, 0) < 0)
			return -1;
	}
	for (size_t i = 0; i < process->n_tasks; i++)
		seize_put_back(process->tasks[i]);
	take_frames(placed);
	return 0;
}

struct placed *place_run(struct process *process, struct plans *plans, struct fsnap_error *err)
{
	struct placed *placed = calloc(1, sizeof(*placed));
	struct home *homes = calloc(process->n_tasks, sizeof(*homes));
	if (!placed || !homes) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "placing the agent");
		free(placed);
		free(homes);
		return NULL;
	}
	*placed = (struct placed){ .process = process, .plans = plans, .homes = homes,
				   .n_homes = process->n_tasks, .memfd = -1,
				   .socket = -1, .remote_memfd = -1 };
	placed->size = AGENT_TEXT + plans_size(plans);
	int result = enter(placed, err);
	if (leave(placed, err) < 0)
		result = -1;
	if (result == 0)
		return placed;
	error_context(err, "process %d (%s)", process->pid, process->comm);
	placed_free(placed);
	return NULL;
}

void placed_free(struct placed *placed)
{
	if (!placed)
		return;
	if (placed->map)
		munmap(placed->map, placed->size);
	if (placed->memfd >= 0)
		close(placed->memfd);
	if (placed->socket >= 0)
		close(placed->socket);
	for (size_t i = 0; i < placed->n_homes; i++)
		free(placed->homes[i].was);
	free(placed->homes);
	free(placed);
}
