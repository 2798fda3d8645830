/*
 * image_memory.c - the memory of a process that lies in an image.
 *
 * A page is where the page index says.  One that the index does not know was
 * never written: it is a page of the mapped file as it is on disk, of the kernel
 * (the vDSO, which the image has in its record of the machine), or zeroes.
 */
#include <string.h>

#include "engine/inspect/view.h"

/* The first run of a space that ends behind `page`, NULL where there is none. */
static const struct page_run *run_from(const struct tree_view *view, unsigned space, uint64_t page)
{
	size_t count, low = 0;
	const struct page_run *runs = image_runs(view->image, space, &count);
	size_t high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (runs[middle].page + runs[middle].npages <= page)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count ? &runs[low] : NULL;
}

/* The stored page of a space, NULL where there is none. */
static const char *stored_page(const struct tree_view *view, unsigned space, uint64_t page)
{
	const struct page_run *run = run_from(view, space, page);

	if (!run || run->page > page)
		return NULL;
	return image_page(view->image, run->at + (page - run->page));
}

static size_t to_end_of_page(uint64_t offset, size_t n)
{
	size_t room = STORE_PAGE - (size_t)(offset % STORE_PAGE);

	return n < room ? n : room;
}

size_t image_space_read(const struct tree_view *view, unsigned space, uint64_t offset, void *to,
			size_t n)
{
	for (size_t done = 0; done < n;) {
		uint64_t at = offset + done;
		size_t part = to_end_of_page(at, n - done);
		const char *page = stored_page(view, space, at / STORE_PAGE);

		if (page)
			memcpy((char *)to + done, page + at % STORE_PAGE, part);
		else
			memset((char *)to + done, 0, part);
		done += part;
	}
	return n;
}

static size_t read_vdso(const struct tree_view *view, const image_vma *vma, uint64_t offset,
			void *to, size_t n)
{
	uint64_t size = view->machine.vdso.vdso_len;

	if (strcmp(vma->name, "[vdso]") || offset > size || n > size - offset)
		return 0;
	memcpy(to, view->machine.vdso.vdso_val + offset, n);
	return n;
}

/* What was never written, of one page at most. */
static size_t read_behind(struct process_view *process, const image_vma *vma, uint64_t address,
			  void *to, size_t n)
{
	uint64_t offset = address - vma->start;
	struct mapped_view *mapped;

	switch (vma->kind) {
	case VMA_FILE:
		mapped = view_mapped(process->tree, vma->object);
		return mapped ? view_read_mapped(process->tree, mapped, vma->offset + offset, to, n) :
				0;
	case VMA_SHARED:
	case VMA_SYSV:
		return image_space_read(process->tree, vma->object, vma->offset + offset, to, n);
	case VMA_SPECIAL:
		return read_vdso(process->tree, vma, offset, to, n);
	default:
		memset(to, 0, n);
		return n;
	}
}

size_t image_memory_read(struct process_view *process, uint64_t address, void *to, size_t n)
{
	size_t done = 0;

	while (done < n) {
		uint64_t at = address + done;
		size_t part = to_end_of_page(at, n - done);
		const image_vma *vma = view_vma(process, at);
		size_t got = part;

		if (!vma)
			break;
		const char *page = stored_page(process->tree, process->mm.id, at / STORE_PAGE);
		if (page)
			memcpy((char *)to + done, page + at % STORE_PAGE, part);
		else
			got = read_behind(process, vma, at, (char *)to + done, part);
		done += got;
		if (got < part)
			break;
	}
	return done;
}

/* --- what is stored ----------------------------------------------------------- */

/* The space whose pages show where the process has none of its own; 0: a file, or zeroes. */
static unsigned space_behind(const struct process_view *process, const image_vma *vma)
{
	const struct mapped_view *mapped;

	switch (vma->kind) {
	case VMA_SHARED:
	case VMA_SYSV:
		return vma->object;
	case VMA_FILE:
		mapped = view_mapped(process->tree, vma->object);
		return mapped ? mapped->mapped.identity.ghost : 0;
	default:
		return 0;
	}
}

/* Addresses in [from, end) that a space stores, its page of `from` being `page`. */
static bool stored_from(const struct tree_view *view, unsigned space, uint64_t page, uint64_t from,
			uint64_t end, image_span *span)
{
	const struct page_run *run = space ? run_from(view, space, page) : NULL;
	uint64_t room = (end - from) / STORE_PAGE;

	if (!run || (run->page > page && run->page - page >= room))
		return false;
	uint64_t first = run->page > page ? run->page - page : 0;
	uint64_t last = run->page + run->npages - page;
	span->start = from + first * STORE_PAGE;
	span->end = from + (last < room ? last : room) * STORE_PAGE;
	return true;
}

bool image_memory_stored(const struct process_view *process, const image_vma *vma, uint64_t from,
			 image_span *span)
{
	image_span behind;
	uint64_t page = (vma->offset + (from - vma->start)) / STORE_PAGE;
	bool own = stored_from(process->tree, process->mm.id, from / STORE_PAGE, from, vma->end, span);

	if (!stored_from(process->tree, space_behind(process, vma), page, from, vma->end, &behind))
		return own;
	if (!own || behind.start < span->start)
		*span = behind;
	return true;
}
