/* reader.c - one image, checked from the first byte on before anything in it is believed. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>

#include "store/internal.h"
#include "store/scope.h"

#define KINDS (IMAGE_CGROUPS + 2)

struct image {
	int fd;
	char *name;
	struct layout_slot slot;
	char *metadata;
	uint64_t *sums; /* per block */
	struct page_run *runs;
	size_t run_count;
	struct record *records; /* sorted by kind, then as in the file */
	size_t first[KINDS];	/* records of kind k: [first[k], first[k + 1]) */
	char *hint_bytes;
	struct record *hints; /* sorted likewise; NULL: not read */
	size_t hint_count;
	struct medium *medium;	/* the page area; NULL where there are no pages */
};

/* --- the file --------------------------------------------------------------------------- */

static int refuse_owner(struct fsnap_error *err, const char *image, const char *why)
{
	fail(err, FSNAP_E_IMAGE_OWNER, 0, "image %s: %s", image, why);
	return error_hint(err, "restoring runs what the image says: copy it to a file of your own "
			       "with mode 0600 if you trust it");
}

static int check_owner(const struct stat *st, const char *image, struct fsnap_error *err)
{
	if (!S_ISREG(st->st_mode))
		return refuse_owner(err, image, "not a regular file");
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return refuse_owner(err, image, "it belongs to another user");
	if (st->st_mode & 022)
		return refuse_owner(err, image, "others than its owner may write to it");
	return 0;
}

static int open_failed(struct fsnap_error *err, const char *image, int sys)
{
	if (sys == ELOOP)
		return refuse_owner(err, image, "it is a symbolic link");
	if (sys == ENOENT || sys == ENOTDIR) {
		fail(err, FSNAP_E_IMAGE_MISSING, 0, "image %s: there is none", image);
		return error_hint(err, "`fsnap list` shows the images of the store");
	}
	if (sys == EACCES || sys == EPERM) {
		fail(err, FSNAP_E_IMAGE_OWNER, sys, "image %s", image);
		return error_hint(err, "run as the user who made it");
	}
	return store_fail(err, sys, "image %s", image);
}

int image_open_file(int dir, const char *path, const char *image, struct stat *st,
		    struct fsnap_error *err)
{
	int flags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
	for (;;) {
		cleanup_fd int fd = openat(dir, path, flags);
		if (fd < 0) {
			open_failed(err, image, errno);
			return -1;
		}
		/* Type and owner first: flock(2) on a stranger's file may wait for ever. */
		if (fstat(fd, st) < 0)
			return store_fail(err, errno, "image %s", image);
		if (check_owner(st, image, err) < 0)
			return -1;
		while (flock(fd, LOCK_SH) < 0)
			if (errno != EINTR)
				return store_fail(err, errno, "image %s: locking it", image);
		/* While we waited it may have been removed, and its space recycled. */
		struct stat now;
		if (fstatat(dir, path, &now, AT_SYMLINK_NOFOLLOW) < 0) {
			open_failed(err, image, errno);
			return -1;
		}
		if (now.st_ino == st->st_ino && now.st_dev == st->st_dev) {
			*st = now;
			return steal_fd(&fd);
		}
	}
}

int read_exactly(int fd, void *buffer, uint64_t length, uint64_t offset, const char *image,
		 struct fsnap_error *err)
{
	char *to = buffer;
	while (length) {
		ssize_t n = pread(fd, to, length < INT_MAX ? length : INT_MAX, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return store_fail(err, errno, "image %s: reading it", image);
		if (n == 0)
			return fail(err, FSNAP_E_IMAGE_TRUNCATED, 0,
				    "image %s: became shorter while it was read", image);
		to += n;
		offset += (uint64_t)n;
		length -= (uint64_t)n;
	}
	return 0;
}

int image_read_head(int fd, uint64_t file_size, const char *image, struct layout_slot *slot,
		    struct fsnap_error *err)
{
	struct layout_head head;
	uint64_t have = file_size < sizeof(head) ? file_size : sizeof(head);
	if (read_exactly(fd, &head, have, 0, image, err) < 0)
		return -1;
	return layout_check_head(&head, have, file_size, image, slot, err);
}

/* --- the tables --------------------------------------------------------------------------- */

static void *read_section(const struct image *image, const struct layout_section *section,
			  const char *what, struct fsnap_error *err)
{
	cleanup_free char *bytes = malloc(section->length + 1);
	if (!bytes) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its %s", image->name, what);
		return NULL;
	}
	if (read_exactly(image->fd, bytes, section->length, section->offset, image->name, err) < 0)
		return NULL;
	if (layout_checksum(bytes, section->length) != section->checksum) {
		layout_corrupt(err, image->name, "the checksum of its %s is wrong", what);
		return NULL;
	}
	return steal(&bytes);
}

