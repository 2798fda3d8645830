#include "engine/place.h"

#include <linux/futex.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/home.h"
#include "engine/seize.h"
#include "engine/trace.h"

#define ALL_SIGNALS (~0ull)
#define LOOK_AROUND_MS 50 /* how often a wait checks that the target still lives */
#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

struct placed {
	struct process *process;
	struct plans *plans;
	void *map;	  /* the agent's memory, here */
	size_t size;	  /* bytes of it, text included */
	uint64_t base;	  /* there; 0: not mapped */
	uint64_t chain;	  /* there; 0: none */
	int remote_memfd; /* its number there; -1: closed */
	uint32_t memfd_slot; /* tells the plan that number */
	int memfd;	  /* a duplicate of it, here */
	int socket;
	struct home *homes;
	uint64_t args[6]; /* of the call being made there */
};

struct ctl *placed_ctl(struct placed *placed)
{
	return (struct ctl *)((char *)placed->map + AGENT_TEXT);
}

static struct task *leader(const struct placed *placed)
{
	return placed->process->tasks[0];
}

/* --- system calls there, for all at once ------------------------------------------- */

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

/* The agent needs three descriptors and some pages within the target's own limits. */
static int no_room(const struct placed *placed, int sys, struct fsnap_error *err)
{
	bool files = sys == EMFILE;
	fail(err, FSNAP_E_UNSUPPORTED, sys, "it has no %s left, and needs some while it is being saved",
	     files ? "descriptors" : "memory");
	return error_hint(err, "raise its limit: prlimit --pid %d --%s=...", placed->process->pid,
			  files ? "nofile" : "as");
}

