/*
 * stored.c - is a file as it was written? What can be said of an encrypted image without its key.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "store/reader.h"
#include "store/scope.h"

static int check_table(int fd, const struct layout_section *section, const char *image, const char *what,
		       struct fsnap_error *err)
{
	cleanup_free void *bytes = read_section(fd, section, image, what, err);
	return bytes ? 0 : -1;
}

static int check_frames(int fd, const struct layout_slot *slot, struct signature *signature, const char *image,
			struct fsnap_error *err)
{
	cleanup_free struct layout_frame *frames = read_section(fd, &slot->blocks, image, "block checksums", err);
	cleanup_free void *bytes = malloc(LAYOUT_BLOCK);
	uint64_t at = slot->pages_offset;
	if (!frames || !bytes)
		return frames ? fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its blocks", image) : -1;
	const char *wrong = coded_check_frames(slot, frames);
	if (wrong)
		return layout_corrupt(err, image, "%s", wrong);
	for (uint64_t i = 0; i < layout_blocks(slot->pages); at += frames[i++].length) {
		if (signature_check(signature, at, frames[i].length, err) < 0 ||
		    read_exactly(fd, bytes, frames[i].length, at, image, err) < 0)
			return -1;
		if (layout_checksum(bytes, frames[i].length) != frames[i].checksum)
			return layout_corrupt(err, image, "block %" PRIu64 " differs from its checksum", i);
	}
	return 0;
}

static int check_file(int fd, uint64_t size, const char *image, const struct trust *trust, uint64_t *pages,
		      struct fsnap_error *err)
{
	struct layout_slot slot;
	struct signature *signature = NULL;
	int result = image_read_trusted_head(fd, size, image, trust, &slot, err);
	if (result == 0 && !slot.coding.cipher)
		result = fail(err, FSNAP_E_USAGE, 0, "image %s: it is not encrypted", image);
	if (result == 0)
		result = signature_open(&signature, fd, size, image, trust, err);
	if (result == 0 && (check_table(fd, &slot.metadata, image, "metadata", err) < 0 ||
			    check_table(fd, &slot.index, image, "page index", err) < 0 ||
			    check_table(fd, &slot.hints, image, "hints", err) < 0 ||
			    check_table(fd, &slot.lineage, image, "lineage", err) < 0 ||
			    check_frames(fd, &slot, signature, image, err) < 0))
		result = -1;
	signature_close(signature);
	*pages = slot.pages;
	return result;
}

int image_verify_stored(struct store *store, const char *name, const struct trust *trust, uint64_t *pages,
			struct fsnap_error *err)
{
	struct trust own = { 0 };
	struct stat st;
	char newest[128];
	if (!name && store_newest(store, newest, sizeof(newest), err) < 0)
		return -1;
	name = name ? name : newest;
	bool is_path = strchr(name, '/') != NULL;
	struct store_at at = store_image_at(name);
	if (!trust && trust_load(&own, err) < 0)
		return -1;
	cleanup_fd int fd = image_open_file(is_path ? AT_FDCWD : store->dir, is_path ? name : at.path, name, &st, err);
	int result = fd < 0 ? -1 : check_file(fd, (uint64_t)st.st_size, name, trust ? trust : &own, pages, err);
	trust_free(&own);
	return result;
}