static int read_tables(struct image *image, struct fsnap_error *err)
{
	const struct layout_slot *slot = &image->slot;
	image->metadata = read_section(image, &slot->metadata, "metadata", err);
	if (!image->metadata)
		return -1;
	image->sums = read_section(image, &slot->blocks, "block checksums", err);
	if (!image->sums)
		return -1;
	image->runs = read_section(image, &slot->index, "page index", err);
	if (!image->runs)
		return -1;
	image->run_count = slot->index.length / sizeof(struct page_run);

	uint64_t bad;
	const char *wrong = layout_check_runs(image->runs, image->run_count, slot->pages, &bad);
	if (wrong)
		return layout_corrupt(err, image->name, "entry %" PRIu64 " of its page index %s",
				      bad, wrong);
	return 0;
}

static int read_records(struct image *image, struct fsnap_error *err)
{
	size_t count;
	if (record_parse(image->metadata, image->slot.metadata.length, image->slot.records,
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

static int read_all(struct image *image, uint64_t file_size, struct fsnap_error *err)
{
	struct layout_slot *slot = &image->slot;
	if (image_read_head(image->fd, file_size, image->name, slot, err) < 0 ||
	    read_tables(image, err) < 0 || read_records(image, err) < 0)
		return -1;
	if (slot->pages == 0)
		return 0;
	image->medium =
		medium_open_read(image->fd, slot->pages_offset, slot->pages * STORE_PAGE, err);
	return image->medium ? 0 : -1;
}

struct image *image_open(struct store *store, const char *name, struct fsnap_error *err)
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
	struct store_at at = store_image_at(name);
	struct stat st;
	image->fd = image_open_file(is_path ? AT_FDCWD : store->dir, is_path ? name : at.path, name,
				    &st, err);
	if (image->fd < 0 || read_all(image, (uint64_t)st.st_size, err) < 0) {
		image_close(image);
		return NULL;
	}
	return image;
}

void image_close(struct image *image)
{
	if (!image)
		return;
	medium_close(image->medium);
	scope_close(&image->fd);
	free(image->records);
	free(image->hints);
	free(image->hint_bytes);
	free(image->runs);
	free(image->sums);
	free(image->metadata);
	free(image->name);
	free(image);
}

/* --- what it says ----------------------------------------------------------------------------- */

const char *image_name(const struct image *image)
{
	return image->name;
}

uint64_t image_pages(const struct image *image)
{
	return image->slot.pages;
}

uint64_t image_file_bytes(const struct image *image)
{
	return image->slot.length;
}

uint64_t image_created_ns(const struct image *image)
{
	return image->slot.created_ns;
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
		image->hint_bytes = read_section(image, &image->slot.hints, "hints", err);
	if (!image->hint_bytes)
		return -1;
	return record_parse(image->hint_bytes, image->slot.hints.length, image->slot.hint_records, image->name,
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

int image_descriptor(const struct image *image)
{
	return image->fd;
}

uint64_t image_page_offset(const struct image *image, uint64_t at)
{
	return image->slot.pages_offset + at * STORE_PAGE;
}

const void *image_page(const struct image *image, uint64_t at)
{
	return medium_at(image->medium, image_page_offset(image, at));
}

uint64_t image_blocks(const struct image *image)
{
	return layout_blocks(image->slot.pages);
}

int image_verify_blocks(const struct image *image, uint64_t first, uint64_t n,
			struct fsnap_error *err)
{
	for (uint64_t block = first; block < first + n; block++) {
		uint64_t pages = layout_block_pages(block, image->slot.pages);
		const void *bytes = image_page(image, block * STORE_BLOCK_PAGES);
		if (layout_checksum(bytes, pages * STORE_PAGE) != image->sums[block])
			return layout_corrupt(
				err, image->name,
				"pages %" PRIu64 " to %" PRIu64 " differ from their checksum",
				block * STORE_BLOCK_PAGES, block * STORE_BLOCK_PAGES + pages - 1);
	}
	return 0;
}
