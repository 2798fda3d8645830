/* reader.c - one image, checked from the first byte on before anything in it is believed. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "store/reader.h"
#include "store/scope.h"

/* --- the tables --------------------------------------------------------------------------- */

static int read_tables(struct image *image, struct fsnap_error *err)
{
	const struct layout_slot *slot = &image->own->slot;
	int fd = image->own->fd;
	image->metadata = coded_table(image->own, 0, read_section(fd, &slot->metadata, image->name, "metadata", err),
				      image->name, "metadata", err);
	if (!image->metadata)
		return -1;
	image->runs = coded_table(image->own, 1, read_section(fd, &slot->index, image->name, "page index", err),
				  image->name, "page index", err);
	if (!image->runs)
		return -1;
	image->run_count = slot->index.length / sizeof(struct page_run);
	return 0;
}

static int check_runs(struct image *image, struct fsnap_error *err)
{
	uint64_t bad;
	const char *wrong = layout_check_runs(image->runs, image->run_count, image_page_space(image), &bad);
	if (wrong)
		return layout_corrupt(err, image->name, "entry %" PRIu64 " of its page index %s",
				      bad, wrong);
	return lineage_check_runs(image, err);
}

static int read_records(struct image *image, struct fsnap_error *err)
{
	size_t count;
	if (record_parse(image->metadata, image->own->slot.metadata.length, image->own->slot.records,
			 image->name, &image->records, &count, err) < 0)
		return -1;
	size_t at = 0;
	for (uint32_t kind = 0; kind < KINDS; kind++) {
		while (at < count && image->records[at].kind < kind)
			at++;
		image->first[kind] = at;
	}
	return 0;
}

static int read_all(struct image *image, struct store *store, const char *path, const struct image *known,
		    struct fsnap_error *err)
{
	struct stat st;
	struct store_at at = store_image_at(image->name);
	int fd = image_open_file(path ? AT_FDCWD : store->dir, path ? path : at.path, image->name, &st, err);
	if (fd < 0)
		return -1;
	struct keyring own = { 0 }, *ring = store ? &store->keys : &own;
	image->own = page_file_open(fd, (uint64_t)st.st_size, image->name, &image->trust, ring, err);
	int result = !image->own || read_tables(image, err) < 0 || read_records(image, err) < 0 ||
		     lineage_open(image, store, path, known, ring, err) < 0 ? -1 : check_runs(image, err);
	keyring_free(&own);
	return result;
}

static struct image *open_trusting(struct store *store, const char *name, const struct image *known,
				   const struct trust *trust, struct fsnap_error *err)
{
	char newest[128];
	if (!name) {
		if (store_newest(store, newest, sizeof(newest), err) < 0)
			return NULL;
		name = newest;
	}
	bool is_path = strchr(name, '/') != NULL;
	if (!is_path && store_check_name(name, err) < 0)
		return NULL;

	struct image *image = calloc(1, sizeof(*image));
	if (image)
		image->name = strdup(name);
	if (!image || !image->name) {
		free(image);
		fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s", name);
		return NULL;
	}
	if ((trust ? trust_copy(&image->trust, trust, err) : trust_load(&image->trust, err)) < 0 ||
	    read_all(image, store, is_path ? name : NULL, known, err) < 0) {
		image_close(image);
		return NULL;
	}
	return image;
}

void image_close(struct image *image)
{
	if (!image)
		return;
	lineage_close(image);
	free(image->records);
	free(image->hints);
	free(image->hint_bytes);
	free(image->runs);
	free(image->metadata);
	trust_free(&image->trust);
	free(image->name);
	free(image);
}

struct image *image_open(struct store *store, const char *name, struct fsnap_error *err)
{
	return open_trusting(store, name, NULL, NULL, err);
}

struct image *image_open_beside(struct store *store, const char *name, const struct image *known,
				struct fsnap_error *err)
{
	return open_trusting(store, name, known, NULL, err);
}

struct image *image_open_signed(struct store *store, const char *name, const struct trust *trust,
				struct fsnap_error *err)
{
	return open_trusting(store, name, NULL, trust, err);
}

/* --- what it says ----------------------------------------------------------------------------- */

const char *image_name(const struct image *image)
{
	return image->name;
}

uint64_t image_pages(const struct image *image)
{
	return image->own->slot.pages;
}

uint64_t image_file_bytes(const struct image *image)
{
	return image->own->slot.length;
}

uint64_t image_created_ns(const struct image *image)
{
	return image->own->slot.created_ns;
}

size_t image_count(const struct image *image, uint32_t kind)
{
	return kind + 1 < KINDS ? image->first[kind + 1] - image->first[kind] : 0;
}

int image_get(const struct image *image, uint32_t kind, size_t index, xdrproc_t proc, void *object,
	      struct fsnap_error *err)
{
	if (index >= image_count(image, kind))
		return layout_corrupt(err, image->name,
				      "record %zu of kind %" PRIu32 " is missing", index, kind);
	return record_decode(&image->records[image->first[kind] + index], image->name, proc, object,
			     err);
}

int image_hints(struct image *image, struct fsnap_error *err)
{
	if (image->hints)
		return 0;
	if (!image->hint_bytes)
		image->hint_bytes = coded_table(image->own, 2, read_section(image->own->fd, &image->own->slot.hints,
									    image->name, "hints", err),
						image->name, "hints", err);
	if (!image->hint_bytes)
		return -1;
	return record_parse(image->hint_bytes, image->own->slot.hints.length, image->own->slot.hint_records, image->name,
			    &image->hints, &image->hint_count, err);
}

static size_t first_hint(const struct image *image, uint32_t kind)
{
	size_t at = 0;
	while (at < image->hint_count && image->hints[at].kind < kind)
		at++;
	return at;
}

size_t image_hint_count(const struct image *image, uint32_t kind)
{
	return first_hint(image, kind + 1) - first_hint(image, kind);
}

int image_hint_get(const struct image *image, uint32_t kind, size_t index, xdrproc_t proc, void *object,
		   struct fsnap_error *err)
{
	if (index >= image_hint_count(image, kind))
		return layout_corrupt(err, image->name, "hint %zu of kind %" PRIu32 " is missing", index, kind);
	return record_decode(&image->hints[first_hint(image, kind) + index], image->name, proc, object, err);
}

/* Index of the first run whose space is at least `space`. */
static size_t first_run(const struct image *image, uint64_t space)
{
	size_t low = 0, high = image->run_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (image->runs[middle].space < space)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct page_run *image_runs(const struct image *image, uint32_t space, size_t *count)
{
	size_t first = first_run(image, space);
	*count = first_run(image, (uint64_t)space + 1) - first;
	return *count ? &image->runs[first] : NULL;
}
