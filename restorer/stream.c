#include "restorer/stream.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "restorer/pager.h"
#include "store/scope.h"

#define LITTLE 2048u /* pages: less is brought by the plan, which costs a few milliseconds */

/* What would show, were it to come later: pages that fork is to wipe (the child's userfaultfd would bring them
 * back), locked ones (mlock(2) has them in memory), stacks that grow. */
static bool may_stream(const image_vma *vma)
{
	const unsigned flags = MAP_SHARED | MAP_GROWSDOWN | MAP_HUGETLB;
	return vma->kind == VMA_ANON && (vma->flags & MAP_PRIVATE) && !(vma->flags & flags) &&
	       !(vma->advice & (ADVICE_LOCKED | ADVICE_WIPEONFORK));
}

/* Pages of runs in each mapping; both are sorted by address, and a run may cross from one into the next. */
static void count_pages(const image_mm *mm, const struct page_run *runs, size_t n, uint64_t *pages)
{
	u_int vma = 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t at = runs[i].page, end = runs[i].page + runs[i].npages;
		while (vma < mm->vmas.vmas_len && mm->vmas.vmas_val[vma].end / STORE_PAGE <= at)
			vma++;
		for (u_int j = vma; at < end && j < mm->vmas.vmas_len; j++) {
			uint64_t start = mm->vmas.vmas_val[j].start / STORE_PAGE;
			uint64_t stop = mm->vmas.vmas_val[j].end / STORE_PAGE;
			at = start > at ? start : at;
			uint64_t to = stop < end ? stop : end;
			pages[j] += to > at ? to - at : 0;
			at = to > at ? to : at;
		}
	}
}

/* Small mappings are not worth an operation each; as long as there are not too many of them. */
static bool choose_mappings(struct stream *stream, const image_mm *mm, const bool *inherited, const uint64_t *pages,
			    bool all)
{
	static const uint64_t worth[] = { 64, 8, 1 };
	bool any = false;
	for (size_t i = all ? 2 : 0; i < sizeof(worth) / sizeof(worth[0]); i++) {
		uint64_t small = 0;
		for (u_int j = 0; j < mm->vmas.vmas_len; j++) {
			bool may = may_stream(&mm->vmas.vmas_val[j]) && !(inherited && inherited[j]);
			stream->vma[j] = may && pages[j] >= worth[i];
			small += may && !stream->vma[j] ? pages[j] : 0;
			any |= stream->vma[j];
		}
		if (small < LITTLE)
			break;
	}
	return any;
}

/* --- cutting runs ------------------------------------------------------------------------------ */

static int by_number(const void *a, const void *b)
{
	uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;
	return one < other ? -1 : one > other;
}

/* Adds pages [page, end) of a run, joined to what it follows. */
static void take(struct page_run *list, size_t *n, const struct page_run *run, uint64_t page, uint64_t end)
{
	struct page_run *last = *n ? &list[*n - 1] : NULL;
	uint64_t at = run->at + (page - run->page);
	if (page >= end)
		return;
	if (last && last->page + last->npages == page && last->at + last->npages == at)
		last->npages += (uint32_t)(end - page);
	else
		list[(*n)++] = (struct page_run){ .page = page, .at = at, .npages = (uint32_t)(end - page),
						  .space = run->space };
}

static size_t first_from(const uint64_t *sorted, size_t n, uint64_t value)
{
	size_t low = 0, high = n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (sorted[middle] < value)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Of a piece that lies in a mapping that is streamed, the touched pages come now. */
static void take_streamed(struct stream *stream, const struct page_run *run, uint64_t page, uint64_t end,
			  const uint64_t *touched, size_t n_touched)
{
	for (size_t i = first_from(touched, n_touched, page); i < n_touched && touched[i] < end; i++) {
		take(stream->later, &stream->n_later, run, page, touched[i]);
		take(stream->first, &stream->n_first, run, touched[i], touched[i] + 1);
		page = touched[i] + 1;
	}
	take(stream->later, &stream->n_later, run, page, end);
}

static void divide(struct stream *stream, const image_mm *mm, const struct page_run *runs, size_t n,
		   const uint64_t *touched, size_t n_touched)
{
	u_int vma = 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t at = runs[i].page, end = runs[i].page + runs[i].npages;
		while (vma < mm->vmas.vmas_len && mm->vmas.vmas_val[vma].end / STORE_PAGE <= at)
			vma++;
		for (u_int j = vma; at < end; j++) {
			bool inside = j < mm->vmas.vmas_len && mm->vmas.vmas_val[j].start / STORE_PAGE <= at;
			uint64_t border = j == mm->vmas.vmas_len ? end :
					  inside ? mm->vmas.vmas_val[j].end / STORE_PAGE :
						   mm->vmas.vmas_val[j].start / STORE_PAGE;
			border = border < end ? border : end;
			if (inside && stream->vma[j])
				take_streamed(stream, &runs[i], at, border, touched, n_touched);
			else
				take(stream->now, &stream->n_now, &runs[i], at, border);
			at = border;
			j -= !inside && j < mm->vmas.vmas_len; /* now we are at its start */
		}
	}
}

