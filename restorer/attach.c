/*
 * attach.c - System V segments back into an address space: shmat(2).
 *
 * shmat maps a whole segment.  What the program has cut out of it since, by munmap,
 * mprotect or mremap, is still one attachment to shmdt(2), which knows it by the address
 * that the segment's first byte has, or would have.  An attachment in pieces is made in
 * transit, behind control memory; its pieces are moved to their places, the rest goes.
 */
#include <sys/mman.h>
#include <sys/shm.h>

#include "restorer/memory.h"

static const image_shm *segment_of(const struct memory_source *source, const image_vma *vma)
{
	for (u_int i = 0; i < source->ipc->shms.shms_len; i++)
		if (source->ipc->shms.shms_val[i].ghost == vma->object)
			return &source->ipc->shms.shms_val[i];
	return NULL;
}

static bool same_attachment(const image_vma *a, const image_vma *b)
{
	return a->kind == VMA_SYSV && b->kind == VMA_SYSV && a->object == b->object &&
	       a->start - a->offset == b->start - b->offset &&
	       (a->advice & ADVICE_READONLY) == (b->advice & ADVICE_READONLY);
}

static unsigned attached_prot(const image_vma *vma)
{
	return vma->advice & ADVICE_READONLY ? PROT_READ : PROT_READ | PROT_WRITE;
}

static void attach(struct plans *plans, uint32_t task, const image_shm *shm, const image_vma *vma,
		   uint64_t at)
{
	plan_note(plans, "attach System V segment %d", shm->perm.id);
	plan_call(plans, task, SYS_shmat, IMM(shm->perm.id), IMM(at),
		  IMM(vma->advice & ADVICE_READONLY ? SHM_RDONLY : 0));
	plan_accept_equal(plans, (int64_t)at);
}

static void protect(struct plans *plans, uint32_t task, const image_vma *vma)
{
	if (vma->prot != attached_prot(vma))
		plan_call(plans, task, SYS_mprotect, IMM(vma->start), IMM(vma->end - vma->start),
			  IMM(vma->prot));
}

static void attach_pieces(struct plans *plans, uint32_t task, const struct memory_source *source,
			  const image_shm *shm, const image_mm *mm, u_int first)
{
	const image_vma *vmas = mm->vmas.vmas_val;
	uint64_t size = (shm->size + shm->page - 1) & ~(shm->page - 1);
	uint64_t transit = (source->control.end + shm->page - 1) & ~(shm->page - 1);
	attach(plans, task, shm, &vmas[first], transit);
	for (u_int i = first; i < mm->vmas.vmas_len; i++) {
		if (!same_attachment(&vmas[first], &vmas[i]))
			continue;
		uint64_t length = vmas[i].end - vmas[i].start;
		plan_call(plans, task, SYS_mremap, IMM(transit + vmas[i].offset), IMM(length),
			  IMM(length), IMM(MREMAP_MAYMOVE | MREMAP_FIXED), IMM(vmas[i].start));
		plan_accept_equal(plans, (int64_t)vmas[i].start);
		protect(plans, task, &vmas[i]);
	}
	plan_call(plans, task, SYS_munmap, IMM(transit), IMM(size));
}

void memory_attach(struct plans *plans, uint32_t task, const struct memory_source *source,
		   const image_mm *mm, u_int at)
{
	const image_vma *vma = &mm->vmas.vmas_val[at];
	const image_shm *shm = segment_of(source, vma);
	if (!shm) /* the model has checked */
		return;
	if (vma->offset == 0 && vma->end - vma->start >= shm->size) {
		attach(plans, task, shm, vma, vma->start);
		protect(plans, task, vma);
		return;
	}
	for (u_int i = 0; i < at; i++)
		if (same_attachment(vma, &mm->vmas.vmas_val[i]))
			return;
	attach_pieces(plans, task, source, shm, mm, at);
}
