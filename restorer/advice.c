/*
 * advice.c - what a program had said about its memory: madvise(2), mlock(2), mseal(2),
 * pkey_mprotect(2).
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "restorer/memory.h"

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif
#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL /* Linux 6.13 */
#define MADV_GUARD_INSTALL 102
#endif
#ifndef SYS_mseal /* Linux 6.10 */
#define SYS_mseal 462
#endif

static void advise(struct plans *plans, uint32_t task, uint64_t start, uint64_t end, int advice)
{
	plan_call(plans, task, SYS_madvise, IMM(start), IMM(end - start), IMM(advice));
}

/* Huge pages that a program got without asking for them, or by asking for each of them (MADV_COLLAPSE): where
 * the system now has none to give, small ones do. */
static void collapse(struct plans *plans, uint32_t task, uint64_t start, uint64_t end)
{
	advise(plans, task, start, end, MADV_COLLAPSE);
	plan_accept_any(plans);
}

/* Huge pages in mappings that were not advised to have them; not where pages may be shared with relatives, for
 * which this would be a write, nor where they have not come yet. */
static void collapse_spans(struct plans *plans, uint32_t task, const image_mm *mm, const bool *inherited,
			   const bool *streamed)
{
	u_int i = 0, span = 0;
	plan_note(plans, "huge pages nobody asked for");
	while (i < mm->vmas.vmas_len && span < mm->huge.huge_len) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		const image_span *huge = &mm->huge.huge_val[span];
		uint64_t start = vma->start > huge->start ? vma->start : huge->start;
		uint64_t end = vma->end < huge->end ? vma->end : huge->end;
		if (start < end && vma->kind == VMA_ANON && !(vma->advice & ADVICE_HUGEPAGE) &&
		    !(inherited && inherited[i]) && !(streamed && streamed[i]))
			collapse(plans, task, start, end);
		if (vma->end < huge->end)
			i++;
		else
			span++;
	}
}

static void advise_all(struct plans *plans, uint32_t task, const image_mm *mm, unsigned advice, int madvise)
{
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		if (vma->kind != VMA_SPECIAL && vma->advice & advice)
			advise(plans, task, vma->start, vma->end, madvise);
	}
}

void memory_expect_small(struct plans *plans, uint32_t task, const image_mm *mm)
{
	plan_note(plans, "no huge pages here");
	advise_all(plans, task, mm, ADVICE_NOHUGEPAGE, MADV_NOHUGEPAGE);
}

void memory_expect_huge(struct plans *plans, uint32_t task, const image_mm *mm)
{
	plan_note(plans, "huge pages here");
	advise_all(plans, task, mm, ADVICE_HUGEPAGE, MADV_HUGEPAGE);
}

static void add(struct page_run *list, size_t *n, const struct page_run *run, uint64_t from, uint64_t to)
{
	if (from < to)
		list[(*n)++] = (struct page_run){ .page = from, .at = run->at + (from - run->page),
						  .npages = (uint32_t)(to - from), .space = run->space };
}

int memory_divide(const image_mm *mm, const struct page_run *runs, size_t n, struct memory_division *out,
		  struct fsnap_error *err)
{
	size_t most = n + 2 * mm->huge.huge_len + 1;
	*out = (struct memory_division){ malloc(most * sizeof(*runs)), 0, malloc(most * sizeof(*runs)), 0 };
	if (!out->small || !out->huge) {
		memory_division_free(out);
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plan of a restore");
	}
	u_int span = 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t at = runs[i].page, end = runs[i].page + runs[i].npages;
		while (at < end) {
			while (span < mm->huge.huge_len && mm->huge.huge_val[span].end / STORE_PAGE <= at)
				span++;
			const image_span *huge = span < mm->huge.huge_len ? &mm->huge.huge_val[span] : NULL;
			uint64_t first = huge && huge->start / STORE_PAGE < end ? huge->start / STORE_PAGE : end;
			add(out->small, &out->n_small, &runs[i], at, first);
			at = first > at ? first : at;
			uint64_t last = huge && huge->end / STORE_PAGE < end ? huge->end / STORE_PAGE : end;
			add(out->huge, &out->n_huge, &runs[i], at, last);
			at = at < end ? last : end;
		}
	}
	return 0;
}

void memory_division_free(struct memory_division *division)
{
	free(division->small);
	free(division->huge);
	*division = (struct memory_division){ 0 };
}

/* Locked first without being filled: that fails only if it may not be locked. The filling fails where a
 * program could not have memory either (PROT_NONE, guard regions, behind a file's end), and changes nothing. */
static void lock(struct plans *plans, uint32_t task, const image_vma *vma)
{
	uint64_t size = vma->end - vma->start;
	plan_call(plans, task, SYS_mlock2, IMM(vma->start), IMM(size), IMM(MLOCK_ONFAULT));
	if (vma->advice & ADVICE_ONFAULT)
		return;
	plan_call(plans, task, SYS_mlock2, IMM(vma->start), IMM(size), IMM(0));
	plan_accept_any(plans);
}

static void advise_vma(struct plans *plans, uint32_t task, const image_vma *vma)
{
	static const struct {
		unsigned advice;
		int madvise;
	} table[] = {
		{ ADVICE_DONTFORK, MADV_DONTFORK },	  { ADVICE_WIPEONFORK, MADV_WIPEONFORK },
		{ ADVICE_DONTDUMP, MADV_DONTDUMP },	  { ADVICE_MERGEABLE, MADV_MERGEABLE },
		{ ADVICE_SEQUENTIAL, MADV_SEQUENTIAL },	  { ADVICE_RANDOM, MADV_RANDOM },
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (vma->advice & table[i].advice)
			advise(plans, task, vma->start, vma->end, table[i].madvise);
	if (vma->advice & ADVICE_COLLAPSED)
		collapse(plans, task, vma->start, vma->end);
	if (vma->advice & ADVICE_LOCKED)
		lock(plans, task, vma);
	/* From here on it cannot be changed. */
	if (vma->advice & ADVICE_SEALED)
		plan_call(plans, task, SYS_mseal, IMM(vma->start), IMM(vma->end - vma->start), IMM(0));
}

static void install_guards(struct plans *plans, uint32_t task, const image_mm *mm)
{
	plan_note(plans, "guard regions");
	for (u_int i = 0; i < mm->guards.guards_len; i++)
		advise(plans, task, mm->guards.guards_val[i].start, mm->guards.guards_val[i].end,
		       MADV_GUARD_INSTALL);
}

void memory_advise(struct plans *plans, uint32_t task, const image_mm *mm, const bool *inherited,
		   const bool *streamed)
{
	const unsigned said = ~(unsigned)(ADVICE_HUGEPAGE | ADVICE_NOHUGEPAGE | ADVICE_MAY_WRITE);
	collapse_spans(plans, task, mm, inherited, streamed);
	install_guards(plans, task, mm); /* locked memory takes none */
	memory_protection_keys(plans, task, mm);
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		if (vma->kind == VMA_SPECIAL || !(vma->advice & said))
			continue;
		plan_note(plans, "advice about %#lx", (unsigned long)vma->start);
		advise_vma(plans, task, vma);
	}
}
