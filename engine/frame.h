/*
 * frame.h - the signal frame by which a task finds its way home when fsnap dies.
 *
 * rt_sigreturn(2) restores every register, the vector state and the signal mask
 * from such a frame.  It is the x86-64 kernel's struct rt_sigframe
 * (arch/x86/include/asm/sigframe.h) from its ucontext on.
 */
#ifndef ENGINE_FRAME_H
#define ENGINE_FRAME_H

#include "engine/tree.h"
#include "parasite/plan.h"

/* Bytes a frame for this task needs, to be placed at a 64-byte aligned address. */
size_t frame_size(const struct task *task);

/* Writes into buf (frame_size bytes) the frame that will lie at `address` in the task. Its
 * registers are such that an interrupted system call is started again, as the kernel would. */
void frame_build(const struct task *task, uint64_t address, void *buf);

/* A call that was interrupted before shows as restart_syscall(2), which ends with EINTR once the kernel has forgotten the rest
 * of it. Which it was, most programs' code says right before the instruction: mov $nr,%eax; syscall. */
void frame_name_call(const struct task *task, struct user_regs_struct *regs);

/* What a signal handler that runs ahead of that makes of the call. */
enum ctl_interrupted frame_interrupted(const struct task *task);

/* What the kernel does to registers of a task that leaves an interrupted system call without a
 * handler to run (arch/x86/kernel/signal.c); `regs` as PTRACE_GETREGS shows them. */
void frame_restart(struct user_regs_struct *regs);

/* The stack pointer of what a handler has interrupted that runs on an alternate stack: `words` is what lies on it from `address`,
 * the handler's stack pointer, on. 0: it is no handler, or none on an alternate stack. */
uint64_t frame_beneath(const void *words, size_t size, uint64_t address);

#endif
