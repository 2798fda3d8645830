/*
 * foreign.c - an image that was made on another kernel build.
 *
 * All that a program holds of its kernel's build is the vDSO. What it knows of it goes on working
 * (restorer/vdso.h), but for a thread that stands in the middle of its code: that code reads data
 * in the layout of the kernel it came from.  A dump lets such threads walk out of it first, as a
 * rule (engine/stride.c); where one is met here all the same, it is refused.
 */
#include <string.h>
#include <sys/user.h>

#include "engine/machine.h"
#include "store/hash.h"
#include "store/scope.h"
#include "store/store.h"

static const image_vma *vdso_of(const image_mm *mm)
{
	for (u_int i = 0; i < mm->vmas.vmas_len; i++)
		if (mm->vmas.vmas_val[i].kind == VMA_SPECIAL && strcmp(mm->vmas.vmas_val[i].name, "[vdso]") == 0)
			return &mm->vmas.vmas_val[i];
	return NULL;
}

static int refuse_inside(const struct model *model, struct fsnap_error *err)
{
	for (size_t i = 0; i < model->n_processes; i++) {
		const image_process *process = &model->processes[i];
		const image_vma *vdso = process->zombie ? NULL : vdso_of(model_mm(model, process->mm));
		for (u_int j = 0; vdso && j < process->threads.threads_len; j++) {
			const image_thread *thread = &process->threads.threads_val[j];
			struct user_regs_struct regs;
			memcpy(&regs, thread->regs.regs_val, sizeof(regs));
			if (regs.rip < vdso->start || regs.rip >= vdso->end)
				continue;
			fail(err, FSNAP_E_KERNEL_LACKS, 0,
			     "process %d (%s): thread %d was inside the vDSO of %s, and this kernel is another build",
			     process->pid, process->threads.threads_val[0].comm, thread->tid,
			     model->machine.kernel);
			return error_hint(err, "restore on the kernel build that dumped it, or dump it again");
		}
	}
	return 0;
}

static bool any_vdso(const struct model *model)
{
	for (size_t i = 0; i < model->n_mms; i++)
		if (vdso_of(&model->mms[i]))
			return true;
	return false;
}

static bool same_layout(const image_machine *there, const struct memory_special *here, size_t n)
{
	if (there->specials.specials_len != n)
		return false;
	for (size_t i = 0; i < n; i++)
		if (strcmp(there->specials.specials_val[i].name, here[i].name) != 0 ||
		    there->specials.specials_val[i].pages * STORE_PAGE != here[i].end - here[i].start)
			return false;
	return true;
}

int machine_redirect(const struct model *model, const struct memory_special *here, size_t n,
		     struct vdso_redirection *redirection, bool *foreign, struct fsnap_error *err)
{
	const image_machine *there = &model->machine;
	size_t size = 0;
	const void *vdso = NULL;
	for (size_t i = 0; i < n; i++)
		if (strcmp(here[i].name, "[vdso]") == 0) {
			vdso = (const void *)here[i].start;
			size = here[i].end - here[i].start;
		}
	*foreign = (vdso ? hash_bytes(vdso, size) : 0) != there->vdso_hash || !same_layout(there, here, n);
	if (!*foreign || !any_vdso(model))
		return 0;
	if (refuse_inside(model, err) < 0)
		return -1;
	return vdso_redirect(redirection, there->vdso.vdso_val, there->vdso.vdso_len, vdso, size, err);
}
