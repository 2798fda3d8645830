/*
 * lineage.c - the other images whose pages an image refers to: found, and checked to be what they were.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "store/reader.h"
#include "store/scope.h"

/* --- finding an ancestor -------------------------------------------------------------------- */

static struct store_at ancestor_at(const char *dir, const uint8_t *uuid)
{
	struct store_at at;
	char hex[33];
	for (int i = 0; i < 16; i++)
		snprintf(hex + 2 * i, 3, "%02x", uuid[i]);
	snprintf(at.path, sizeof(at.path), "%s%s" STORE_SUFFIX, dir, hex);
	return at;
}

struct store_at store_ancestor_at(const uint8_t *uuid)
{
	return ancestor_at(STORE_ANCESTORS "/", uuid);
}

static int missing(const struct image *image, const struct layout_ancestor *ancestor, struct fsnap_error *err)
{
	fail(err, FSNAP_E_IMAGE_MISSING, 0, "image %s: it stores only what changed since %s, which is not there",
	     image->name, ancestor->name);
	return error_hint(err, "bring %s of its store along, or run `fsnap compact %s` there first: then it stands alone",
			  store_ancestor_at(ancestor->uuid).path, strrchr(image->name, '/') ?
			  strrchr(image->name, '/') + 1 : image->name);
}

static int altered(const struct image *image, const struct layout_ancestor *ancestor, struct fsnap_error *err)
{
	fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "image %s: it stores only what changed since %s, which is not what it was",
	     image->name, ancestor->name);
	return error_hint(err, "put the very file back that it was made with: %s",
			  store_ancestor_at(ancestor->uuid).path);
}

