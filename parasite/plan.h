/*
 * plan.h - the contract between the engine and the agent.
 *
 * The agent is an interpreter that knows nothing of processes or images.  It
 * runs a *plan*: an array of operations in *control memory*, one shared mapping
 * (a memfd) that the engine and every task it steers have in common.  At dump
 * control memory lies inside the target for some hundred microseconds; at
 * restore it is the only thing a newborn task holds.
 *
 *	base                    the agent's code, read + execute
 *	base + AGENT_TEXT       struct ctl, then what ctl's offsets name, read + write
 *
 * Every offset below is in bytes from the start of struct ctl.  Each field says
 * who writes it.  This header is included by freestanding code: no libc types
 * beyond <stdint.h>.
 */
#ifndef PARASITE_PLAN_H
#define PARASITE_PLAN_H

#include <stdint.h>

#define AGENT_TEXT 8192u	  /* bytes reserved for the agent's code, whole pages */
#define AGENT_STACK 4096u	  /* bytes of stack each task gets in control memory */
#define CTL_MAGIC 0x6c74636e7366u /* "fsnctl" */

/* --- operations ------------------------------------------------------- */

enum plan_kind {
	PLAN_SYSCALL = 1, /* nr(arg[0..5]) */
	PLAN_COPY,	  /* copy arg[2] bytes from arg[1] to arg[0] */
	PLAN_POST,	  /* add arg[1] to barrier word arg[0], wake its waiters if it is arg[2] now, or more */
	PLAN_WAIT,	  /* until barrier word arg[0] is at least arg[1] */
	PLAN_FORK,	  /* a child process (arg[1] = its exit signal, arg[2] = CLONE_* flags) on task
			     arg[0]'s plan */
	PLAN_THREAD,	  /* a sibling thread on task arg[0]'s plan */
	PLAN_PARK,	  /* report TASK_PARKED; go on when ctl.release >= arg[0] */
	PLAN_DECIMAL,	  /* write arg[1] in decimal, and a NUL, to arg[0] */
	PLAN_HELPER,	  /* as PLAN_THREAD: one that PLAN_JOIN can wait for. arg[1]: it is a process that shares memory and
			     descriptors, so that what kills it kills nobody else; a child, whose end is told to nobody */
	PLAN_JOIN,	  /* until the helper on task arg[0]'s plan is gone, if it ever was; arg[1] as in PLAN_HELPER */
	PLAN_SHARE,	  /* the system calls (and waits) of task arg[0]'s plan, which nobody runs as his own, stretch by stretch:
			     of those in the struct plan_stretches at arg[1] the next that nobody took yet, until
			     there is none. Whoever likes may do so at the same time */
	PLAN_SOCKETS,	  /* ctl.lent[0], [1] = two ends of a socket: the engine takes a copy of the second */
	PLAN_BORROW,	  /* ctl.lent[2] = the descriptor that has come by it; closes both. Nothing has: that is -1 */
	PLAN_GIVE_BACK,	  /* unmap the windows of PLAN_BULK and close ctl.lent; nobody may use them any more */
	PLAN_BULK,	  /* of the chunks in the struct plan_bulk at arg[0] the next that nobody took yet, until
			     there is none. Only in a helper that is a process: vector registers are used, faults end it */
	PLAN_KEEP,	  /* bears others on order, see struct keep at arg[0]; never ends */
};

/* What an argument's 64 bits are. */
enum plan_arg {
	ARG_IMMEDIATE = 0,
	ARG_CTL,	/* an offset in control memory; passed as the address it has in the task */
	ARG_SLOT,	/* the number of a slot; passed is its value, the result of an earlier operation */
};

/* Which results let the plan go on. Others stop the task: TASK_FAILED. */
enum plan_accept {
	ACCEPT_OK = 0,	  /* anything but -4095..-1 */
	ACCEPT_EQUAL,	  /* exactly `expected` */
	ACCEPT_ANY,
	ACCEPT_SLOT,	  /* exactly what slot number `expected` holds */
};

struct plan_op {		/* all written by the engine */
	uint8_t kind;		/* enum plan_kind */
	uint8_t accept;		/* enum plan_accept */
	uint8_t arg_kind[6];	/* enum plan_arg */
	uint32_t nr;		/* PLAN_SYSCALL: the system call */
	uint32_t result;	/* slot + 1 that receives the result; 0: none */
	int64_t expected;
	uint64_t arg[6];
	uint32_t note;		/* offset of a NUL-ended text for people ("open /etc/hosts"); 0: none */
	uint32_t reserved;
};

