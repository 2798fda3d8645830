/*
 * template_hold.c - what of an image's memory a template holds, and where.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "engine/compile.h"
#include "engine/restore.h"
#include "engine/template.h"
#include "store/scope.h"

#define HUGE (2ull << 20)
#define WORTH 16 /* pages: smaller mappings are copied */

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static int no_memory(struct fsnap_error *err)
{
	return fail(err, FSNAP_E_NOMEM, ENOMEM, "a template");
}

/* --- what can be held --------------------------------------------------------------------- */

static bool overlaps_span(const image_span *spans, u_int n, const image_vma *vma)
{
	for (u_int i = 0; i < n; i++)
		if (spans[i].start < vma->end && vma->start < spans[i].end)
			return true;
	return false;
}

static uint64_t pages_in(const struct page_run *runs, size_t n, const image_vma *vma)
{
	uint64_t first = vma->start / STORE_PAGE, end = vma->end / STORE_PAGE, pages = 0;
	for (size_t i = 0; i < n; i++) {
		uint64_t from = runs[i].page > first ? runs[i].page : first;
		uint64_t to = runs[i].page + runs[i].npages < end ? runs[i].page + runs[i].npages : end;
		pages += from < to ? to - from : 0;
	}
	return pages;
}

static bool can_be_held(const image_mm *mm, const image_vma *vma, const struct page_run *runs, size_t n)
{
	const unsigned harmless = ADVICE_HUGEPAGE | ADVICE_DONTDUMP | ADVICE_SEQUENTIAL | ADVICE_RANDOM;
	if (vma->kind != VMA_ANON || (vma->flags & ~(unsigned)MAP_NORESERVE) != MAP_PRIVATE || vma->pkey ||
	    (vma->advice & ~harmless) || vma->end - vma->start < WORTH * STORE_PAGE)
		return false;
	return !overlaps_span(mm->guards.guards_val, mm->guards.guards_len, vma) && pages_in(runs, n, vma) > 0;
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

/* Pages one by one: neighbours in memory need not be neighbours in the image. `by` is added to addresses. */
static void fill(struct fsnap_template *template, const struct page_run *runs, size_t n,
		 const struct memory_range *range, uint64_t by)
{
	uint64_t first = range->start / STORE_PAGE, end = range->end / STORE_PAGE;
	for (size_t i = 0; i < n; i++)
		for (uint64_t page = runs[i].page < first ? first : runs[i].page;
		     page < runs[i].page + runs[i].npages && page < end; page++, template->stored += STORE_PAGE) {
			const void *from = image_page(template->image, runs[i].at + (page - runs[i].page));
			template->damaged |= !from;
			if (from)
				memcpy((void *)(page * STORE_PAGE + by), from, STORE_PAGE);
		}
}

/* Forking copies page tables: a huge page has one entry where small ones have 512. Only what is full. */
static void collapse(const struct page_run *runs, size_t n, const struct memory_range *range, uint64_t by)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t start = runs[i].page * STORE_PAGE, end = start + (uint64_t)runs[i].npages * STORE_PAGE;
		while (i + 1 < n && runs[i + 1].page * STORE_PAGE == end)
			end += (uint64_t)runs[++i].npages * STORE_PAGE;
		start = (start < range->start ? range->start : start) + by + HUGE - 1;
		start -= start % HUGE;
		end = (end > range->end ? range->end : end) + by;
		end -= end % HUGE;
		if (start < end)
			madvise((void *)start, end - start, MADV_COLLAPSE);
	}
}

/* When everything is there, and huge pages are allowed again. */
static void collapse_all(const struct fsnap_template *template, const struct model *model)
{
	for (size_t s = 0; s < template->n_spaces; s++) {
		size_t n;
		const image_mm *mm = &model->mms[s];
		const struct page_run *runs = image_runs(template->image, mm->id, &n);
		for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
			const image_vma *vma = &mm->vmas.vmas_val[i];
			const struct memory_range range = { vma->start, vma->end };
			if (template->spaces[s].at[i])
				collapse(runs, n, &range, template->spaces[s].at[i] - vma->start);
		}
	}
	for (size_t i = 0; i < template->n_areas; i++)
		collapse(template->laid, template->n_laid, &template->areas[i], 0);
}

