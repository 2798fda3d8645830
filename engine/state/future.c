/*
 * future.c - what a program has said about all of its memory, that to come included:
 * mlockall(MCL_FUTURE), prctl(PR_SET_MEMORY_MERGE), prctl(PR_SET_MDWE), and the protection keys it may use.
 *
 * Of these only the second and third can be asked for.  The first is tried on a page mapped for
 * the purpose, the last on an address where nothing can be.
 */
#include <linux/prctl.h>
#include <sys/mman.h>
#include <sys/platform/x86.h>
#include <sys/prctl.h>

#include "engine/state/state.h"

#ifndef PR_SET_MEMORY_MERGE /* Linux 6.4 */
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif

#ifndef PR_SET_MDWE /* Linux 6.3 */
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif

#define PAGE 4096
#define NOWHERE 0x7ffffffff000ull /* the page behind the last one that can be mapped */

/* --- dump ------------------------------------------------------------------------- */

/* A locked mapping takes no MADV_DONTNEED (madvise(2)); one that is not locked only when it is touched has
 * its page at once. Shared: pages are looked for meanwhile, and those of files are not taken for the program's. */
static void ask_locking(struct process_asks *asks, struct plans *plans, uint32_t plan)
{
	plan_note(plans, "ask whether new memory is locked");
	plan_call(plans, plan, SYS_mmap, IMM(0), IMM(PAGE), IMM(PROT_READ | PROT_WRITE),
		  IMM(MAP_SHARED | MAP_ANONYMOUS), IMM(-1), IMM(0));
	plan_accept_any(plans);
	uint32_t page = asks->new_page = plan_result(plans);
	asks->resident = plans_data(plans, NULL, 1, 1);
	plan_call(plans, plan, SYS_mincore, SLOT(page), IMM(PAGE), DATA(asks->resident));
	plan_accept_any(plans);
	plan_call(plans, plan, SYS_madvise, SLOT(page), IMM(PAGE), IMM(MADV_DONTNEED));
	plan_accept_any(plans);
	asks->dontneed = plan_result(plans);
	plan_call(plans, plan, SYS_munmap, SLOT(page), IMM(PAGE));
	plan_accept_any(plans);
}

/* Does the system use protection keys? CPUID.7:ECX bit 4 (OSPKE). */
static bool have_keys(void)
{
	return __x86_get_cpuid_feature_leaf(CPUID_INDEX_7)->cpuid_array[2] >> 4 & 1;
}

/* pkey_mprotect(2) looks at the key before it looks for the mapping. */
static void ask_keys(struct process_asks *asks, struct plans *plans, uint32_t plan)
{
	if (!have_keys())
		return;
	plan_note(plans, "ask for protection keys");
	for (unsigned key = 1; key < PROTECTION_KEYS; key++) {
		plan_call(plans, plan, SYS_pkey_mprotect, IMM(NOWHERE), IMM(PAGE), IMM(PROT_READ), IMM(key));
		plan_accept_any(plans);
		asks->pkeys[key] = plan_result(plans);
	}
}

void future_ask(struct survey *survey, struct plans *plans)
{
	struct process_asks *asks = &survey->asks;
	uint32_t plan = survey->task[0].plan;
	ask_locking(asks, plans, plan);
	ask_keys(asks, plans, plan);
	plan_note(plans, "ask whether all memory is to be merged");
	plan_call(plans, plan, SYS_prctl, IMM(PR_GET_MEMORY_MERGE));
	plan_accept_any(plans);
	asks->merge_any = plan_result(plans);
	plan_note(plans, "ask whether memory can become executable");
	plan_call(plans, plan, SYS_prctl, IMM(PR_GET_MDWE));
	plan_accept_any(plans);
	asks->mdwe = plan_result(plans);
}

/* EAGAIN: nothing more can be locked, so new memory was to be. */
static unsigned locking(const struct process_asks *asks, const struct plans *plans, struct ctl *ctl)
{
	int64_t page = plans_slot(plans, ctl, asks->new_page);
	if (page == -EAGAIN)
		return MCL_FUTURE;
	if (page < 0 || plans_slot(plans, ctl, asks->dontneed) != -EINVAL)
		return 0;
	const char *resident = plans_data_at(plans, ctl, asks->resident);
	return MCL_FUTURE | (*resident & 1 ? 0 : MCL_ONFAULT);
}

void future_answer(struct survey *survey, const struct plans *plans, struct ctl *ctl)
{
	const struct process_asks *asks = &survey->asks;
	image_mm *mm = &survey->process->mm;
	mm->lock_future = locking(asks, plans, ctl);
	int64_t mdwe = plans_slot(plans, ctl, asks->mdwe);
	mm->mdwe = mdwe > 0 ? (unsigned)mdwe : 0;
	mm->merge_any = plans_slot(plans, ctl, asks->merge_any) == 1;
	for (unsigned key = 1; have_keys() && key < PROTECTION_KEYS; key++)
		if (plans_slot(plans, ctl, asks->pkeys[key]) == -ENOMEM)
			mm->pkeys |= 1u << key;
}

/* --- restore ------------------------------------------------------------------------ */

/* It makes all there is mergeable; some the program may have taken out again. */
static void merge(const struct rebuild *r)
{
	if (r->mm->merge_any == r->self->merge_any)
		return;
	plan_note(r->plans, "merging of equal pages");
	plan_call(r->plans, r->task, SYS_prctl, IMM(PR_SET_MEMORY_MERGE), IMM(r->mm->merge_any));
	for (u_int i = 0; r->mm->merge_any && i < r->mm->vmas.vmas_len; i++) {
		const image_vma *vma = &r->mm->vmas.vmas_val[i];
		if (vma->kind == VMA_SPECIAL || vma->flags & MAP_SHARED || vma->advice & ADVICE_MERGEABLE)
			continue;
		plan_call(r->plans, r->task, SYS_madvise, IMM(vma->start), IMM(vma->end - vma->start),
			  IMM(MADV_UNMERGEABLE));
		plan_accept_any(r->plans); /* what it cannot be merged of */
	}
}

/* Nothing is made executable any more: all of that has been. */
static void deny_write_execute(const struct rebuild *r)
{
	if (!r->mm->mdwe)
		return;
	plan_note(r->plans, "memory to come cannot become executable");
	plan_call(r->plans, r->task, SYS_prctl, IMM(PR_SET_MDWE), IMM(r->mm->mdwe));
}

void future_rebuild(const struct rebuild *r)
{
	merge(r);
	deny_write_execute(r);
	if (!r->mm->lock_future)
		return;
	plan_note(r->plans, "memory to come is locked");
	plan_call(r->plans, r->task, SYS_mlockall, IMM(r->mm->lock_future));
}

/* It cannot be taken back, and is inherited. */
int future_allowed(struct fsnap_error *err)
{
	if (prctl(PR_GET_MDWE, 0, 0, 0, 0) <= 0)
		return 0;
	fail(err, FSNAP_E_PERMISSION, 0, "fsnap itself may not make memory executable (PR_SET_MDWE)");
	return error_hint(err, "run it without, e.g. not from a service with MemoryDenyWriteExecute=yes");
}
