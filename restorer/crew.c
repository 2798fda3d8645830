/*
 * crew.c - large address spaces are filled by several threads.
 *
 * Nearly all of the time goes into the kernel's clearing and mapping of fresh pages (2 GiB/s on one processor), and
 * faults of one address space go on side by side. So the reads that fill it are laid down as the plan of
 * nobody, in stretches; the process starts helpers, and all of them take stretches until there are none left.
 * A helper that cannot be had only makes it slower. When it is joined it is gone: nothing of it is in the process.
 *
 * Numbers of helpers must be none that a task of the image is still to get. Where numbers are chosen, those of
 * helpers are, too.
 */
#include <stdio.h>
#include <stdlib.h>

#include "restorer/memory.h"
#include "store/scope.h"

#define HELPERS_MAX 15u

static uint64_t count_pages(const struct page_run *runs, size_t n)
{
	uint64_t pages = 0;
	for (size_t i = 0; i < n; i++)
		pages += runs[i].npages;
	return pages;
}

/* A thread that does nothing but help. */
static uint32_t add_helper(struct plans *plans, int number, uint32_t shared, uint32_t stretches)
{
	uint32_t helper = plans_task(plans, number, "thread that helps to fill memory");
	plan_share(plans, helper, shared, stretches);
	plan_call(plans, helper, SYS_exit, IMM(0));
	return helper;
}

int memory_fill_by_crew(struct plans *plans, uint32_t task, const struct memory_source *source, int number,
			const struct page_run *runs, size_t n, struct fsnap_error *err)
{
	unsigned n_helpers = source->helpers < HELPERS_MAX ? source->helpers : HELPERS_MAX;
	if (n_helpers == 0 || count_pages(runs, n) < MEMORY_MUCH)
		return memory_fill(plans, task, source, runs, n, err);
	struct memory_stretches list = { 0 };
	uint32_t shared = plans_task(plans, 0, "content of memory, filled by several threads");
	int result = memory_fill_noting(plans, shared, source, runs, n, &list, err);
	uint32_t stretches = plans_stretches(plans, shared, list.first, (uint32_t)list.n), helper[HELPERS_MAX];
	free(list.first);
	if (result < 0)
		return -1;
	for (unsigned i = 0; i < n_helpers; i++) {
		helper[i] = add_helper(plans, number ? number + (int)i : 0, shared, stretches);
		plan_helper(plans, task, helper[i]);
	}
	plan_share(plans, task, shared, stretches);
	for (unsigned i = 0; i < n_helpers; i++)
		plan_join(plans, task, helper[i]);
	return 0;
}