/* Page numbers, sorted, each once. */
static size_t pages_of(const uint64_t *addresses, size_t n, uint64_t *pages)
{
	size_t kept = 0;
	for (size_t i = 0; i < n; i++)
		pages[i] = addresses[i] / STORE_PAGE;
	qsort(pages, n, sizeof(*pages), by_number);
	for (size_t i = 0; i < n; i++)
		if (kept == 0 || pages[kept - 1] != pages[i])
			pages[kept++] = pages[i];
	return kept;
}

/* Parts of it that were in huge pages. */
static int note_huge(struct stream *stream, const image_mm *mm)
{
	stream->huge = malloc((mm->huge.huge_len + mm->vmas.vmas_len + 1) * sizeof(*stream->huge));
	u_int i = 0, span = 0;
	while (stream->huge && i < mm->vmas.vmas_len && span < mm->huge.huge_len) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		const image_span *huge = &mm->huge.huge_val[span];
		uint64_t start = vma->start > huge->start ? vma->start : huge->start;
		uint64_t end = vma->end < huge->end ? vma->end : huge->end;
		if (start < end && stream->vma[i])
			stream->huge[stream->n_huge++] = (struct memory_range){ start, end };
		if (vma->end < huge->end)
			i++;
		else
			span++;
	}
	return stream->huge ? 0 : -1;
}

int stream_choose(struct stream *stream, const image_mm *mm, const struct page_run *runs, size_t n,
		  const bool *inherited, bool all, const uint64_t *addresses, size_t n_addresses,
		  struct fsnap_error *err)
{
	size_t n_vmas = mm->vmas.vmas_len;
	*stream = (struct stream){ .vma = calloc(n_vmas + 1, sizeof(bool)) };
	cleanup_free uint64_t *pages = calloc(n_vmas + 1, sizeof(*pages));
	cleanup_free uint64_t *touched = malloc((n_addresses + 1) * sizeof(*touched));
	if (!stream->vma || !pages || !touched)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plan of a restore");
	count_pages(mm, runs, n, pages);
	if (!choose_mappings(stream, mm, inherited, pages, all))
		return 0;
	size_t n_touched = pages_of(addresses, n_addresses, touched), most = n + 2 * n_touched + 2 * n_vmas + 1;
	stream->now = malloc(most * sizeof(*runs));
	stream->first = malloc(most * sizeof(*runs));
	stream->later = malloc(most * sizeof(*runs));
	if (!stream->now || !stream->first || !stream->later || note_huge(stream, mm) < 0)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plan of a restore");
	divide(stream, mm, runs, n, touched, n_touched);
	for (size_t i = 0; i < stream->n_later; i++)
		stream->pages += stream->later[i].npages;
	return 0;
}

void stream_free(struct stream *stream)
{
	free(stream->vma);
	free(stream->now);
	free(stream->first);
	free(stream->later);
	free(stream->huge);
	*stream = (struct stream){ 0 };
}

/* --- operations ------------------------------------------------------------------------------------ */

static void control(struct plans *plans, uint32_t task, int fd, unsigned long request, const void *argument,
		    size_t size)
{
	plan_call(plans, task, SYS_ioctl, IMM(fd), IMM(request), DATA(plans_data(plans, argument, size, 8)));
}

void stream_watch(struct plans *plans, uint32_t task, const image_mm *mm, const struct stream *stream, int seat)
{
	struct uffdio_api api = { .api = UFFD_API, .features = pager_features() };
	plan_note(plans, "memory that comes later");
	plan_call(plans, task, SYS_userfaultfd, IMM(O_CLOEXEC | O_NONBLOCK));
	uint32_t fd = plan_result(plans);
	plan_call(plans, task, SYS_dup3, SLOT(fd), IMM(seat), IMM(O_CLOEXEC));
	plan_call(plans, task, SYS_close, SLOT(fd));
	control(plans, task, seat, UFFDIO_API, &api, sizeof(api));
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		struct uffdio_register watch = { .range = { vma->start, vma->end - vma->start },
						 .mode = UFFDIO_REGISTER_MODE_MISSING };
		if (stream->vma[i])
			control(plans, task, seat, UFFDIO_REGISTER, &watch, sizeof(watch));
	}
}
