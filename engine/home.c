#include "engine/home.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/frame.h"
#include "engine/ranges.h"
#include "store/scope.h"

#define PAGE 4096ul
#define RED_ZONE 128
#define SCANNED (256u << 10) /* of a stack, for the frame of a signal */
#define STACK_GROWTH (1ull << 30) /* in the time between a listing and a freeze */

/* What a task's frame takes: the word below it, and alignment. */
static size_t home_size(const struct task *task)
{
	return (frame_size(task) + sizeof(uint64_t) + 127) & ~63ul;
}

static uint64_t end_of_vma(const void *vma)
{
	return ((const image_vma *)vma)->end;
}

static const image_vma *find_vma(const struct process *process, uint64_t address)
{
	const image_vma *vmas = process->mm.vmas.vmas_val;
	size_t n = process->mm.vmas.vmas_len, i = ranges_beyond(vmas, n, sizeof(*vmas), end_of_vma, address);
	return i < n && address >= vmas[i].start ? &vmas[i] : NULL;
}

/* The frames lie where nobody has anything: in the lower part of the main stack, which its owner has grown but does not
 * use now. */
struct spare {
	const image_vma *stack; /* NULL: there is none, or what we know of it is old */
	uint64_t start, end;	/* start may lie below the mapping, which then grows as for its owner */
};

static const image_vma *find_main_stack(const struct process *process)
{
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++)
		if (strcmp(process->mm.vmas.vmas_val[i].name, "[stack]") == 0)
			return &process->mm.vmas.vmas_val[i];
	return NULL;
}

/* What is zero at the lower end was never used, or we have put it back; who used the stack as deep as that has at least left
 * a return address where his frame ended, so that some distance is kept from the first that is not. */
static uint64_t end_of_zeroes(const struct process *process, uint64_t start, uint64_t wanted)
{
	uint64_t page[PAGE / sizeof(uint64_t)], at = start;
	while (at < start + wanted + PAGE) {
		bool zero = pread(process->mem, page, PAGE, (off_t)at) == PAGE;
		for (size_t i = 0; i < PAGE / sizeof(*page) && zero; i++)
			zero = page[i] == 0;
		if (!zero)
			break;
		at += PAGE;
	}
	return at > start ? at - PAGE : start;
}

/* A handler that runs on an alternate stack which lies on the main one: what is in use below are the frames of what it has
 * interrupted. */
static uint64_t below_interrupted(const struct process *process, uint64_t sp, uint64_t end)
{
	size_t size = end - sp < SCANNED ? end - sp : SCANNED;
	cleanup_free char *words = malloc(size);
	ssize_t got = words ? pread(process->mem, words, size, (off_t)sp) : -1;
	return got > 0 ? frame_beneath(words, (size_t)got, sp) : 0;
}

static void find_spare(const struct process *process, uint64_t wanted, struct spare *spare)
{
	uint64_t sp = process->tasks[0]->regs.rsp;
	const image_vma *stack = find_main_stack(process);
	*spare = (struct spare){ 0 };
	/* Grown since the mappings were listed, before the freeze: what was spare then is in use. */
	if (!stack || (sp <= stack->start && stack->start - sp < STACK_GROWTH && !find_vma(process, sp)))
		return;
	uint64_t size = stack->end - stack->start - PAGE; /* at the very top are the program's arguments */
	*spare = (struct spare){ stack, stack->start, end_of_zeroes(process, stack->start, wanted < size ? wanted : size) };
	if (sp <= stack->start || sp > stack->end || spare->end - spare->start >= wanted)
		return; /* on a stack of another making nobody knows how deep the main one is in use */
	uint64_t interrupted = below_interrupted(process, sp, stack->end);
	uint64_t used = interrupted > stack->start && interrupted < sp ? interrupted : sp;
	spare->end = used - stack->start > RED_ZONE ? used - RED_ZONE : stack->start;
}

/* Its thread control block is at the upper end, where the C library puts it: what lies below the stack pointer is its own,
 * and signals are delivered there. Of a stack that somebody else has made, a coroutine's or an alternate one, nobody knows
 * where it ends, and what lies beyond. */
static bool is_on_thread_stack(const struct process *process, const struct task *task)
{
	const image_vma *vma = find_vma(process, task->regs.rsp);
	return vma && task->regs.fs_base > task->regs.rsp && task->regs.fs_base < vma->end &&
	       strcmp(vma->name, "[stack]") != 0;
}