struct plan_stretches {
	uint32_t next;	  /* agents: the next to be taken */
	uint32_t n;	  /* engine */
	uint32_t first[]; /* engine: operation with which each begins, from 0 in the plan; at last the plan's end */
};

/*
 * Copies from this address space into the file ctl.lent[2], which is mapped for it window by window, and sums of what was
 * copied: of each PLAN_BULK_BLOCK bytes XXH3-64 with its default secret (XXH3 specification, doc/xxhash_spec.md), computed
 * while they are in registers.
 */
#define PLAN_BULK_BLOCK (1u << 20)
#define PLAN_BULK_SECRET 192

enum plan_vectors { VECTORS_AVX2 = 1, VECTORS_AVX512 };

struct plan_bulk {
	uint32_t next;	   /* whoever takes one: the next chunk to be taken */
	uint32_t n;	   /* engine: chunks */
	uint32_t done;	   /* agents: chunks that were taken and are over with, well or not; futex word */
	uint32_t vectors;  /* engine: enum plan_vectors */
	uint64_t window;   /* engine: bytes of each chunk, whole huge pages */
	uint64_t chunks;   /* engine: address of struct plan_chunk[n] */
	uint64_t pieces;   /* engine: address of struct plan_piece[] */
	uint64_t sums;	   /* engine: address of uint64_t[n * window / PLAN_BULK_BLOCK]; agents fill it */
	uint8_t secret[PLAN_BULK_SECRET]; /* engine */
};

struct plan_chunk {
	uint64_t offset;  /* engine: in the file */
	uint32_t first;	  /* engine: of its pieces, which are as long as the window together */
	uint32_t copied;  /* whoever copied it: not 0, when its bytes and sums are there */
};

struct plan_piece {
	uint64_t from, bytes; /* engine: whole pages */
};

/* --- tasks ------------------------------------------------------------ */

enum task_state {
	TASK_NEW = 0,
	TASK_RUNNING,
	TASK_PARKED, /* sleeps in PLAN_PARK or has reached the end of its plan */
	TASK_FAILED, /* op `pc` gave `result`; sleeps until it is killed or sent home */
};

/* What becomes of the system call a task was in, if a handler of a signal runs before it is back in it (signal(7)). */
enum ctl_interrupted {
	CALL_BEGINS_ANEW = 0, /* or there was none */
	CALL_ENDS_UNLESS_SA_RESTART,
	CALL_ENDS,
};

struct ctl_task {
	uint32_t first_op;	/* engine: index into ops */
	uint32_t n_ops;		/* engine */
	uint32_t stack;		/* engine: offset of the top of its stack, 16-aligned */
	int32_t tid;		/* engine: PID or TID it must get; 0: any. agent: the one it got, before
				   whoever made it goes on */
	uint64_t home_frame;	/* engine, dump only: address of the ucontext of the signal frame that
				   leads home, outside control memory; 0: the task ends instead.
				   The 8 bytes below it are the frame's too, and the agent's to write */
	uint32_t state;		/* agent: enum task_state; futex word, wakes on every change */
	uint32_t pc;		/* agent: operation being run, from 0 in this task's plan */
	int64_t result;		/* agent: what the last system call returned */
	uint32_t alive;		/* kernel, of a PLAN_HELPER: its TID; 0: it is not there (any more). Futex word */
	uint32_t done;		/* agents, of a plan that is shared: how many of its operations are done */
	uint64_t window;	/* agent, of a helper in PLAN_BULK: what it has mapped, until that is given back */
	uint64_t window_size;
	uint32_t interrupted;	/* engine: enum ctl_interrupted of the call that the home frame begins anew. Where the
				   task's own seccomp filters might mind being asked about signals: CALL_BEGINS_ANEW */
	uint32_t reserved;
};

/*
 * Of a process that holds an image's memory and bears copies (PLAN_KEEP), as children of its own parent.  It lies in
 * control memory where no plan does, and so does that task's stack: plans, and all that is said in struct ctl, are new
 * ones for each copy.
 */
