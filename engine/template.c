#include "engine/template.h"

#include <stdlib.h>
#include <string.h>

#include "engine/restore.h"
#include "store/scope.h"

/* --- copies --------------------------------------------------------------------------------------- */

bool template_offer(const struct fsnap_template *template, struct heirlooms *heirlooms, struct memory_source *source)
{
	if (!template)
		return false;
	bool present = heirlooms && heirlooms_present(heirlooms, 0, template->areas, template->n_areas, template->laid,
						      template->n_laid);
	source->held = template->kept;
	source->n_held = template->n_kept + (present ? template->n_areas : 0);
	return present;
}

size_t template_list_rest(struct page_run *list, const struct page_run *runs, size_t n, const struct memory_range *ranges,
			  size_t n_ranges)
{
	size_t count = 0;
	for (size_t i = 0, r = 0; i < n; i++) {
		struct page_run rest = runs[i];
		while (r < n_ranges && ranges[r].end <= rest.page * STORE_PAGE)
			r++;
		for (size_t k = r; rest.npages; k++) {
			bool none = k == n_ranges;
			uint64_t from = none ? ~0ull : ranges[k].start / STORE_PAGE;
			uint64_t to = none ? ~0ull : ranges[k].end / STORE_PAGE;
			uint64_t end = rest.page + rest.npages;
			uint64_t before = from > rest.page ? (from < end ? from : end) - rest.page : 0;
			if (before) {
				list[count] = rest;
				list[count++].npages = (uint32_t)before;
			}
			uint64_t done = to < end ? to : end;
			if (from >= end)
				break;
			rest.at += done - rest.page;
			rest.npages = (uint32_t)(end - done);
			rest.page = done;
		}
	}
	return count;
}

void template_part_free(struct template_part *own)
{
	free(own->inherited);
	free(own->from);
	free(own->runs);
}

/* All that the keeper has built is there, as it is to be. */
static int settled_part(const struct keeper *keeper, const struct image *image, const image_mm *mm,
			struct memory_part *part, struct template_part *own, struct fsnap_error *err)
{
	size_t n;
	const struct page_run *runs = image_runs(image, mm->id, &n);
	own->runs = calloc(n + 2 * keeper->n_ranges + 1, sizeof(*own->runs));
	if (!own->runs)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plans");
	*part = (struct memory_part){ .inherited = keeper->built, .settled = true, .runs = own->runs };
	part->n_runs = template_list_rest(own->runs, runs, n, keeper->ranges, keeper->n_ranges);
	return 0;
}

int template_part(const struct fsnap_template *template, const struct keeper *keeper, const struct image *image,
		  size_t number, const image_mm *mm, struct memory_part *part, struct template_part *own,
		  struct fsnap_error *err)
{
	*own = (struct template_part){ 0 };
	if (keeper && keeper->built)
		return settled_part(keeper, image, mm, part, own, err);
	if (!template || number >= template->n_spaces)
		return 0;
	const struct template_space *space = &template->spaces[number];
	u_int vmas = mm->vmas.vmas_len;
	size_t n = part->n_runs, n_held = 0;
	const struct page_run *runs = part->inherited ? part->runs : image_runs(image, mm->id, &n);
	part->leftover = template->stash;
	if (!space->n_held)
		return 0;
	cleanup_free struct memory_range *held = calloc(vmas + 1, sizeof(*held));
	own->inherited = calloc(vmas + 1, sizeof(*own->inherited));
	own->from = calloc(vmas + 1, sizeof(*own->from));
	own->runs = calloc(n + 2 * space->n_held + 1, sizeof(*own->runs));
	if (!held || !own->inherited || !own->from || !own->runs)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "plans");
	for (u_int i = 0; i < vmas; i++) {
		const image_vma *vma = &mm->vmas.vmas_val[i];
		bool there = part->inherited && part->inherited[i];
		own->inherited[i] = there || space->at[i];
		if (there || !space->at[i])
			continue;
		own->from[i] = space->at[i] == vma->start ? 0 : space->at[i];
		held[n_held++] = (struct memory_range){ vma->start, vma->end };
	}
	part->n_runs = template_list_rest(own->runs, runs, n, held, n_held);
	part->runs = own->runs;
	part->inherited = own->inherited;
	part->from = own->from;
	return 0;
}

/* --- the calls -------------------------------------------------------------------------------- */

int fsnap_template_open(const char *store, const char *image, struct fsnap_template **out, struct fsnap_error *err)
{
	char directory[4096];
	struct model model = { 0 };
	struct fsnap_error ignored = { 0 };
	err = err ? err : &ignored;
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
		result = image_prepare(template->image, 0, image_blocks(template->image), err);
	if (result == 0)
		result = image_verify_blocks(template->image, 0, image_blocks(template->image), err);
	if (result == 0)
		result = template_hold(template, &model, err);
	if (result == 0)
		restore_keep(template);
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
	keeper_end(template->keeper);
	template_let_go(template);
	image_close(template->image);
	store_close(template->store);
	free(template);
}

uint64_t fsnap_template_bytes(const struct fsnap_template *template)
{
	return template->bytes;
}

const char *fsnap_template_image(const struct fsnap_template *template)
{
	return image_name(template->image);
}
