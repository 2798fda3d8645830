#include "engine/youth.h"

#include <stdlib.h>
#include <string.h>

#include "engine/chain/chain.h"
#include "engine/dump.h"
#include "restorer/record.h"
#include "store/scope.h"

#define AT_MOST(pages) ((pages) / 2) /* of all that a restore brings: more are no working set */

void youth_note(struct youth *youth, uint64_t at, uint64_t n)
{
	struct young_run *last = youth->n ? &youth->runs[youth->n - 1] : NULL;
	if (last && last->at + last->npages == at) {
		last->npages += n;
		return;
	}
	struct young_run *runs = grow(youth->runs, youth->n, sizeof(*runs), NULL);
	youth->lost = youth->lost || !runs;
	if (!runs)
		return;
	youth->runs = runs;
	runs[youth->n++] = (struct young_run){ at, n };
}

static bool is_chained(const struct dump *dump)
{
	for (size_t i = 0; i < dump->tree.n_processes; i++)
		if (dump->tree.processes[i]->chained && dump->tree.processes[i]->chained->based)
			return true;
	return false;
}

void youth_note_jobs(struct dump *dump)
{
	if (!dump->live && !is_chained(dump))
		return;
	for (size_t i = 0; i < dump->n_jobs; i++)
		youth_note(&dump->youth, dump->jobs[i].at, dump->jobs[i].npages);
}

static int by_place(const void *a, const void *b)
{
	const struct young_run *x = a, *y = b;
	return x->at < y->at ? -1 : x->at > y->at;
}

/* Sorted, each page once, and none of those that were taken back from the end. Returns how many pages. */
static uint64_t settle(struct youth *youth, uint64_t taken)
{
	uint64_t end = 0, pages = 0;
	if (youth->n)
		qsort(youth->runs, youth->n, sizeof(*youth->runs), by_place);
	for (size_t i = 0; i < youth->n; i++) {
		struct young_run *run = &youth->runs[i];
		uint64_t stop = run->at + run->npages < taken ? run->at + run->npages : taken, start = run->at > end ? run->at : end;
		*run = (struct young_run){ start, stop > start ? stop - start : 0 };
		end = stop > end ? stop : end;
		pages += run->npages;
	}
	return pages;
}

static size_t fill(const struct dump *dump, const struct youth *youth, image_young_page *list)
{
	size_t n = 0;
	for (size_t i = 0; i < youth->n; i++)
		for (uint64_t j = 0; j < youth->runs[i].npages; j++) {
			uint64_t at = youth->runs[i].at + j;
			list[n++] = (image_young_page){ at, record_checksum(image_writer_page(dump->writer, at)) };
		}
	return n;
}

/* Speed is all that depends on it: where it cannot be had, there is none. */
void youth_put(struct dump *dump)
{
	uint64_t pages = settle(&dump->youth, image_writer_taken(dump->writer));
	if (!pages || pages > AT_MOST(dump->taken + dump->report->referred_pages) || pages > IMAGE_MANY || dump->youth.lost)
		return;
	cleanup_free image_young_page *list = calloc(pages, sizeof(*list));
	image_young young = { 0 };
	if (!list)
		return;
	image_writer_uuid(dump->writer, (uint8_t *)young.uuid);
	young.pages.pages_val = list;
	young.pages.pages_len = (u_int)fill(dump, &dump->youth, list);
	if (image_writer_put_hint(dump->writer, IMAGE_YOUNG, "young", (xdrproc_t)xdr_image_young, &young, NULL) == 0)
		dump->report->young_pages = pages;
}

void youth_free(struct youth *youth)
{
	free(youth->runs);
	*youth = (struct youth){ 0 };
}

/* --- restore ---------------------------------------------------------------------------------------- */

/* Pages have other places in an image that was made of it (fsnap compact), which has taken its hints along. */
static bool is_about(const image_young *young, const struct image *image)
{
	uint8_t uuid[sizeof(young->uuid)];
	image_uuid(image, uuid);
	return memcmp(uuid, young->uuid, sizeof(uuid)) == 0;
}

static struct record_entry *as_record(const image_young *young, const struct image *image, size_t *n)
{
	cleanup_free struct record_entry *entries = calloc(young->pages.pages_len + 1, sizeof(*entries));
	for (u_int i = 0; entries && i < young->pages.pages_len; i++) {
		const image_young_page *page = &young->pages.pages_val[i];
		uint32_t in;
		if (page->at >= image_pages(image) || (i && page->at <= page[-1].at))
			return NULL;
		uint64_t block = image_block_of(image, page->at, &in);
		entries[(*n)++] = (struct record_entry){ block * STORE_BLOCK_PAGES + in, page->checksum };
	}
	return steal(&entries);
}

struct record_entry *youth_read(struct image *image, size_t *n)
{
	image_young young = { 0 };
	struct record_entry *entries = NULL;
	*n = 0;
	if (image_hints(image, NULL) == 0 && image_hint_count(image, IMAGE_YOUNG) &&
	    image_hint_get(image, IMAGE_YOUNG, 0, (xdrproc_t)xdr_image_young, &young, NULL) == 0 && is_about(&young, image))
		entries = as_record(&young, image, n);
	xdr_free((xdrproc_t)xdr_image_young, (char *)&young);
	if (!entries)
		*n = 0;
	return entries;
}
