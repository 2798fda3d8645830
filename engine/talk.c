/*
 * talk.c - setting agents off, their orders and their answers.
 */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/placed.h"
#include "engine/trace.h"

#define ALL_SIGNALS (~0ull)
#define SPINS 4000
#define SPINS_UNTIL_YIELD 400
#define LOOK_AROUND_MS 50 /* how often a wait checks that the target still lives */

/* Turns a thread to its way home: should we die from here on, it comes back by its frame, which also
 * gives the mask back. Only then the mask: signals must not interfere with what we borrow. */
int talk_turn_home(struct placed *placed, size_t number, struct fsnap_error *err)
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
		if (trace_is_harmless(task, status))
			return trace_check(trace_continue(task, err), task, err);
		return fail(err, FSNAP_E_SYSTEM, 0, "thread %d stopped inside the agent (signal %d)",
			    task->tid, WSTOPSIG(status));
	}
	task->seized = false;
	return trace_check(TRACE_DIED, task, err);
}

/* Agents answer within microseconds: being woken costs more (trace.c says the same of stops). */
static bool changes_soon(const uint32_t *word, uint32_t unlike)
{
	for (int rounds = 1; rounds <= SPINS; rounds++) {
		if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != unlike)
			return true;
		__builtin_ia32_pause();
		if (rounds % SPINS_UNTIL_YIELD == 0)
			sched_yield();
	}
	return false;
}

static int await_word(uint32_t *word, uint32_t unlike, struct task *task, struct fsnap_error *err)
{
	const struct timespec patience = { .tv_nsec = LOOK_AROUND_MS * 1000000 };
	if (changes_soon(word, unlike))
		return 0;
	for (uint32_t seen; (seen = __atomic_load_n(word, __ATOMIC_ACQUIRE)) == unlike;)
		if (syscall(SYS_futex, word, FUTEX_WAIT, seen, &patience, NULL, 0) < 0 &&
		    errno == ETIMEDOUT && still_runs(task, err) < 0)
			return -1;
	return 0;
}

int talk_connect(struct placed *placed, struct fsnap_error *err)
{
	struct ctl *ctl = placed_ctl(placed);
	if (await_word((uint32_t *)&ctl->peer, (uint32_t)-1, leader(placed), err) < 0)
		return -1;
	if (ctl->peer < 0)
		return placed_no_room(placed, EMFILE, err);
	placed->socket = (int)syscall(SYS_pidfd_getfd, placed->process->pidfd, ctl->peer, 0);
	if (placed->socket < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "the agent's socket");
	return 0;
}

static int give_order(struct placed *placed, enum agent_verb verb, struct fsnap_error *err)
{
	struct agent_order order = { verb, 0 };
	if (send(placed->socket, &order, sizeof(order), MSG_NOSIGNAL) != sizeof(order))
		return fail(err, FSNAP_E_SYSTEM, errno, "the agent's socket");
	return 0;
}

int talk_order(struct placed *placed, struct fsnap_error *err)
{
	return give_order(placed, AGENT_RUN, err);
}

/* The agent wakes who sleeps on a barrier, as futex(2) does it. */
int talk_await_ready(struct placed *placed, struct fsnap_error *err)
{
	return await_word(&placed_ctl(placed)->barrier[PLACE_READY], 0, leader(placed), err);
}

int talk_go_on(struct placed *placed, struct fsnap_error *err)
{
	__atomic_store_n(&placed_ctl(placed)->barrier[PLACE_DONE], 1, __ATOMIC_RELEASE);
	return give_order(placed, AGENT_NUDGE, err);
}

static int await_leader(struct placed *placed, struct fsnap_error *err)
{
	const uint32_t *state = &ctl_task(placed_ctl(placed), 0)->state;
	if (changes_soon(state, TASK_NEW))
		changes_soon(state, TASK_RUNNING);
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
	if (answer.state != TASK_PARKED) /* before its end: it has not closed the memfd */
		return plans_failure(placed->plans, placed_ctl(placed), FSNAP_E_SYSTEM, err);
	placed->remote_memfd = -1;
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

int talk_send_leader(struct placed *placed, struct fsnap_error *err)
{
	const struct agent_entries *entries = placed->map;
	return send_in(placed, 0, entries->serve, err);
}

int talk_send_threads(struct placed *placed, struct fsnap_error *err)
{
	const struct agent_entries *entries = placed->map;
	for (uint32_t i = 1; i < placed->process->n_tasks; i++)
		if (send_in(placed, i, entries->start, err) < 0)
			return -1;
	return 0;
}

int talk_await_answers(struct placed *placed, struct fsnap_error *err)
{
	if (await_leader(placed, err) < 0)
		return -1;
	for (uint32_t i = 1; i < placed->process->n_tasks; i++)
		if (await_thread(placed, i, err) < 0)
			return -1;
	return 0;
}

void talk_await_sockets(struct placed *placed)
{
	if (placed->base && placed->socket < 0 && leader(placed)->seized && !leader(placed)->stopped)
		await_word((uint32_t *)&placed_ctl(placed)->peer, (uint32_t)-1, leader(placed), NULL);
}
