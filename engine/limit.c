#include "engine/limit.h"

#include <linux/io_uring.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/restarts.h"

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif
/* Younger than Debian 12's headers. */
#define ENTER_ABS_TIMER (1u << 5)   /* Linux 6.12 */
#define ENTER_EXT_ARG_REG (1u << 6) /* Linux 6.13 */

#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull
#define RED_ZONE 128 /* bytes below the stack pointer that are the program's */

/* What a limit in memory becomes. */
struct shortened {
	struct io_uring_getevents_arg arg;
	struct timespec time;
};

static const struct {
	uint64_t nr;
	enum limit_form form;
	unsigned arg; /* which, from 0 */
} calls[] = {
	{ SYS_epoll_wait, LIMIT_MS, 3 },	   { SYS_epoll_pwait, LIMIT_MS, 3 },
	{ SYS_epoll_pwait2, LIMIT_TIME, 3 },	   { SYS_semtimedop, LIMIT_TIME, 3 },
	{ SYS_rt_sigtimedwait, LIMIT_TIME, 2 },	   { SYS_io_getevents, LIMIT_TIME, 4 },
	{ SYS_io_pgetevents, LIMIT_TIME, 4 },	   { SYS_io_uring_enter, LIMIT_ARGUMENT, 4 },
};

struct limit limit_of(uint64_t nr, const uint64_t args[6])
{
	static const enum text_register registers[] = { [2] = TEXT_RDX, [3] = TEXT_R10, [4] = TEXT_R8 };
	const struct limit none = { LIMIT_NONE, TEXT_R10 };
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		if (calls[i].nr != nr)
			continue;
		uint64_t value = args[calls[i].arg];
		unsigned how = (unsigned)args[3];
		if (calls[i].form == LIMIT_MS ? (int)value <= 0 : !value)
			return none;
		if (calls[i].form == LIMIT_ARGUMENT &&
		    (!(how & IORING_ENTER_EXT_ARG) || (how & (ENTER_ABS_TIMER | ENTER_EXT_ARG_REG)) ||
		     args[5] != sizeof(struct io_uring_getevents_arg)))
			return none;
		return (struct limit){ calls[i].form, registers[calls[i].arg] };
	}
	return none;
}

/* As trace_hide_stop() leaves it. */
struct limit limit_behind(const struct user_regs_struct *regs)
{
	const uint64_t args[6] = { regs->rdi, regs->rsi, regs->rdx, regs->r10, regs->r8, regs->r9 };
	if ((int64_t)regs->rax != -ERESTARTNOHAND)
		return (struct limit){ LIMIT_NONE, TEXT_R10 };
	return limit_of(regs->orig_rax, args);
}

/* --- where the thread has nothing ---------------------------------------------------- */

static bool is_writable(const image_mm *mm, uint64_t from, uint64_t to)
{
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		if (vma->start <= from && to <= vma->end)
			return (vma->prot & PROT_WRITE) && (vma->kind == VMA_ANON || vma->kind == VMA_FILE);
	}
	return false;
}

/*
 * Below the red zone, where handlers of signals have their frames: once one has run, the call is not begun anew.
 * Whoever has handlers run elsewhere may have a stack that ends right there; then it is the far end of that other one.
 * 0: nowhere, or nobody knows.
 */
static uint64_t find_room(const struct user_regs_struct *regs, const struct limit_place *place, uint64_t size)
{
	const image_thread *thread = place->thread;
	uint64_t begin = thread->altstack_sp, end = begin + thread->altstack_size;
	uint64_t at = (regs->rsp - RED_ZONE - size) & ~15ull;
	if (thread->altstack_size && regs->rsp > begin && regs->rsp <= end)
		return 0;
	if (thread->altstack_size)
		at = (begin + 15) & ~15ull;
	else if (!(thread->altstack_flags & SS_DISABLE))
		return 0;
	return is_writable(place->mm, at, at + size) ? at : 0;
}

/* --- the change ----------------------------------------------------------------------- */

static bool is_less(uint64_t left, const struct timespec *time)
{
	return time->tv_sec >= 0 && left / NS_PER_S <= (uint64_t)time->tv_sec &&
	       (left / NS_PER_S < (uint64_t)time->tv_sec || left % NS_PER_S < (uint64_t)time->tv_nsec);
}

static bool shorten_memory(struct user_regs_struct *regs, unsigned long long *reg, bool argument, uint64_t left,
			   const struct limit_place *place)
{
	struct shortened shortened = { 0 };
	uint64_t at = find_room(regs, place, sizeof(shortened)), time = *reg;
	uint64_t in = at + offsetof(struct shortened, time);
	if (argument) {
		if (pread(place->mem, &shortened.arg, sizeof(shortened.arg), (off_t)*reg) != sizeof(shortened.arg))
			return false;
		time = shortened.arg.ts;
		shortened.arg.ts = in;
	}
	if (!at || !time || pread(place->mem, &shortened.time, sizeof(shortened.time), (off_t)time) !=
				    sizeof(shortened.time) ||
	    !is_less(left, &shortened.time))
		return false;
	shortened.time = (struct timespec){ (time_t)(left / NS_PER_S), (long)(left % NS_PER_S) };
	if (pwrite(place->mem, &shortened, sizeof(shortened), (off_t)at) != sizeof(shortened))
		return false;
	*reg = argument ? at : in;
	return true;
}

bool limit_shorten(struct user_regs_struct *regs, uint64_t left, const struct limit_place *place)
{
	const struct limit limit = limit_behind(regs);
	uint64_t ms = (left + NS_PER_MS - 1) / NS_PER_MS;
	unsigned long long *reg = limit.reg == TEXT_RDX ? &regs->rdx : limit.reg == TEXT_R8 ? &regs->r8 : &regs->r10;
	if (limit.form == LIMIT_NONE)
		return false;
	if (limit.form != LIMIT_MS)
		return shorten_memory(regs, reg, limit.form == LIMIT_ARGUMENT, left, place);
	if (ms >= *reg)
		return false;
	*reg = ms;
	return true;
}
