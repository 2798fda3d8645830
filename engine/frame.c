#include "engine/frame.h"

#include <asm/ucontext.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "engine/restarts.h"

/* The kernel's layout; <ucontext.h> agrees up to the signal mask, which is 8 bytes here. */
struct kernel_ucontext {
	uint64_t flags;
	uint64_t link;
	uint64_t stack_sp;
	int32_t stack_flags;
	uint64_t stack_size;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
	uint16_t cs, gs, fs, ss;
	uint64_t error, trap, oldmask, cr2;
	uint64_t fpstate;
	uint64_t reserved[8];
	uint64_t sigmask;
};

/* The bytes of the FXSAVE area that software owns (struct _fpx_sw_bytes, asm/sigcontext.h). */
struct software_bytes {
	uint32_t magic1;
	uint32_t extended_size;
	uint64_t xfeatures;
	uint32_t xstate_size;
	uint32_t padding[7];
};

#define USER_CS 0x33 /* of 64-bit programs */
#define SOFTWARE_OFFSET 464
#define MAGIC1 0x46505853u
#define MAGIC2 0x46505845u
#define ALIGN64(n) (((n) + 63) & ~(size_t)63)

size_t frame_size(const struct task *task)
{
	return ALIGN64(sizeof(struct kernel_ucontext)) + task->image.xstate.xstate_len + sizeof(uint32_t);
}

void frame_name_call(const struct task *task, struct user_regs_struct *regs)
{
	unsigned char code[7];
	uint32_t nr;
	if (regs->orig_rax != SYS_restart_syscall ||
	    pread(task->process->mem, code, sizeof(code), (off_t)(regs->rip - sizeof(code))) != sizeof(code) ||
	    code[0] != 0xb8 || code[5] != 0x0f || code[6] != 0x05)
		return;
	memcpy(&nr, code + 1, sizeof(nr));
	if (nr == SYS_nanosleep || nr == SYS_clock_nanosleep || nr == SYS_poll || nr == SYS_futex)
		regs->orig_rax = nr;
}

/* Relative sleeps have written what remains to their second argument: sleep just that. */
static void restart_from_block(struct user_regs_struct *regs)
{
	if (regs->orig_rax == SYS_nanosleep && regs->rsi)
		regs->rdi = regs->rsi;
	else if (regs->orig_rax == SYS_clock_nanosleep && regs->r10)
		regs->rdx = regs->r10;
}

/* A signal return makes the kernel forget the block: the call itself is started again. */
static void forget_block(struct user_regs_struct *regs)
{
	if ((int64_t)regs->orig_rax < 0 || (int64_t)regs->rax != -ERESTART_RESTARTBLOCK)
		return;
	restart_from_block(regs);
	regs->rax = (uint64_t)-ERESTARTNOHAND;
}

enum ctl_interrupted frame_interrupted(const struct task *task)
{
	if ((int64_t)task->regs.orig_rax < 0)
		return CALL_BEGINS_ANEW;
	switch (-(int64_t)task->regs.rax) {
	case ERESTARTSYS:
		return CALL_ENDS_UNLESS_SA_RESTART;
	case ERESTARTNOHAND:
	case ERESTART_RESTARTBLOCK:
		return CALL_ENDS;
	default:
		return CALL_BEGINS_ANEW;
	}
}

void frame_restart(struct user_regs_struct *regs)
{
	forget_block(regs);
	if ((int64_t)regs->orig_rax < 0)
		return;
	switch (-(int64_t)regs->rax) {
	case ERESTARTSYS:
	case ERESTARTNOINTR:
	case ERESTARTNOHAND:
		break;
	default:
		return;
	}
	regs->rax = regs->orig_rax;
	regs->rip -= 2; /* the length of `syscall` */
	regs->orig_rax = (uint64_t)-1;
}

void frame_build(const struct task *task, uint64_t address, void *buf)
{
	struct user_regs_struct regs = task->regs;
	frame_name_call(task, &regs);
	frame_restart(&regs);
	size_t xstate_at = ALIGN64(sizeof(struct kernel_ucontext));
	size_t xstate_size = task->image.xstate.xstate_len;
	struct kernel_ucontext uc = {
		.flags = UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
		/* Not a valid mode: the kernel ignores it and keeps the alternate stack as it is. */
		.stack_flags = 0x7fff,
		.r8 = regs.r8, .r9 = regs.r9, .r10 = regs.r10, .r11 = regs.r11,
		.r12 = regs.r12, .r13 = regs.r13, .r14 = regs.r14, .r15 = regs.r15,
		.rdi = regs.rdi, .rsi = regs.rsi, .rbp = regs.rbp, .rbx = regs.rbx,
		.rdx = regs.rdx, .rax = regs.rax, .rcx = regs.rcx, .rsp = regs.rsp,
		.rip = regs.rip, .eflags = regs.eflags,
		.cs = (uint16_t)regs.cs, .ss = (uint16_t)regs.ss,
		.fpstate = address + xstate_at,
		.sigmask = task->image.sigmask,
	};
	memset(buf, 0, frame_size(task));
	memcpy(buf, &uc, sizeof(uc));
	char *xstate = (char *)buf + xstate_at;
	memcpy(xstate, task->image.xstate.xstate_val, xstate_size);
	struct software_bytes software = {
		.magic1 = MAGIC1,
		.extended_size = (uint32_t)(xstate_size + sizeof(uint32_t)),
		.xstate_size = (uint32_t)xstate_size,
	};
	/* ptrace put the enabled features where the frame wants none of its own: keep them. */
	memcpy(&software.xfeatures, xstate + SOFTWARE_OFFSET, sizeof(software.xfeatures));
	memcpy(xstate + SOFTWARE_OFFSET, &software, sizeof(software));
	uint32_t magic2 = MAGIC2;
	memcpy(xstate + xstate_size, &magic2, sizeof(magic2));
}

static bool is_on(const struct kernel_ucontext *uc, uint64_t address)
{
	const uint64_t known = UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS;
	return !(uc->flags & ~known) && uc->link == 0 && uc->stack_sp <= address &&
	       address - uc->stack_sp < uc->stack_size && uc->cs == USER_CS;
}

/* The alternate stack that a frame tells of is the one it lies on. */
uint64_t frame_beneath(const void *words, size_t size, uint64_t address)
{
	struct kernel_ucontext uc;
	for (size_t at = 0; at + sizeof(uc) <= size; at += sizeof(uint64_t)) {
		memcpy(&uc, (const char *)words + at, sizeof(uc));
		if (is_on(&uc, address))
			return uc.rsp;
	}
	return 0;
}
