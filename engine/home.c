#include "engine/home.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/frame.h"
#include "store/scope.h"

#define RED_ZONE 128

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
		*start = vma->start;
		/* On a stack of its own making? Then how deep the main stack was is not known. */
		*end = here ? sp - RED_ZONE : vma->start + (vma->end - vma->start) / 2;
	}
}

static int choose_places(struct process *process, struct home *homes, size_t n, struct fsnap_error *err)
{
	uint64_t spare, end;
	find_spare(process, &spare, &end);
	for (size_t i = 0; i < n; i++) {
		const struct task *task = process->tasks[i];
		size_t size = home_size(task);
		uint64_t low = spare;
		if (spare + size <= end) {
			spare += size;
		} else {
			low = task->regs.rsp - RED_ZONE - size;
			const image_vma *vma = find_vma(process, low);
			if (!vma || !(vma->prot & PROT_WRITE) || low + size > vma->end)
				return fail(err, FSNAP_E_UNSUPPORTED, 0,
					    "thread %d: no room for a signal frame on its stack", task->tid);
		}
		homes[i].frame = (low + sizeof(uint64_t) + 63) & ~63ull;
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