/* By the system's setting the first page written would bring a huge one, with zeroes that the program has not. */
static bool lay(uint64_t at, size_t size, int flags)
{
	void *got = mmap((void *)at, size, PROT_READ | PROT_WRITE,
			 flags | MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (got != MAP_FAILED && got != (void *)at) /* kernels before 4.17 take it for a hint */
		munmap(got, size);
	return got == (void *)at;
}

/* --- spaces ---------------------------------------------------------------------------------------- */

/* Which mappings; where comes then: `at` is 1 so far. */
static int choose(struct template_space *space, const struct model *model, size_t number, const struct image *image,
		  const struct heirlooms *heirlooms, size_t process, struct fsnap_error *err)
{
	const image_mm *mm = &model->mms[number];
	size_t n;
	const struct page_run *runs = image_runs(image, mm->id, &n);
	space->at = calloc(mm->vmas.vmas_len + 1, sizeof(*space->at));
	space->held = calloc(mm->vmas.vmas_len + 1, sizeof(*space->held));
	if (!space->at || !space->held)
		return no_memory(err);
	for (u_int i = 0; i < mm->vmas.vmas_len; i++)
		space->at[i] = can_be_held(mm, &mm->vmas.vmas_val[i], runs, n) &&
			       !heirlooms_claims(heirlooms, process, i);
	return 0;
}

static void fill_vma(struct fsnap_template *template, struct template_space *space, const image_mm *mm, u_int vma,
		     uint64_t at)
{
	size_t n;
	const struct page_run *runs = image_runs(template->image, mm->id, &n);
	const struct memory_range range = { mm->vmas.vmas_val[vma].start, mm->vmas.vmas_val[vma].end };
	fill(template, runs, n, &range, at - range.start);
	space->at[vma] = at;
	space->held[space->n_held++] = range;
}

static void hold_at_home(struct fsnap_template *template, struct template_space *space, const image_mm *mm)
{
	for (u_int i = 0; i < mm->vmas.vmas_len; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		if (!space->at[i] || !lay(vma->start, vma->end - vma->start, (int)vma->flags & MAP_NORESERVE))
			continue;
		fill_vma(template, space, mm, i, vma->start);
		template->kept[template->n_kept++] = (struct memory_range){ vma->start, vma->end };
		template->bytes += vma->end - vma->start;
	}
}

/* Large ones so that their huge pages stay huge when they are moved; and a gap, or neighbours would be one mapping. */
static uint64_t place_behind(uint64_t at, const image_vma *vma)
{
	bool large = vma->end - vma->start >= HUGE;
	return at + STORE_PAGE + (large ? (vma->start - at - STORE_PAGE) % HUGE : 0);
}

static int hold_in_stash(struct fsnap_template *template, const struct model *model, struct fsnap_error *err)
{
	uint64_t size = 0;
	for (size_t s = 0; s < template->n_spaces; s++)
		for (u_int i = 0; i < model->mms[s].vmas.vmas_len; i++)
			if (template->spaces[s].at[i] == 1)
				size += model->mms[s].vmas.vmas_val[i].end - model->mms[s].vmas.vmas_val[i].start +
					HUGE + STORE_PAGE;
	size_t n_ours;
	cleanup_free struct memory_range *ours = size ? control_own_ranges(&n_ours, err) : NULL;
	if (!ours)
		return size ? -1 : 0;
	uint64_t at = memory_find_hole(model->mms, model->n_mms, ours, n_ours, size);
	template->stash = (struct memory_range){ at, at };
	for (size_t s = 0; s < template->n_spaces; s++)
		for (u_int i = 0; i < model->mms[s].vmas.vmas_len; i++) {
			const image_vma *vma = &model->mms[s].vmas.vmas_val[i];
			struct template_space *space = &template->spaces[s];
			uint64_t to = place_behind(template->stash.end, vma);
			if (space->at[i] != 1)
				continue;
			space->at[i] = 0;
			if (!at || !lay(to, vma->end - vma->start, (int)vma->flags & MAP_NORESERVE))
				continue;
			fill_vma(template, space, &model->mms[s], i, to);
			template->stash.end = to + (vma->end - vma->start);
			template->bytes += vma->end - vma->start;
		}
	if (template->stash.end > template->stash.start)
		template->kept[template->n_kept++] = template->stash;
	else
		template->stash = (struct memory_range){ 0, 0 };
	return 0;
}

/* --- areas ------------------------------------------------------------------------------------------- */

static int hold_areas(struct fsnap_template *template, const struct heirlooms *heirlooms, struct fsnap_error *err)
{
	if (!heirlooms)
		return 0;
	if (heirlooms_made(heirlooms, 0, &template->areas, &template->n_areas, &template->laid, &template->n_laid, err) < 0)
		return -1;
	for (size_t i = 0; i < template->n_areas; i++) {
		const struct memory_range *area = &template->areas[i];
		if (lay(area->start, area->end - area->start, MAP_NORESERVE))
			continue;
		/* All or none: what is where is decided when plans are written. */
		while (i-- > 0)
			munmap((void *)template->areas[i].start, template->areas[i].end - template->areas[i].start);
		template->n_areas = 0;
		return 0;
	}
	for (size_t i = 0; i < template->n_areas; i++) {
		fill(template, template->laid, template->n_laid, &template->areas[i], 0);
		template->bytes += template->areas[i].end - template->areas[i].start;
	}
	return 0;
}

/* --- all ---------------------------------------------------------------------------------------------- */

static size_t process_of(const struct model *model, unsigned mm)
{
	for (size_t i = 0; i < model->n_processes; i++)
		if (!model->processes[i].zombie && model->processes[i].mm == mm)
			return i;
	return 0;
}

static int hold_all(struct fsnap_template *template, const struct model *model, const struct heirlooms *heirlooms,
		    struct fsnap_error *err)
{
	size_t vmas = 0;
	template->spaces = calloc(model->n_mms + 1, sizeof(*template->spaces));
	for (size_t i = 0; i < model->n_mms; i++)
		vmas += model->mms[i].vmas.vmas_len;
	if (hold_areas(template, heirlooms, err) < 0)
		return -1;
	template->kept = calloc(vmas + template->n_areas + 1, sizeof(*template->kept));
	if (!template->spaces || !template->kept)
		return no_memory(err);
	for (; template->n_spaces < model->n_mms; template->n_spaces++) {
		size_t i = template->n_spaces;
		if (choose(&template->spaces[i], model, i, template->image, heirlooms,
			   process_of(model, model->mms[i].id), err) < 0)
			return -1;
	}
	if (model->n_processes == 1)
		hold_at_home(template, &template->spaces[0], &model->mms[0]);
	if (hold_in_stash(template, model, err) < 0)
		return -1;
	if (template->n_areas)
		memcpy(&template->kept[template->n_kept], template->areas, template->n_areas * sizeof(*template->areas));
	return 0;
}

int template_hold(struct fsnap_template *template, const struct model *model, struct fsnap_error *err)
{
	struct heirlooms *heirlooms = NULL;
	if (is_watched(model))
		return 0;
	int disabled = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	int result = family_heirlooms(model, template->image, &heirlooms, err);
	if (result == 0)
		result = hold_all(template, model, heirlooms, err);
	prctl(PR_SET_THP_DISABLE, disabled > 0, 0, 0, 0);
	if (result == 0 && template->damaged)
		result = fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "pages of the image cannot be decoded");
	if (result == 0)
		collapse_all(template, model);
	heirlooms_free(heirlooms);
	return result;
}

void template_let_go(struct fsnap_template *template)
{
	for (size_t i = 0; i < template->n_kept; i++)
		munmap((void *)template->kept[i].start, template->kept[i].end - template->kept[i].start);
	for (size_t i = 0; i < template->n_areas; i++)
		munmap((void *)template->areas[i].start, template->areas[i].end - template->areas[i].start);
	for (size_t i = 0; template->spaces && i < template->n_spaces; i++) {
		free(template->spaces[i].at);
		free(template->spaces[i].held);
	}
	free(template->spaces);
	free(template->kept);
	free(template->areas);
	free(template->laid);
}
