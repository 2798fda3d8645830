/*
 * hugepages.c - does the system's pool have the huge pages (hugetlb) an image needs?
 *
 * A mapping reserves its pages when it is made, unless MAP_NORESERVE was said; content
 * takes them in any case.  Without this a restore would stop in its midst with ENOMEM,
 * or the program die of SIGBUS later.
 */
#include "engine/hugepages.h"

#include <fcntl.h>
#include <linux/mman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/kinds/kinds.h"
#include "engine/procfs.h"
#include "store/scope.h"

#define SIZES 8 /* the kernel's HUGE_MAX_HSTATE is 2 on x86-64 */

struct needs {
	uint64_t page[SIZES], pages[SIZES];
	size_t n;
};

static void need(struct needs *needs, uint64_t page, uint64_t pages)
{
	size_t i = 0;
	while (i < needs->n && needs->page[i] != page)
		i++;
	if (i == SIZES)
		return;
	if (i == needs->n)
		needs->page[needs->n++] = page;
	needs->pages[i] += pages;
}

/* How many huge pages the stored pages of [start, end) make. */
static uint64_t stored(const struct image *image, unsigned space, uint64_t start, uint64_t end, uint64_t page)
{
	size_t n;
	const struct page_run *runs = image_runs(image, space, &n);
	uint64_t count = 0, next = start / page;
	for (size_t i = 0; i < n; i++) {
		uint64_t first = runs[i].page * STORE_PAGE, last = first + (uint64_t)runs[i].npages * STORE_PAGE;
		if (last <= start || first >= end)
			continue;
		uint64_t from = first / page > next ? first / page : next;
		uint64_t to = ((last < end ? last : end) + page - 1) / page;
		count += to > from ? to - from : 0;
		next = to > next ? to : next;
	}
	return count;
}

/* Which of a file's pages are needed: what it holds, and what is mapped of it with a reservation. */
static void mark(bool *wanted, uint64_t count, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to && i < count; i++)
		wanted[i] = true;
}

static bool maps_ghost(const struct model *model, const image_vma *vma, unsigned ghost)
{
	if (vma->kind == VMA_SHARED)
		return vma->object == ghost;
	return vma->kind == VMA_FILE && (vma->flags & MAP_SHARED) &&
	       model->mapped[vma->object - 1].identity.ghost == ghost;
}

static int need_ghost(struct needs *needs, const struct model *model, const struct image *image,
		      const image_ghost *ghost, struct fsnap_error *err)
{
	uint64_t count = ghost->size / ghost->huge;
	cleanup_free bool *wanted = calloc(count + 1, sizeof(*wanted));
	if (!wanted)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "huge pages of the image");
	size_t n;
	const struct page_run *runs = image_runs(image, ghost->id, &n);
	for (size_t i = 0; i < n; i++)
		mark(wanted, count, runs[i].page * STORE_PAGE / ghost->huge,
		     ((runs[i].page + runs[i].npages) * STORE_PAGE + ghost->huge - 1) / ghost->huge);
	for (size_t i = 0; i < model->n_mms; i++)
		for (u_int j = 0; j < model->mms[i].vmas.vmas_len; j++) {
			const image_vma *vma = &model->mms[i].vmas.vmas_val[j];
			if (vma->flags & MAP_HUGETLB && !(vma->flags & MAP_NORESERVE) &&
			    maps_ghost(model, vma, ghost->id))
				mark(wanted, count, vma->offset / ghost->huge,
				     (vma->offset + vma->end - vma->start) / ghost->huge);
		}
	uint64_t pages = 0;
	for (uint64_t i = 0; i < count; i++)
		pages += wanted[i];
	need(needs, ghost->huge, pages);
	return 0;
}

/* Private memory of each process; pages that several share copy-on-write count for each, as they do when one
 * of them writes. */
static void need_private(struct needs *needs, const struct image *image, const image_mm *mm)
{
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		uint64_t page = 1ull << (vma->flags >> MAP_HUGE_SHIFT & MAP_HUGE_MASK);
		if (!(vma->flags & MAP_HUGETLB) || vma->flags & MAP_SHARED || page < STORE_PAGE)
			continue;
		need(needs, page, vma->flags & MAP_NORESERVE ? stored(image, mm->id, vma->start, vma->end, page) :
							       (vma->end - vma->start) / page);
	}
}

static int64_t pool(uint64_t page, const char *what)
{
	char path[128];
	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/%s",
		 (unsigned long long)page / 1024, what);
	cleanup_free char *text = procfs_read_once(AT_FDCWD, path, NULL, NULL);
	return text ? strtoll(text, NULL, 10) : 0;
}

/* Not promised to anybody yet, and what the kernel would add by itself. */
static int64_t available(uint64_t page)
{
	int64_t more = pool(page, "nr_overcommit_hugepages") - pool(page, "surplus_hugepages");
	return pool(page, "free_hugepages") - pool(page, "resv_hugepages") + (more > 0 ? more : 0);
}

int hugepages_check(const struct model *model, const struct image *image, struct fsnap_error *err)
{
	struct needs needs = { .n = 0 };
	for (size_t i = 0; i < model->n_mms; i++)
		need_private(&needs, image, &model->mms[i]);
	for (size_t i = 0; i < model->n_ghosts; i++)
		if (model->ghosts[i].huge && model->ghosts[i].kind != GHOST_SYSV /* it may be there still */ &&
		    need_ghost(&needs, model, image, &model->ghosts[i], err) < 0)
			return -1;
	for (size_t i = 0; i < needs.n; i++) {
		int64_t have = available(needs.page[i]), missing = (int64_t)needs.pages[i] - have;
		if (missing <= 0)
			continue;
		unsigned long long kib = needs.page[i] / 1024;
		fail(err, FSNAP_E_KERNEL_LACKS, 0,
		     "the program has %llu huge pages of %llu kB, and the system has %lld left to give",
		     (unsigned long long)needs.pages[i], kib, (long long)have);
		if (kib == 2048)
			return error_hint(err, "raise /proc/sys/vm/nr_hugepages by %lld (it is %lld now)",
					  (long long)missing, (long long)pool(needs.page[i], "nr_hugepages"));
		return error_hint(err, "raise /sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages by %lld", kib,
				  (long long)missing);
	}
	return 0;
}
