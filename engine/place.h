/*
 * place.h - the agent inside frozen processes: in, run, out.
 *
 * Placing changes nothing of a target but this: one mapping that comes and goes
 * (and one descriptor, where we may not open that mapping), and dead bytes of its stacks.  No text is written;
 * system calls run on an instruction of its own.
 *
 * From the first changed register on, the leader's stack pointer leads to a
 * return chain on its own stack: `ret` -> the target's own signal-return code ->
 * a signal frame with everything as it was.  Should fsnap die, the kernel lets
 * the tasks run, and each goes home by its frame.  Where this cannot hold:
 *
 *  W1  the target's text has no `syscall; ret` or no signal-return sequence: death during
 *      the bootstrap calls leaves the leader with wrong registers, and all with their signals blocked;
 *  W2  death between the call that maps the agent and its first step, or while threads are being led in, leaves the
 *      mapping behind, unused (and, where there is one, the descriptor until the end of its plan, which closes it whether
 *      or not we live to see it); so does death in the midst of the last call. The next dump takes it out, as it was or
 *      with nothing written to it yet (leftover.c), but for one that lies elsewhere than it was asked for;
 *  W3  a seccomp filter that forbids munmap or futex applies again when fsnap is gone:
 *      the agent's way home is then a filter violation.
 *  W4  a stop ends epoll_wait(2), sigtimedwait(2) and their like with EINTR (signal(7)); some
 *      microseconds pass between the stop of a thread and our having it start the call again.
 *  W5  TCP connections that are kept are in repair mode for some microseconds each (their programs
 *      would get EPERM), and silenced ones between that and the kill. Both steps are done by a process
 *      of their own that outlives us (steadfast.h): only whoever kills that one, too, leaves a trace.
 *  W6  dump --kill takes TCP connections out of the queues of listeners, because nothing reads them there:
 *      from then on our end, or a failure to write the image, costs the other ends of these (and only
 *      these) a reset. The tree itself runs on.
 *  W7  while memory is copied from inside (copy_inside.c) helpers are its children, which share its memory and descriptors.
 *      Their faults are their own. If we die just then, and a thread of the program executes another one before
 *      the serving agent has ended them, they die with that agent, and stay dead children, which no wait but
 *      one with __WCLONE or __WALL sees; and locks of fcntl(2) are not kept across that execve, for another process had
 *      the table of descriptors, too (fs/exec.c, begin_new_exec(): unshare_files()).
 *  W8  a signal that comes for a thread between its being led away and its being in the agent, or its way back, has its
 *      handler run if we die just then, but does not end the call the thread was in: that begins anew. In a tree with
 *      seccomp filters, which might mind the agent's asking, that goes for all the time in which it is inside.
 *  W9  a call that was interrupted before (the kernel goes on with it by restart_syscall(2)) ends with EINTR if we die while its
 *      thread is inside, where the program's code does not say which call it is (frame.h): the C library of musl does not.
 */
#ifndef ENGINE_PLACE_H
#define ENGINE_PLACE_H

#include "engine/tree.h"
#include "restorer/plan.h"

struct placed;

struct placement {
	struct process *process; /* stopped */
	struct plans *plans;	 /* task 0 runs in its leader, task i in process->tasks[i], all at once */
	/* Only the leader enters; further tasks are those that its plan starts. The other threads stay in the calls
	 * they were in, whatever becomes of us. */
	bool alone;
	struct placed *placed;	 /* out: keeps control memory for plans_data_at()/plans_slot() */
	/* May be NULL. Called in the midst of the leader's plan: when it has posted barrier
	 * PLACE_READY; then it goes on behind its wait for PLACE_DONE. */
	int (*meanwhile)(struct placement *placement, struct fsnap_error *err);
	/* May be NULL: what is to be done while the agent runs, or while it is on its way out, when all is well. There
	 * the leader cannot be asked by ptrace, and in its address space is what a scan of pages takes for a file's. */
	int (*running)(struct placement *placement, struct fsnap_error *err);
	int (*leaving)(struct placement *placement, struct fsnap_error *err);
	void *arg; /* the caller's */
};

enum { PLACE_READY, PLACE_DONE, PLACE_LENT, PLACE_STARTED }; /* barriers of the plan */

/*
 * What goes on meanwhile() where the leader's plan borrows a descriptor between PLACE_READY and PLACE_LENT, starts
 * helpers that copy (PLAN_BULK) and then posts PLACE_STARTED. Returns when they are gone. Chunks that nobody has copied by then are not marked so.
 */
struct place_bulk {
	int fd;			/* what is lent */
	struct plan_bulk *bulk; /* as it lies in control memory, here */
	uint32_t first, n;	/* tasks of the plans: the helpers */
	/* Copies a chunk from outside, where they come to a halt: whoever the target's processor time is
	 * limited for has them stand still. */
	int (*help)(void *arg, uint32_t chunk, struct fsnap_error *err);
	void *arg;
};
int place_bulk(struct placement *placement, const struct place_bulk *bulk, struct fsnap_error *err);

/* So many processes at once: each takes two descriptors of ours meanwhile, and a robust mutex that we hold. */
#define PLACE_BATCH 64

/* Runs the plans of n processes, PLACE_BATCH at most. Stage by stage, each for all of them: while one process makes a
 * system call for us, the next is being told to; waiting for each would cost a round trip of the
 * scheduler per call (measured: 25-30 us here, against 8). Whatever happens, the agents are gone
 * again and every thread is as it was when this returns. */
int place_run(struct placement *placements, size_t n, struct fsnap_error *err);

/* So that nobody waits for the first call of the way in: it may be begun when all has been asked about the process that
 * ptrace and /proc can tell, while the plans are made. Not earlier: up to there the leader stands in the call it was in
 * (W8). Where it cannot be begun, place_run() begins. */
int place_begin(struct placement *placement, struct fsnap_error *err);
int place_enter(struct placement *placement, struct fsnap_error *err); /* it is made, if it was begun */
/* The plans are there: where the call has been made the leader goes into the agent, and runs its plan while others are
 * still being asked about. */
int place_send(struct placement *placement, struct fsnap_error *err);
void place_give_up(struct placement *all, size_t n); /* instead of place_run(); the first of them were begun */

struct ctl *placed_ctl(struct placed *placed); /* NULL: it did not come to that */
void placed_free(struct placed *placed);
/* Instead: what it takes to free its memory can wait. */
void placed_retire(struct placed *placed, struct placed **list);
void placed_free_retired(struct placed **list);

#endif