/* For whom there must be room: who has no other. The stack grows by what is missing. */
static int make_room(struct process *process, struct spare *spare, uint64_t needed, struct fsnap_error *err)
{
	char byte;
	if (!spare->stack || spare->end - spare->start >= needed)
		return 0;
	spare->start -= (needed - (spare->end - spare->start) + PAGE - 1) & ~(PAGE - 1);
	if (pread(process->mem, &byte, 1, (off_t)spare->start) == 1)
		return 0;
	fail(err, FSNAP_E_UNSUPPORTED, 0, "no room for signal frames: its main stack cannot grow by %lu bytes",
	     (unsigned long)(spare->stack->start - spare->start));
	return error_hint(err, "raise its limit: prlimit --pid %d --stack=...", process->pid);
}

/*
 * Between having its registers changed and having its mask filled, and again on its way back, a thread stands at its
 * frame with its own mask (registers and mask are two requests). Should we die just there, a signal that waits is
 * delivered below the frame, as deep as its handler goes. So what lies below a thread's frame belongs to threads that have
 * been brought back before it, or will be turned home after it: the leader's is the topmost, the others follow by number.
 */
static int choose_places(struct process *process, struct home *homes, size_t n, struct fsnap_error *err)
{
	struct spare spare;
	uint64_t all = 0, needed = 0;
	for (size_t i = 0; i < n; i++) {
		all += home_size(process->tasks[i]);
		needed += is_on_thread_stack(process, process->tasks[i]) ? 0 : home_size(process->tasks[i]);
	}
	find_spare(process, all, &spare);
	if (make_room(process, &spare, needed, err) < 0)
		return -1;
	uint64_t top = spare.end > spare.start + all ? spare.start + all : spare.end;
	for (size_t i = 0; i < n; i++) {
		size_t number = i ? n - i : 0, size = home_size(process->tasks[number]);
		const struct task *task = process->tasks[number];
		bool needs = !is_on_thread_stack(process, task);
		uint64_t low = top - size;
		needed -= needs ? size : 0;
		if (top - spare.start >= size + needed) {
			top = low;
		} else {
			low = task->regs.rsp - RED_ZONE - size;
			const image_vma *vma = find_vma(process, low);
			if (!vma || !(vma->prot & PROT_WRITE) || task->regs.rsp > vma->end)
				return fail(err, FSNAP_E_UNSUPPORTED, 0,
					    "thread %d: no room for a signal frame on its stack", task->tid);
		}
		homes[number].frame = (low + sizeof(uint64_t) + 63) & ~63ull;
	}
	return 0;
}

static int lay_frame(struct process *process, size_t number, struct home *home, struct fsnap_error *err)
{
	size_t size = sizeof(uint64_t) + frame_size(process->tasks[number]);
	off_t at = (off_t)(home->frame - sizeof(uint64_t));
	cleanup_free char *buf = malloc(size);
	char *was = malloc(size);
	if (!buf || !was) {
		free(was);
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "thread %d: its stack", process->tasks[number]->tid);
	}
	if (pread(process->mem, was, size, at) != (ssize_t)size) {
		int sys = errno;
		free(was);
		return fail(err, FSNAP_E_SYSTEM, sys, "thread %d: cannot read its stack",
			    process->tasks[number]->tid);
	}
	home->was = was;
	memcpy(buf, &process->text.sigreturn, sizeof(uint64_t));
	frame_build(process->tasks[number], home->frame, buf + sizeof(uint64_t));
	if (pwrite(process->mem, buf, size, at) != (ssize_t)size)
		return fail(err, FSNAP_E_SYSTEM, errno, "thread %d: cannot write below its stack pointer",
			    process->tasks[number]->tid);
	return 0;
}

int home_lay(struct process *process, struct home *homes, size_t n, struct fsnap_error *err)
{
	if (choose_places(process, homes, n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (lay_frame(process, i, &homes[i], err) < 0)
			return -1;
	return 0;
}

void home_take(struct process *process, struct home *homes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t size = sizeof(uint64_t) + frame_size(process->tasks[i]);
		/* A process that died meanwhile has no stack to mend. */
		if (homes[i].was &&
		    pwrite(process->mem, homes[i].was, size, (off_t)(homes[i].frame - sizeof(uint64_t))) < 0)
			return;
	}
}

void home_forget(struct home *homes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(homes[i].was);
		homes[i].was = NULL;
	}
}

void home_free(struct home *homes, size_t n)
{
	for (size_t i = 0; homes && i < n; i++)
		free(homes[i].was);
	free(homes);
}
