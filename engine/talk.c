/*
 * talk.c - setting agents off, and what they have to say: all in control memory, which both sides sleep on.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/placed.h"
#include "engine/trace.h"
#include "store/scope.h"

#define ALL_SIGNALS (~0ull)
#define SPINS 4000
#define SPINS_UNTIL_YIELD 400
#define LOOK_AROUND_MS 50 /* how often a wait checks that the target still lives */
#define START_ROUNDS 60	  /* of looking around: what an agent may take to its first step (AGENT_PATIENCE_S is more) */

int talk_lead_home(struct placed *placed, size_t number, struct fsnap_error *err)
{
	struct task *task = placed->process->tasks[number];
	struct user_regs_struct regs = task->regs;
	regs.rip = placed->process->text.syscall_ret + 2; /* the `ret` */
	regs.rsp = placed->homes[number].frame - sizeof(uint64_t);
	regs.orig_rax = (uint64_t)-1;
	task->away = placed->chain != 0;
	return task->away ? trace_check(trace_set_regs(task, &regs, err), task, err) : 0;
}

/* Turns a thread to its way home: should we die from here on, it comes back by its frame, which also
 * gives the mask back. Only then the mask: signals must not interfere with what we borrow. */
int talk_turn_home(struct placed *placed, size_t number, struct fsnap_error *err)
{
	struct task *task = placed->process->tasks[number];
	if (talk_lead_home(placed, number, err) < 0)
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
	if (number == 0) { /* parasite/plan.h: serve */
		regs.rdx = placed->size - AGENT_TEXT;
		regs.r10 = plans_size(placed->plans);
		regs.r12 = placed->base;
		regs.rbx = placed->size;
		regs.r14 = placed->chain;
		regs.r15 = placed->process->text.syscall_ret;
	}
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

/* The agent wakes who sleeps on a barrier, as futex(2) does it. */
int talk_await_posted(struct placed *placed, uint32_t barrier, struct fsnap_error *err)
{
	return await_word(&placed_ctl(placed)->barrier[barrier], 0, leader(placed), err);
}

int talk_await_ready(struct placed *placed, struct fsnap_error *err)
{
	return talk_await_posted(placed, PLACE_READY, err);
}

void talk_post(struct placed *placed, uint32_t barrier)
{
	uint32_t *word = &placed_ctl(placed)->barrier[barrier];
	__atomic_store_n(word, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void talk_go_on(struct placed *placed)
{
	talk_post(placed, PLACE_DONE);
}

int talk_look_after(struct placed *placed, struct fsnap_error *err)
{
	return still_runs(leader(placed), err);
}

int talk_lend(struct placed *placed, int fd, struct fsnap_error *err)
{
	cleanup_fd int end = (int)syscall(SYS_pidfd_getfd, placed->process->pidfd, placed_ctl(placed)->lent[1], 0);
	char byte = 0, control[CMSG_SPACE(sizeof(fd))] = { 0 };
	struct iovec vector = { &byte, 1 };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	*header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(fd)) };
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	if (end < 0 || sendmsg(end, &message, MSG_NOSIGNAL | MSG_DONTWAIT) != 1)
		return fail(err, FSNAP_E_SYSTEM, errno, "the agent's socket");
	return 0;
}

/* Its first step is to make control memory writable, without which it cannot even say that it failed. */
static int await_start(struct placed *placed, struct fsnap_error *err)
{
	const uint32_t *state = &ctl_task(placed_ctl(placed), 0)->state;
	const struct timespec patience = { .tv_nsec = LOOK_AROUND_MS * 1000000 };
	if (changes_soon(state, TASK_NEW))
		return 0;
	for (int rounds = 0; __atomic_load_n(state, __ATOMIC_ACQUIRE) == TASK_NEW; rounds++) {
		if (rounds == START_ROUNDS)
			return placed_no_room(placed, ENOMEM, err);
		if (syscall(SYS_futex, state, FUTEX_WAIT, TASK_NEW, &patience, NULL, 0) < 0 && errno == ETIMEDOUT &&
		    still_runs(leader(placed), err) < 0)
			return -1;
	}
	return 0;
}

static int await_answer(struct placed *placed, uint32_t number, struct fsnap_error *err)
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
	const struct agent_entries *entries = (const void *)agent_blob; /* as it lies there */
	if (placed->sent)
		return 0;
	placed->sent = true;
	return send_in(placed, 0, entries->serve, err);
}

/* Counted before it is there: should we die between the two, the serving agent waits for it in vain and leaves the
 * mapping; the other way round it would unmap what the thread is going to run. */
static int send_thread(struct placed *placed, uint32_t number, uint32_t entry, struct fsnap_error *err)
{
	__atomic_add_fetch(&placed_ctl(placed)->inside, 1, __ATOMIC_RELEASE);
	return talk_turn_home(placed, number, err) < 0 ? -1 : send_in(placed, number, entry, err);
}

/* They write to control memory from their first step on. */
int talk_send_threads(struct placed *placed, struct fsnap_error *err)
{
	const struct agent_entries *entries = (const void *)agent_blob; /* as it lies there */
	if (placed->n > 1 && await_start(placed, err) < 0)
		return -1;
	for (uint32_t i = (uint32_t)placed->n - 1; i > 0; i--) /* in this order: home.c, choose_places() */
		if (send_thread(placed, i, entries->start, err) < 0)
			return -1;
	return 0;
}

int talk_await_answers(struct placed *placed, struct fsnap_error *err)
{
	if (await_start(placed, err) < 0 || await_answer(placed, 0, err) < 0)
		return -1;
	placed->remote_memfd = -1; /* the end of its plan has closed it */
	for (uint32_t i = 1; i < placed->n; i++)
		if (await_answer(placed, i, err) < 0)
			return -1;
	return 0;
}
