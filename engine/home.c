#include "engine/home.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/frame.h"
#include "store/scope.h"

#define RED_ZONE 128
#define STACK_GROWTH (1ull << 30) /* in the time between a listing and a freeze */

/* What a task's frame takes: the word below it, and alignment. */
static size_t home_size(const struct task *task)
{
	return (frame_size(task) + sizeof(uint64_t) + 127) & ~63ul;
}

static const image_vma *find_vma(const struct process *process, uint64_t address)
{
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		if (address >= vma->start && address < vma->end)
			return vma;
	}
	return NULL;
}

/* The lower part of the main stack, which its owner has grown but does not use now. */
static void find_spare(const struct process *process, uint64_t *start, uint64_t *end)
{
	uint64_t sp = process->tasks[0]->regs.rsp;
	*start = *end = 0;
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		if (strcmp(vma->name, "[stack]") != 0)
			continue;
		bool here = sp > vma->start && sp <= vma->end;
		/* Grown since the mappings were listed, before the freeze: what was spare then is in use. */
		if (sp <= vma->start && vma->start - sp < STACK_GROWTH && !find_vma(process, sp))
			return;
		*start = vma->start;
		/* On a stack of its own making? Then how deep the main stack was is not known. */
		*end = here ? sp - RED_ZONE : vma->start + (vma->end - vma->start) / 2;
	}
}

/*
 * Between having its registers changed and having its mask filled, and again on its way back, a thread stands at its
 * frame with its own mask (registers and mask are two requests). Should we die just there, a signal that waits is
 * delivered below the frame, as deep as its handler goes. So what lies below a thread's frame belongs to threads that have
 * been brought back before it, or will be turned home after it: the leader's is the topmost, the others follow by number.
 */
static int choose_places(struct process *process, struct home *homes, size_t n, struct fsnap_error *err)
{
	uint64_t spare, end, all = 0;
	find_spare(process, &spare, &end);
	for (size_t i = 0; i < n; i++)
		all += home_size(process->tasks[i]);
	uint64_t top = end > spare + all ? spare + all : end;
	for (size_t i = 0; i < n; i++) {
		size_t number = i ? n - i : 0, size = home_size(process->tasks[number]);
		const struct task *task = process->tasks[number];
		uint64_t low = top - size;
		if (top >= spare + size) {
			top = low;
		} else {
			low = task->regs.rsp - RED_ZONE - size;
			const image_vma *vma = find_vma(process, low);
			if (!vma || !(vma->prot & PROT_WRITE) || low + size > vma->end)
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