static int end_call(struct placed *placed, const struct stage *stage, struct fsnap_error *err)
{
	int64_t result;
	if (trace_check(trace_call_end(leader(placed), &result, err), leader(placed), err) < 0)
		return -1;
	if (result == -EMFILE || result == -ENOMEM) {
		no_room(placed, (int)-result, err);
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
		if (trace_call_enter(leader(all[i].placed), err) != TRACE_OK)
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
static unsigned memfd_flags(void)
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

static bool mmap_arguments(struct placed *placed)
{
	return set_args(placed, 0, placed->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			(uint64_t)placed->remote_memfd);
}

/* The agent's text and what it will read; then the text may become executable. */
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

static bool text_arguments(struct placed *placed)
{
	return set_args(placed, placed->base, AGENT_TEXT, PROT_READ | PROT_EXEC, 0, 0);
}

static const struct stage way_in[] = {
	{ "memfd_create", SYS_memfd_create, memfd_arguments, got_memfd },
	{ "mmap", SYS_mmap, mmap_arguments, got_mapping },
	{ "mprotect", SYS_mprotect, text_arguments, NULL },
};

/* Turns a thread to its way home: should we die from here on, it comes back by its frame, which also
 * gives the mask back. Only then the mask: signals must not interfere with what we borrow. */
static int turn_home(struct placed *placed, size_t number, struct fsnap_error *err)
{
	struct task *task = placed->process->tasks[number];
	struct user_regs_struct regs = task->regs;
	regs.rip = placed->process->text.syscall_ret + 2; /* the `ret` */
	regs.rsp = placed->homes[number].frame - sizeof(uint64_t);
	regs.orig_rax = (uint64_t)-1;
	task->away = placed->chain != 0;
	if (task->away && trace_check(trace_set_regs(task, &regs, err), task, err) < 0)
		return -1;
	task->masked = true;
	return trace_check(trace_set_mask(task, ALL_SIGNALS, err), task, err);
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
	if (number > 0) /* counted from when it is there: the serving agent waits for nobody else */
		__atomic_add_fetch(&placed_ctl(placed)->inside, 1, __ATOMIC_RELEASE);
	return trace_check(trace_continue(task, err), task, err);
}

/* --- running ------------------------------------------------------------------- */

/* Between two looks at a word or socket: has the thread ended, or stopped where it should not? */
static int still_runs(struct task *task, struct fsnap_error *err)
{
	int status;
	trace_bury_threads(task->process);
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
	if (ctl->peer < 0)
		return no_room(placed, EMFILE, err);
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
	return 0;
}

static int await_leader(struct placed *placed, struct fsnap_error *err)
{
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
	placed->remote_memfd = -1; /* the plan has closed it */
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

static int send_leader_in(struct placed *placed, struct fsnap_error *err)
{
	const struct agent_entries *entries = placed->map;
	return send_in(placed, 0, entries->serve, err);
}

static int send_threads_in(struct placed *placed, struct fsnap_error *err)
{
	const struct agent_entries *entries = placed->map;
	for (uint32_t i = 1; i < placed->process->n_tasks; i++)
		if (send_in(placed, i, entries->start, err) < 0)
			return -1;
	return 0;
}

static int await_answers(struct placed *placed, struct fsnap_error *err)
{
	if (await_leader(placed, err) < 0)
		return -1;
	for (uint32_t i = 1; i < placed->process->n_tasks; i++)
		if (await_thread(placed, i, err) < 0)
			return -1;
	return 0;
}

static int for_all(struct placement *all, size_t n, int (*step)(struct placed *, struct fsnap_error *),
		   struct fsnap_error *err)
{
	for (size_t i = 0; i < n; i++)
		if (step(all[i].placed, err) < 0)
			return error_context(err, "process %d (%s)", all[i].process->pid, all[i].process->comm);
	return 0;
}

static int get_ready(struct placed *placed, struct fsnap_error *err)
{
	struct process *process = placed->process;
	if (home_lay(process, placed->homes, err) < 0)
		return -1;
	if (process->text.syscall_ret && process->text.sigreturn)
		placed->chain = placed->homes[0].frame - sizeof(uint64_t);
	/* without a chain: window W1 */
	for (size_t i = 0; i < process->n_tasks; i++)
		if (turn_home(placed, i, err) < 0)
			return -1;
	return 0;
}

static int enter(struct placement *all, size_t n, struct fsnap_error *err)
{
	if (for_all(all, n, get_ready, err) < 0)
		return -1;
	for (size_t i = 0; i < sizeof(way_in) / sizeof(way_in[0]); i++)
		if (run_stage(all, n, &way_in[i], err) < 0)
			return -1;
	/* Until its first order an agent whose engine dies waits for AGENT_PATIENCE_MS. */
	return for_all(all, n, send_leader_in, err) < 0 || for_all(all, n, connect_agent, err) < 0 ||
			       for_all(all, n, order_leader, err) < 0 ||
			       for_all(all, n, send_threads_in, err) < 0 ||
			       for_all(all, n, await_answers, err) < 0 ?
		       -1 : 0;
}

/* --- out ------------------------------------------------------------------------- */

static int interrupt(struct placed *placed, struct fsnap_error *err)
{
	(void)err;
	/* Sockets whose numbers the agent has not written down yet nobody could close. */
	if (placed->base && placed->socket < 0 && leader(placed)->seized && !leader(placed)->stopped)
		await_word((uint32_t *)&placed_ctl(placed)->peer, (uint32_t)-1, leader(placed), NULL);
	for (size_t i = 0; i < placed->process->n_tasks; i++)
		if (!placed->process->tasks[i]->stopped)
			trace_interrupt(placed->process->tasks[i]);
	return 0;
}

static int await_stops(struct placed *placed, struct fsnap_error *err)
{
	for (size_t i = 0; i < placed->process->n_tasks; i++) {
		struct task *task = placed->process->tasks[i];
		if (!task->stopped && task->seized && trace_check(trace_await_stop(task, err), task, err) < 0)
			return -1;
	}
	return 0;
}

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

/* While the agent's text is still there: one that died behind munmap() would take the target along. */
static int put_threads_back(struct placed *placed, struct fsnap_error *err)
{
	(void)err;
	for (size_t i = 1; i < placed->process->n_tasks; i++) {
		struct task *task = placed->process->tasks[i];
		seize_put_back(task);
		if (placed->base && !task->away && placed_ctl(placed)->inside > 0)
			placed_ctl(placed)->inside--;
	}
	return 0;
}

static int put_back(struct placed *placed, struct fsnap_error *err)
{
	(void)err;
	for (size_t i = 0; i < placed->process->n_tasks; i++)
		seize_put_back(placed->process->tasks[i]);
	home_take(placed->process, placed->homes);
	return 0;
}

/* If we stood still for longer than an agent's patience (a suspended machine, SIGSTOP), it took us for dead
 * and went home: what we know of its threads is stale, and nothing of ours is left to take out. */
static int went_home(struct placed *placed, struct fsnap_error *err)
{
	if (!placed->base || !__atomic_load_n(&placed_ctl(placed)->home, __ATOMIC_ACQUIRE))
		return 0;
	for (size_t i = 0; i < placed->process->n_tasks; i++)
		placed->process->tasks[i]->away = placed->process->tasks[i]->masked = false;
	placed->base = 0;
	placed->remote_memfd = -1;
	home_forget(placed->process, placed->homes);
	fail(err, FSNAP_E_TARGET_BUSY, 0, "process %d (%s): fsnap was stopped in the midst of it",
	     placed->process->pid, placed->process->comm);
	return error_hint(err, "nothing happened to the process: dump again");
}

/* Undoes everything enter() did, in whatever state it was left. */
static int leave(struct placement *all, size_t n, struct fsnap_error *err)
{
	int result = 0;
	for_all(all, n, interrupt, err);
	for (size_t i = 0; i < n; i++)
		if (await_stops(all[i].placed, err) < 0)
			result = -1;
	for (size_t i = 0; i < n; i++)
		if (went_home(all[i].placed, err) < 0)
			result = -1;
	for_all(all, n, put_threads_back, err);
	for (size_t i = 0; i < sizeof(way_out) / sizeof(way_out[0]); i++)
		if (run_stage(all, n, &way_out[i], err) < 0)
			result = -1;
	for_all(all, n, put_back, err);
	return result;
}

/* --- the whole --------------------------------------------------------------------- */

static struct placed *placed_new(struct placement *placement, unsigned flags, struct fsnap_error *err)
{
	struct placed *placed = calloc(1, sizeof(*placed));
	struct home *homes = calloc(placement->process->n_tasks, sizeof(*homes));
	if (!placed || !homes) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "placing the agent");
		free(placed);
		free(homes);
		return NULL;
	}
	*placed = (struct placed){ .process = placement->process, .plans = placement->plans, .homes = homes,
				   .memfd = -1, .socket = -1, .remote_memfd = -1, .args = { 0, flags } };
	plan_note(placed->plans, "close the descriptor of control memory");
	placed->memfd_slot = plans_input(placed->plans);
	plan_call(placed->plans, 0, SYS_close, SLOT(placed->memfd_slot));
	placed->size = AGENT_TEXT + plans_size(placed->plans);
	return placed;
}

int place_run(struct placement *all, size_t n, struct fsnap_error *err)
{
	unsigned flags = memfd_flags();
	for (size_t i = 0; i < n; i++)
		if (!(all[i].placed = placed_new(&all[i], flags, err)))
			return -1;
	int result = enter(all, n, err);
	return leave(all, n, err) < 0 ? -1 : result;
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
	home_free(placed->process, placed->homes);
	free(placed);
}