struct keep {
	uint32_t order;	   /* engine: 1 at first, one more for each; futex word */
	uint32_t answered; /* agent: the last one that is done; 1: it is ready. Futex word */
	uint32_t task;	   /* engine: whose plan the child is to run */
	uint32_t reserved;
	int64_t result;	   /* agent: its PID, or -errno */
};

#define CTL_BARRIERS 16

struct ctl {
	uint64_t magic;		/* engine: CTL_MAGIC */
	uint64_t base;		/* engine: address of the agent's code in the tasks */
	uint64_t size;		/* engine: bytes mapped at base, code included */
	uint32_t n_tasks;	/* engine */
	uint32_t tasks;		/* engine: offset of struct ctl_task[n_tasks] */
	uint32_t n_ops;		/* engine */
	uint32_t ops;		/* engine: offset of struct plan_op[n_ops] */
	uint32_t n_slots;	/* engine */
	uint32_t slots;		/* engine: offset of int64_t[n_slots] */

	/* Waking and sleeping. All are futex words, shared between processes. */
	uint32_t parked;	/* agents: how many PLAN_PARK or ends of plan were reached, in all */
	uint32_t release;	/* engine: see PLAN_PARK */
	uint32_t failed;	/* agents: task number + 1 of the first that failed */
	uint32_t barrier[CTL_BARRIERS]; /* agents: PLAN_POST; engine may read */

	/* The way home, dump only (parasite/README.md). */
	uint32_t home;		/* serving agent: 1 = everybody leave; engine never */
	uint32_t inside;	/* how many tasks besides the serving one run agent code. engine: counts
				   each as it sends it in, and out where it takes it back itself;
				   agents: decremented by each that leaves */
	uint64_t chain;		/* engine: stack pointer of the serving task's return chain: the address
				   of the target's `mov $15,%rax; syscall`, above it the ucontext;
				   0: there is none, and the mapping is left behind */
	uint64_t gadget;	/* engine: address of `syscall; ret` in the target's own text */
	int32_t lent[3];	/* serving agent: descriptors of PLAN_SOCKETS and PLAN_BORROW, which it closes on its
				   way home; -1: none; engine: -1 before */
	uint64_t engine[5];	/* engine, dump only: a pthread_mutex_t, robust and shared between processes, that it
				   holds while agents run. kernel: FUTEX_OWNER_DIED in its first 4 bytes, a futex
				   word, when the engine has died. serving agent: FUTEX_WAITERS there */
};

/* How long a serving agent that cannot write control memory waits to be taken home, in seconds. */
#define AGENT_PATIENCE_S 10

/* --- entries ------------------------------------------------------------ */

/*
 * The blob starts with this table of offsets from its first byte. All entries
 * take System V arguments and use only general registers, so that floating
 * point and vector state is never touched.
 *
 *	start(ctl, task)	runs task's plan on the current stack (which must be the
 *				task's own), parks at its end, leaves when ctl.home is set
 *	serve(ctl, task, bytes)	makes `bytes` from ctl on writable and runs task's plan; never returns; goes
 *				home by the chain when the engine has died. Beside them: r10 bytes that will be
 *				touched, r12 base, rbx size, r14 chain, r15 gadget, as ctl has them
 *	spawn(ctl, task, exit_signal, flags)  ordinary function, called in the engine: makes the
 *				task's process with clone3 (on task's stack, with task's
 *				tid; flags: CLONE_*); returns the PID or -errno
 */
struct agent_entries {
	uint32_t magic; /* AGENT_MAGIC */
	uint32_t start;
	uint32_t serve;
	uint32_t spawn;
};

#define AGENT_MAGIC 0x746e6761u /* "agnt" */

/* Where the engine finds the blob that was built in. */
extern const uint8_t agent_blob[];
extern const uint32_t agent_blob_size;

static inline uint32_t *ctl_engine(struct ctl *ctl)
{
	return (uint32_t *)ctl->engine;
}

static inline struct ctl_task *ctl_task(struct ctl *ctl, uint32_t task)
{
	return (struct ctl_task *)((char *)ctl + ctl->tasks) + task;
}

static inline struct plan_op *ctl_op(struct ctl *ctl, uint32_t op)
{
	return (struct plan_op *)((char *)ctl + ctl->ops) + op;
}

static inline int64_t *ctl_slot(struct ctl *ctl, uint32_t slot)
{
	return (int64_t *)((char *)ctl + ctl->slots) + slot;
}

#endif
