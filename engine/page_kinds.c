#include "engine/page_kinds.h"

#include <sys/mman.h>

static uint64_t *counter_of(struct fsnap_page_kinds *kinds, const image_vma *vma)
{
	if (vma->flags & MAP_HUGETLB)
		return &kinds->hugetlb;
	return vma->kind == VMA_FILE ? &kinds->private_file : &kinds->anonymous;
}

/* The first mapping that reaches beyond `at`. */
static u_int find_vma(const image_mm *mm, uint64_t at)
{
	u_int low = 0, high = mm->vmas.vmas_len;
	while (low < high) {
		u_int middle = (low + high) / 2;
		if (mm->vmas.vmas_val[middle].end <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static uint64_t overlap(uint64_t start, uint64_t end, uint64_t from, uint64_t to)
{
	uint64_t first = start > from ? start : from, last = end < to ? end : to;
	return first < last ? (last - first) / STORE_PAGE : 0;
}

static u_int find_huge(const image_mm *mm, uint64_t at)
{
	u_int low = 0, high = mm->huge.huge_len;
	while (low < high) {
		u_int middle = (low + high) / 2;
		if (mm->huge.huge_val[middle].end <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void page_kinds_add(struct fsnap_page_kinds *kinds, const image_mm *mm, const struct page_run *runs, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t start = runs[i].page * STORE_PAGE, end = start + (uint64_t)runs[i].npages * STORE_PAGE;
		const image_vma *vmas = mm->vmas.vmas_val;
		const image_span *huge = mm->huge.huge_val;
		for (u_int j = find_vma(mm, start); j < mm->vmas.vmas_len && vmas[j].start < end; j++)
			*counter_of(kinds, &vmas[j]) += overlap(start, end, vmas[j].start, vmas[j].end);
		for (u_int j = find_huge(mm, start); j < mm->huge.huge_len && huge[j].start < end; j++)
			kinds->huge += overlap(start, end, huge[j].start, huge[j].end);
	}
}

void page_kinds_add_ghost(struct fsnap_page_kinds *kinds, const image_ghost *ghost, const struct page_run *runs,
			  size_t n)
{
	for (size_t i = 0; i < n; i++)
		*(ghost->huge ? &kinds->hugetlb : &kinds->shared_memory) += runs[i].npages;
}
