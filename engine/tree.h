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
#include <sys/uio.h>
#include <sys/user.h>

#include "image.h"
#include "store/error.h"

struct process;

struct task { /* a thread */
	pid_t tid;
	struct process *process;
	bool seized;	/* we trace it */
	bool stopped;	/* it is in a ptrace stop */
	bool masked;	/* its signal mask was changed for remote work: image.sigmask holds the real one */
	bool away;	/* its registers were changed: regs holds the real ones */
	struct user_regs_struct regs;
	struct iovec xstate; /* NT_X86_XSTATE as read; points into image.xstate */
	image_thread image;
};

struct process {
	pid_t pid;
	pid_t ppid;
	int proc;	/* descriptor of /proc/PID, for openat() */
	int pidfd;
	int mem;	/* /proc/PID/mem, read-write */
	char comm[32];
	struct task **tasks; /* leader first */
	size_t n_tasks;
	image_process image;
	image_mm mm;
	uint64_t syscall_ret;  /* address of `syscall; ret` in its text, 0: none found */
	uint64_t sigreturn;    /* address of `mov $15, %eax|%rax; syscall` in its text, 0: none found */
	uint64_t syscall_any;  /* address of any `syscall` instruction */
};

struct tree {
	struct process **processes; /* root first, parents before children */
	size_t n_processes;
};

struct process *tree_find(const struct tree *tree, pid_t pid);

#endif
