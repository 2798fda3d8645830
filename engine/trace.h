/*
 * trace.h - everything that talks to ptrace(2), and all waiting for tracees.
 *
 * "The tracee died" is an ordinary result of every call here: TRACE_DIED, with
 * the task marked dead.  TRACE_FAILED means that *err tells more.
 */
#ifndef ENGINE_TRACE_H
#define ENGINE_TRACE_H

#include "engine/tree.h"

enum trace_result { TRACE_OK = 0, TRACE_FAILED = -1, TRACE_DIED = -2 };

/* Seizes without stopping. kill_with_us: the task dies when this process does (restore only). */
enum trace_result trace_seize(struct task *task, bool kill_with_us, struct fsnap_error *err);

/* Always -1: says who traces a process, and what to do about it. */
int trace_refuse_traced(pid_t pid, long tracer, struct fsnap_error *err);

/* Asks the task to stop; trace_await_stop() waits for it. A signal that arrives first is
 * delivered (its frame is built, no instruction of the handler runs). */
enum trace_result trace_interrupt(struct task *task);
enum trace_result trace_await_stop(struct task *task, struct fsnap_error *err);

/* Is it ours, alive and stopped now? */
bool trace_stands_still(const struct task *task);

/* Would waiting for it return at once? */
bool trace_has_news(const struct task *task);

/* Waits for threads that have died, and takes note of them: any? The death of a leader is not told before, and who
 * executes a program waits for that of all others. */
bool trace_bury_threads(struct process *process);
/* The same of one; may be called by another thread than that which traces it. */
bool trace_bury(pid_t tid);

/* Being stopped must not show, even if we die the next moment: a call that the stop has ended
 * is going to start again. */
enum trace_result trace_hide_stop(struct task *task, struct fsnap_error *err);

/* Stops the process of this task the way a signal of job control does, without an instruction of it being run;
 * its other threads have to join in. For tasks whose registers and mask are to be set afterwards. */
enum trace_result trace_stop_job(struct task *task, int signo, struct fsnap_error *err);
enum trace_result trace_join_stop(struct task *task, struct fsnap_error *err);

/* Is this stop none of the agent's doing? A job's, when our request to stop met a thread that stood still
 * already, or SIGSTOP, which cannot be blocked and has to wait. */
bool trace_is_harmless(struct task *task, int status);

/* stride.c: a task that has just stopped inside the vDSO runs on until it stops outside of it; one that cannot be
 * met there is left where it is. */
enum trace_result stride_out(struct task *task, struct fsnap_error *err);

/* Lets a stopped task run on, traced. */
enum trace_result trace_continue(struct task *task, struct fsnap_error *err);

/* Waits until a task that was killed is gone. */
void trace_await_end(struct task *task);

/* Takes kill_with_us back from a stopped task. */
void trace_let_live(struct task *task);

/* Lets it go for good. One that is dying cannot be let go: it stays seized, and in the kernel's tables, until
 * trace_await_end(). */
void trace_detach(struct task *task);

/* For a task that trace_detach() met neither stopped nor buried: tries again. True: we have nothing to do with it any
 * more. A dead thread that its tracer does not bury keeps exec(2) of another from getting on. */
bool trace_part(struct task *task);

/* Registers and vector state into task->regs, task->image.xstate. */
enum trace_result trace_get_state(struct task *task, struct fsnap_error *err);
enum trace_result trace_set_regs(struct task *task, const struct user_regs_struct *regs,
				 struct fsnap_error *err);
enum trace_result trace_set_xstate(struct task *task, const void *xstate, size_t size,
				   struct fsnap_error *err);
enum trace_result trace_get_mask(struct task *task, uint64_t *mask, struct fsnap_error *err);
enum trace_result trace_set_mask(struct task *task, uint64_t mask, struct fsnap_error *err);

/* Gives a stopped task that was sent away (tree.h: away, masked) its own mask and registers again. Should this
 * process die between the two, the task still runs with registers that lead home (engine/home.h), and its
 * frame has the mask too: so on the way out registers go first, and on the way back they come last. */
void trace_bring_back(struct task *task);

/* One system call in a stopped task, on the `syscall` instruction at `at`, with `stack` as stack
 * pointer (0: its own). The registers are left changed: see away in tree.h. *result gets what the
 * call returned. */
enum trace_result trace_call(struct task *task, uint64_t at, uint64_t stack, long nr,
			     const uint64_t args[6], int64_t *result, struct fsnap_error *err);

/* A system call that finds itself interrupted as soon as it would sleep. */
enum trace_result trace_call_interrupted(struct task *task, uint64_t at, long nr, const uint64_t args[6],
					 int64_t *result, struct fsnap_error *err);

/* The same in parts, so that several tasks can be at it: every call begun has to be ended; between, it may be
 * awaited where it stands still before the call, and be sent on into it, which else the end does. */
enum trace_result trace_call_begin(struct task *task, uint64_t at, uint64_t stack, long nr,
				   const uint64_t args[6], struct fsnap_error *err);
enum trace_result trace_call_enter(struct task *task, struct fsnap_error *err);
bool trace_call_pending(const struct task *task);
enum trace_result trace_call_end(struct task *task, int64_t *result, struct fsnap_error *err);

/* Turns a result into -1 with an error that says the task ended. */
int trace_check(enum trace_result result, const struct task *task, struct fsnap_error *err);

#endif
