/*
 * tree.h - a running process tree as a dump sees it.
 *
 * Addresses inside a tracee are integers here, never pointers.  Everything the
 * image will hold is gathered straight into the structs of store/image.x; what
 * stands beside them is only needed while the dump lasts.
 */
#ifndef ENGINE_TREE_H
#define ENGINE_TREE_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>
#include <sys/user.h>

#include "engine/numbers.h"
#include "engine/text.h"
#include "engine/undertaker.h"
#include "image.h"
#include "store/error.h"

struct process;

struct task { /* a thread */
	pid_t tid;
	struct process *process;
	bool seized;	/* we trace it */
	bool stopped;	/* it is in a ptrace stop */
	int group_stop;	/* signal of the job-control stop it was found in; 0: none */
	bool masked;	/* its signal mask was changed for remote work: image.sigmask holds the real one */
	bool away;	/* its registers were changed: regs holds the real ones */
	enum { NO_CALL, BEFORE_CALL, AT_CALL, IN_CALL } calling; /* trace_call_begin() */
	bool wants_block; /* sleeps.c */
	bool unconfined;  /* seen: no seccomp filter will mind what it does on its way home */
	uint64_t deadline; /* time_left.c: of the call it was in, ns of CLOCK_MONOTONIC; 0: none */
	int owed;	/* a signal that was held back; delivered when the task is let go */
	struct user_regs_struct regs;
	image_thread image;
};

/* What else smaps says about a mapping; this never reaches the image as it is. */
enum advice_mark {
	MARK_WATCHED_MISSING = 1, /* by a userfaultfd, for pages that are missing */
	MARK_NORESERVE = 2,
	MARK_GROWSDOWN = 4,
	MARK_HUGETLB = 8,
	MARK_DROPPABLE = 16,
	MARK_SYNC = 32,		/* MAP_SYNC */
	MARK_SHADOW_STACK = 64,
	MARK_MAY_WRITE = 128,	/* mprotect(2) may make it writable */
	MARK_DEVICE = 256,	/* no pages of ordinary memory behind it */
	MARK_WATCHED_WRITES = 512,
	MARK_WATCHED_MINOR = 1024,
};

struct advice { /* what madvise(2) and others said about a mapping */
	uint64_t start, end;
	uint64_t page;	/* of hugetlbfs: size of its pages, bytes */
	unsigned flags; /* enum image_advice */
	unsigned marks; /* enum advice_mark */
	unsigned pkey;
};

/* Ranges registered with userfaultfds, and what the page tables say of them. */
struct userfaults {
	struct userfault_range {
		image_watch watch;
		bool shared;  /* memory that others may have, too */
		bool claimed; /* its userfaultfd was found */
	} *ranges;
	u_int n_ranges;
	image_span *protected; /* write-protected by one */
	u_int n_protected;
	image_span *present; /* mapped pages of shared memory */
	u_int n_present;
};

enum told { TOLD_STAT, TOLD_STATUS, TOLD_TIMERS, TOLD_OOM_SCORE, TOLD_CORE_FILTER, N_TOLD };
enum early_text { EARLY_STATUS, EARLY_MAPS, N_EARLY };

struct process {
	pid_t pid;
	pid_t ppid;
	pid_t live;	/* a thread that has memory and descriptors: pid, unless its main thread has ended */
	int proc;	/* descriptor of /proc/PID, for openat() */
	int pidfd;
	int mem;	/* /proc/PID/mem, read-write */
	int told[N_TOLD]; /* told.h: descriptors of files in `proc`, + 1; 0: not open */
	char *early[N_EARLY]; /* early.h: texts that were read ahead, NULL: not, or taken */
	bool early_is_ours;   /* and no more the thread's */
	char comm[32];
	uint64_t start; /* clock ticks, as `proc`/stat has it; 0: to be read */
	struct task **tasks; /* leader first, unless it has ended: image.leader_ended */
	size_t n_tasks;
	struct task **workers; /* threads of io_uring, which the kernel makes: they stand still, no more */
	size_t n_workers;
	image_thread ended; /* image.leader_ended: what is left of it */
	image_process image;
	image_mm mm;
	void *locks_known;	/* record_locks.c, by tsearch(3) */
	struct text_gadgets text; /* instructions of its own that fsnap can use */
	struct advice *advice;	  /* by address, as seen last */
	size_t n_advice;
	struct userfaults userfaults;
	uint64_t dirty;		  /* bytes of its own, its part of shared ones included, as seen last */
	bool knows_rings;	  /* a thread of it has had to do with io_uring */
	bool shares;		  /* it has dirty pages in common with others, as seen last */
	struct leftover {	  /* leftover.c: a mapping, by address */
		uint64_t start, end, inode;
	} *leftovers;
	size_t n_leftovers;
	int *left_fds;		  /* and descriptors */
	size_t n_left_fds;
	image_span *swapped;	  /* pages that were in swap when they were found, by address */
	u_int n_swapped;
	struct process *first_child, *next_sibling; /* once the tree stands still: kinship.c */
	uint32_t continued_ask;	  /* job_control.c */
	int processors;		  /* that are online; 0: nobody has asked */
	bool prepared;		  /* what can be had before the freeze was had */
	bool seizing;		  /* some of its threads are seized, and others perhaps are not */
	bool still;		  /* all its threads have been seen to stand still at once */
	bool executed;		  /* another program than when it was looked at before, if it was */
	bool apart;		  /* it shared nothing with any other process of the tree: sharing.c */
	bool childless;		  /* and it had no children then: nobody else gives it any */
	struct time_left *time_left; /* time_left.c; NULL: nobody in it waited with a limit. Not ours to free */
	struct chained *chained;  /* its part in a chain of dumps: chain/ */
	const image_process *becomes; /* restore: who it is to be */
};

struct tree {
	struct process **processes; /* root first, parents before children */
	size_t n_processes;
	struct numbers index; /* by PID */
	struct undertaker undertaker; /* while it is being seized */
};

/* Adds a process that was just found; NULL when there is no memory. */
struct process *tree_add(struct tree *tree, pid_t pid, pid_t ppid);
/* Takes a process out of a tree, to be put into another; NULL: it is not there. The last one takes its place. */
struct process *tree_take(struct tree *tree, pid_t pid);
int tree_put(struct tree *tree, struct process *process);
void process_free(struct process *process);
void process_forget_tasks(struct process *process);
struct task *process_add_task(struct process *process, pid_t tid);

struct process *tree_find(const struct tree *tree, pid_t pid);
void tree_free(struct tree *tree);

#endif
