/*
 * pkeys.c - protection keys (pkeys(7)).
 *
 * pkey_alloc(2) gives the lowest number that is free, and so does the kernel when it takes
 * one for itself, at the first mapping that may only be executed.  So all numbers up to the
 * highest are taken in order, each by whom it belongs to, and those in between given back.
 * Rights of keys (PKRU) are registers, and come back with them.
 */
#include <sys/mman.h>

#include "restorer/memory.h"

#define KEYS 16

/* The kernel's own key for memory that may only be executed is not one of the program's. */
static const image_vma *execute_only(const image_mm *mm)
{
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		if (vma->pkey && vma->pkey < KEYS && vma->prot == PROT_EXEC && !(mm->pkeys >> vma->pkey & 1))
			return vma;
	}
	return NULL;
}

static unsigned highest_key(unsigned keys)
{
	unsigned highest = 0;
	for (unsigned key = 1; key < KEYS; key++)
		if (keys >> key & 1)
			highest = key;
	return highest;
}

static void take_keys(struct plans *plans, uint32_t task, unsigned keys, const image_vma *executed)
{
	unsigned all = keys | (executed ? 1u << executed->pkey : 0), last = highest_key(all);
	for (unsigned key = 1; key <= last; key++) {
		if (executed && executed->pkey == key) {
			/* Readable first: the kernel takes its key when that ends. */
			uint64_t size = executed->end - executed->start;
			plan_call(plans, task, SYS_mprotect, IMM(executed->start), IMM(size),
				  IMM(PROT_READ | PROT_EXEC));
			plan_call(plans, task, SYS_mprotect, IMM(executed->start), IMM(size), IMM(PROT_EXEC));
			continue;
		}
		plan_call(plans, task, SYS_pkey_alloc, IMM(0), IMM(0));
		plan_accept_equal(plans, key);
	}
	for (unsigned key = 1; key <= last; key++)
		if (!(all >> key & 1))
			plan_call(plans, task, SYS_pkey_free, IMM(key));
}

void memory_protection_keys(struct plans *plans, uint32_t task, const image_mm *mm)
{
	const image_vma *executed = execute_only(mm);
	if (!mm->pkeys)
		return; /* the kernel's own has come with the mappings */
	plan_note(plans, "protection keys");
	take_keys(plans, task, mm->pkeys, executed);
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		if (vma->kind != VMA_SPECIAL && mm->pkeys >> vma->pkey & 1 && vma->pkey)
			plan_call(plans, task, SYS_pkey_mprotect, IMM(vma->start), IMM(vma->end - vma->start),
				  IMM(vma->prot), IMM(vma->pkey));
	}
}