/* One that is called as wanted and is not, is not it: only the last place tried may complain. */
static int try_path(int dir, const char *path, const char *label, struct stat *st, struct fsnap_error *err)
{
	if (faccessat(dir, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	return image_open_file(dir, path, label, st, err);
}

/* In its store; where the image was opened by a path, beside it, or in the store that it lies in. */
static int find_ancestor(struct store *store, const char *path, const struct layout_ancestor *ancestor,
			 const char *label, struct stat *st, struct fsnap_error *err)
{
	struct store_at at = store_ancestor_at(ancestor->uuid);
	char beside[4096];
	int fd = -1;
	for (int i = 0; path && i < 2 && fd < 0 && !error_is_set(err); i++) {
		int n = snprintf(beside, sizeof(beside), "%.*s%s", (int)(strrchr(path, '/') + 1 - path), path,
				 i ? "../" : "");
		struct store_at name = i ? at : ancestor_at("", ancestor->uuid);
		snprintf(beside + n, sizeof(beside) - (size_t)n, "%s", name.path);
		fd = try_path(AT_FDCWD, beside, label, st, err);
	}
	if (fd < 0 && store && !error_is_set(err))
		fd = try_path(store->dir, at.path, label, st, err);
	return fd;
}

static bool is_it(const struct page_file *file, const struct layout_ancestor *ancestor)
{
	const struct layout_slot *slot = &file->slot;
	return memcmp(slot->uuid, ancestor->uuid, sizeof(slot->uuid)) == 0 &&
	       slot->generation == ancestor->generation && slot->checksum == ancestor->checksum &&
	       slot->pages == ancestor->pages;
}

static struct page_file *open_ancestor(const struct image *image, struct store *store, const char *path,
				       const struct layout_ancestor *ancestor, struct keyring *ring,
				       struct fsnap_error *err)
{
	char label[300];
	struct stat st;
	struct fsnap_error why = {0};
	snprintf(label, sizeof(label), "%s, which %s builds on", ancestor->name, image->name);
	int fd = find_ancestor(store, path, ancestor, label, &st, &why);
	if (fd < 0 && !error_is_set(&why)) {
		missing(image, ancestor, err);
		return NULL;
	}
	struct page_file *file = fd < 0 ? NULL : page_file_open(fd, (uint64_t)st.st_size, label, &image->trust, ring, &why);
	if (!file && err && !error_is_set(err))
		*err = why;
	/* Whoever put a file of his own in its place has no key: it is not encrypted, or was not accepted above. */
	if (file && (!is_it(file, ancestor) || (coded_cipher(image->own) && !coded_cipher(file)))) {
		page_file_close(file);
		altered(image, ancestor, err);
		return NULL;
	}
	return file;
}

static struct page_file *known_file(const struct image *known, const struct layout_ancestor *ancestor)
{
	for (unsigned i = 0; known && i < known->n_files; i++)
		if (is_it(known->files[i], ancestor))
			return page_file_share(known->files[i]);
	return NULL;
}

/* --- all of them ------------------------------------------------------------------------------ */

struct layout_ancestor *lineage_read(int fd, const struct layout_slot *slot, const char *image, unsigned *n,
				     struct fsnap_error *err)
{
	struct layout_ancestor *lineage = read_section(fd, &slot->lineage, image, "lineage", err);
	*n = (unsigned)(slot->lineage.length / sizeof(*lineage));
	for (unsigned i = 0; lineage && i < *n; i++) {
		if (memchr(lineage[i].name, 0, sizeof(lineage[i].name)) &&
		    store_check_name(lineage[i].name, NULL) == 0 && lineage[i].pages <= LAYOUT_LIMIT / STORE_PAGE)
			continue;
		layout_corrupt(err, image, "entry %u of its lineage is impossible", i);
		free(lineage);
		return NULL;
	}
	return lineage;
}

static int make_room(struct image *image, unsigned ancestors, struct fsnap_error *err)
{
	image->files = calloc(ancestors + 1, sizeof(*image->files));
	image->used = calloc(ancestors + 1, sizeof(*image->used));
	image->base = calloc(ancestors + 2, sizeof(*image->base));
	if (!image->files || !image->used || !image->base)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its lineage", image->name);
	image->files[0] = page_file_share(image->own);
	image->base[1] = image->own->slot.pages;
	image->n_files = 1;
	return 0;
}

int lineage_open(struct image *image, struct store *store, const char *path, const struct image *known,
		 struct keyring *ring, struct fsnap_error *err)
{
	unsigned n = 0;
	if (image->own->slot.lineage.length) {
		image->lineage = lineage_read(image->own->fd, &image->own->slot, image->name, &n, err);
		if (!image->lineage)
			return -1;
	}
	if (make_room(image, n, err) < 0)
		return -1;
	for (unsigned i = 1; i <= n; i++) {
		const struct layout_ancestor *ancestor = &image->lineage[i - 1];
		struct page_file *file = known_file(known, ancestor);
		if (!file && !(file = open_ancestor(image, store, path, ancestor, ring, err)))
			return -1;
		image->files[image->n_files++] = file;
		image->base[i + 1] = image->base[i] + file->slot.pages;
		image->used[i] = calloc(layout_blocks(file->slot.pages) / 64 + 1, sizeof(**image->used));
		if (!image->used[i])
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its lineage", image->name);
	}
	return 0;
}

void lineage_close(struct image *image)
{
	for (unsigned i = 0; i < image->n_files; i++) {
		page_file_close(image->files[i]);
		free(image->used[i]);
	}
	page_file_close(image->own);
	free(image->files);
	free(image->used);
	free(image->base);
	free(image->lineage);
}

unsigned lineage_file(const struct image *image, uint64_t at)
{
	unsigned low = 0, high = image->n_files;
	while (high - low > 1) {
		unsigned middle = (low + high) / 2;
		if (image->base[middle] <= at)
			low = middle;
		else
			high = middle;
	}
	return low;
}

int lineage_check_runs(struct image *image, struct fsnap_error *err)
{
	if (image->n_files == 1)
		return 0;
	unsigned file = 0;
	for (size_t i = 0; i < image->run_count; i++) {
		uint64_t at = image->runs[i].at, end = at + image->runs[i].npages;
		if (at < image->base[file] || at >= image->base[file + 1])
			file = lineage_file(image, at);
		if (end > image->base[file + 1])
			return layout_corrupt(err, image->name,
					      "entry %zu of its page index reaches from one file into another", i);
		uint64_t first = (at - image->base[file]) / STORE_BLOCK_PAGES;
		uint64_t last = (end - 1 - image->base[file]) / STORE_BLOCK_PAGES;
		for (uint64_t block = first; file && block <= last; block++)
			image->used[file][block / 64] |= 1ull << block % 64;
	}
	return 0;
}

/* --- what it says --------------------------------------------------------------------------------- */

uint64_t image_page_space(const struct image *image)
{
	return image->base[image->n_files];
}

unsigned image_files(const struct image *image)
{
	return image->n_files;
}

int image_descriptor(const struct image *image, unsigned file)
{
	return image->files[file]->fd;
}

struct image_place image_locate(const struct image *image, uint64_t at)
{
	unsigned file = image->n_files == 1 ? 0 : lineage_file(image, at);
	return (struct image_place){
		.file = file,
		.offset = image->files[file]->pages_at + (at - image->base[file]) * STORE_PAGE,
		.npages = image->base[file + 1] - at,
	};
}

int image_page_descriptor(const struct image *image, unsigned file)
{
	int memory = image->files[file]->coded ? coded_memory(image->files[file]) : -1;
	return memory >= 0 ? memory : image->files[file]->fd;
}

bool image_is_coded(const struct image *image)
{
	for (unsigned i = 0; i < image->n_files; i++)
		if (image->files[i]->coded)
			return true;
	return false;
}

void image_lock_keys(const struct image *image)
{
	for (unsigned i = 0; i < image->n_files; i++)
		cipher_lock(coded_cipher(image->files[i]));
}

struct image_extent image_stored(const struct image *image, unsigned file)
{
	const struct page_file *of = image->files[file];
	return (struct image_extent){ .fd = of->fd, .coded = of->coded != NULL, .offset = of->slot.pages_offset,
				      .bytes = layout_area(&of->slot) };
}

const char *lineage_name(const struct image *image, unsigned file)
{
	return file ? image->lineage[file - 1].name : image->name;
}

const void *image_bytes(const struct image *image, uint64_t at, uint64_t n, struct fsnap_error *err)
{
	struct image_place place = image_locate(image, at);
	const struct page_file *file = image->files[place.file];
	uint64_t page = at - image->base[place.file];
	for (uint64_t block = page / STORE_BLOCK_PAGES; file->coded && block <= (page + n - 1) / STORE_BLOCK_PAGES; block++)
		if (coded_prepare(file, block, lineage_name(image, place.file), err) < 0)
			return NULL;
	return medium_at(file->medium, place.offset);
}

const void *image_page(const struct image *image, uint64_t at)
{
	return image_bytes(image, at, 1, NULL);
}

void image_uuid(const struct image *image, uint8_t *uuid)
{
	memcpy(uuid, image->own->slot.uuid, 16);
}

const char *image_parent(const struct image *image, unsigned file, uint64_t *pages)
{
	if (file == 0 || file >= image->n_files)
		return NULL;
	*pages = image->lineage[file - 1].pages;
	return image->lineage[file - 1].name;
}

uint64_t image_referred(const struct image *image)
{
	uint64_t own = image->own->slot.pages, space = image_page_space(image), n = 0;
	cleanup_free uint64_t *seen = calloc((space - own) / 64 + 1, sizeof(*seen));
	for (size_t i = 0; seen && space > own && i < image->run_count; i++) {
		const struct page_run *run = &image->runs[i];
		for (uint64_t at = run->at; run->at >= own && at < run->at + run->npages; at++) {
			uint64_t bit = 1ull << (at - own) % 64, *word = &seen[(at - own) / 64];
			n += !(*word & bit);
			*word |= bit;
		}
	}
	return n;
}
