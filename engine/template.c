#include "engine/template.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "engine/model.h"
#include "store/scope.h"

#define HUGE (2ull << 20)
#define WORTH 16 /* pages: smaller mappings are copied */

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* --- what can be held --------------------------------------------------------------------- */

static bool overlaps_span(const image_span *spans, u_int n, const image_vma *vma)
{
	for (u_int i = 0; i < n; i++)
		if (spans[i].start < vma->end && vma->start < spans[i].end)
			return true;
	return false;
}

static bool can_be_held(const image_mm *mm, const image_vma *vma)
{
	const unsigned harmless = ADVICE_HUGEPAGE | ADVICE_DONTDUMP | ADVICE_SEQUENTIAL | ADVICE_RANDOM;
	if (vma->kind != VMA_ANON || (vma->flags & ~(unsigned)MAP_NORESERVE) != MAP_PRIVATE || vma->pkey ||
	    (vma->advice & ~harmless) || vma->end - vma->start < WORTH * STORE_PAGE)
		return false;
	return !overlaps_span(mm->guards.guards_val, mm->guards.guards_len, vma);
}

/* Memory that a userfaultfd watches must be where it was put, and nobody else's. */
static bool is_watched(const struct model *model)
{
	for (size_t i = 0; i < model->n_files; i++)
		if (strcmp(model->files[i].kind, "userfaultfd") == 0)
			return true;
	return false;
}

/* --- holding it --------------------------------------------------------------------------------- */

/* Pages one by one: neighbours in memory need not be neighbours in the image. */
static uint64_t fill(const struct fsnap_template *template, const struct page_run *runs, size_t n, const image_vma *vma)
{
	uint64_t first = vma->start / STORE_PAGE, end = vma->end / STORE_PAGE, filled = 0;
	for (size_t i = 0; i < n; i++)
		for (uint64_t page = runs[i].page < first ? first : runs[i].page;
		     page < runs[i].page + runs[i].npages && page < end; page++, filled++)
			memcpy((void *)(page * STORE_PAGE),
			       image_page(template->image, runs[i].at + (page - runs[i].page)), STORE_PAGE);
	return filled;
}

/* Forking copies page tables: a huge page has one entry where small ones have 512. Only what is full. */
static void collapse(const struct page_run *runs, size_t n, const image_vma *vma)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t start = runs[i].page * STORE_PAGE, end = start + (uint64_t)runs[i].npages * STORE_PAGE;
		while (i + 1 < n && runs[i + 1].page * STORE_PAGE == end)
			end += (uint64_t)runs[++i].npages * STORE_PAGE;
		start = (start < vma->start ? vma->start : start) + HUGE - 1;
		start -= start % HUGE;
		end = end > vma->end ? vma->end : end;
		end -= end % HUGE;
		if (start < end)
			madvise((void *)start, end - start, MADV_COLLAPSE);
	}
}

static void hold(struct fsnap_template *template, const image_mm *mm, u_int index, const struct page_run *runs, size_t n)
{
	const image_vma *vma = &mm->vmas.vmas_val[index];
	size_t size = vma->end - vma->start;
	void *at = mmap((void *)vma->start, size, PROT_READ | PROT_WRITE,
			(int)vma->flags | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (at == MAP_FAILED)
		return;
	if (at != (void *)vma->start || fill(template, runs, n, vma) == 0) {
		munmap(at, size);
		return;
	}
	template->ranges[template->n_ranges++] = (struct memory_range){ vma->start, vma->end };
	template->inherited[index] = true;
	template->bytes += size;
}

/* Runs of what is not held; a run may begin or end within a mapping that is. */
static int list_rest(struct fsnap_template *template, const struct page_run *runs, size_t n, struct fsnap_error *err)
{
	template->runs = calloc(n + 2 * template->n_ranges + 1, sizeof(*runs));
	if (!template->runs)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "a template");
	for (size_t i = 0, r = 0; i < n; i++) {
		struct page_run rest = runs[i];
		while (r < template->n_ranges && template->ranges[r].end <= rest.page * STORE_PAGE)
			r++;
		for (size_t k = r; rest.npages; k++) {
			bool none = k == template->n_ranges;
			uint64_t from = none ? ~0ull : template->ranges[k].start / STORE_PAGE;
			uint64_t to = none ? ~0ull : template->ranges[k].end / STORE_PAGE;
			uint64_t end = rest.page + rest.npages;
			uint64_t before = from > rest.page ? (from < end ? from : end) - rest.page : 0;
			if (before) {
				struct page_run part = rest;
				part.npages = (uint32_t)before;
				template->runs[template->n_runs++] = part;
			}
			uint64_t done = to < end ? to : end;
			if (from >= end)
				break;
			rest.at += done - rest.page;
			rest.npages = (uint32_t)(end - done);
			rest.page = done;
		}
	}
	return 0;
}

static int hold_all(struct fsnap_template *template, const struct model *model, struct fsnap_error *err)
{
	const image_mm *mm = &model->mms[0];
	if (model->n_processes != 1 || model->n_mms != 1 || is_watched(model))
		return 0;
	size_t n;
	const struct page_run *runs = image_runs(template->image, mm->id, &n);
	template->ranges = calloc(mm->vmas.vmas_len + 1, sizeof(*template->ranges));
	template->inherited = calloc(mm->vmas.vmas_len + 1, sizeof(*template->inherited));
	if (!template->ranges || !template->inherited)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "a template");
	int disabled = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	for (u_int i = 0; i < mm->vmas.vmas_len; i++)
		if (can_be_held(mm, &mm->vmas.vmas_val[i]))
			hold(template, mm, i, runs, n);
	prctl(PR_SET_THP_DISABLE, disabled > 0, 0, 0, 0);
	for (size_t i = 0; i < template->n_ranges; i++) {
		image_vma whole = { .start = template->ranges[i].start, .end = template->ranges[i].end };
		collapse(runs, n, &whole);
	}
	return list_rest(template, runs, n, err);
}

struct memory_part template_part(const struct fsnap_template *template)
{
	if (!template || !template->n_ranges)
		return (struct memory_part){ 0 };
	return (struct memory_part){ .inherited = template->inherited, .runs = template->runs,
				     .n_runs = template->n_runs };
}

/* --- the calls -------------------------------------------------------------------------------- */

int fsnap_template_open(const char *store, const char *image, struct fsnap_template **out, struct fsnap_error *err)
{
	char directory[4096];
	struct model model = { 0 };
	*out = NULL;
	struct fsnap_template *template = calloc(1, sizeof(*template));
	if (!template)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "a template");
	int result = store ? 0 : fsnap_default_store(directory, sizeof(directory), err);
	if (result == 0)
		template->store = store_open(store ? store : directory, STORE_READ, err);
	if (template->store)
		template->image = image_open(template->store, image, err);
	result = template->image && model_load(&model, template->image, err) == 0 ? 0 : -1;
	if (result == 0)
		result = image_verify_blocks(template->image, 0, image_blocks(template->image), err);
	if (result == 0)
		result = hold_all(template, &model, err);
	model_free(&model);
	if (result < 0)
		fsnap_template_close(template);
	else
		*out = template;
	return result;
}

void fsnap_template_close(struct fsnap_template *template)
{
	if (!template)
		return;
	for (size_t i = 0; i < template->n_ranges; i++)
		munmap((void *)template->ranges[i].start, template->ranges[i].end - template->ranges[i].start);
	free(template->ranges);
	free(template->inherited);
	free(template->runs);
	image_close(template->image);
	store_close(template->store);
	free(template);
}

uint64_t fsnap_template_bytes(const struct fsnap_template *template)
{
	return template->bytes;
}
