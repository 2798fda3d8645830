/*
 * compact.c - an image that builds on others, made to stand alone.
 *
 * It is written anew, as any image is (commit.c), with all pages carried, and takes the name from the one it
 * replaces in one step. What there is then is the one or the other. The old file goes the way of a removed
 * image: whoever builds on it, or reads it, goes on with it.
 */
#include <string.h>

#include "store/reader.h"
#include "store/scope.h"
#include "store/writer.h"

static int add_runs(struct image_writer *writer, const struct image *image, struct fsnap_error *err)
{
	for (size_t i = 0; i < image->run_count; i++) {
		struct page_run run = image->runs[i];
		run.at |= STORE_REFERRED;
		if (image_writer_add_run(writer, &run, err) < 0)
			return -1;
	}
	return 0;
}

static int copy_buffer(struct record_buffer *buffer, const char *bytes, uint64_t length, uint64_t count,
		       struct fsnap_error *err)
{
	buffer->bytes = malloc(length + 1);
	if (!buffer->bytes)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "the image's metadata");
	memcpy(buffer->bytes, bytes, length);
	buffer->length = buffer->room = length;
	buffer->count = count;
	return 0;
}

/* Records as they are, also those that this fsnap does not know; without hints that are damaged. */
static int copy_records(struct image_writer *writer, struct image *image, struct fsnap_error *err)
{
	const struct layout_slot *slot = &image->own->slot;
	if (copy_buffer(&writer->records, image->metadata, slot->metadata.length, slot->records, err) < 0)
		return -1;
	if (image_hints(image, NULL) < 0)
		return 0;
	return copy_buffer(&writer->hints, image->hint_bytes, slot->hints.length, slot->hint_records, err);
}

/* What is wrong with a page now would be right afterwards, with a checksum of its own. */
static int fill(struct image_writer *writer, struct image *image, struct fsnap_error *err)
{
	if (image_verify_blocks(image, 0, image_blocks(image), err) < 0)
		return -1;
	writer->alone = true;
	writer->parent = image;
	writer->created_ns = image->own->slot.created_ns;
	return add_runs(writer, image, err) < 0 ? -1 : copy_records(writer, image, err);
}

static int write_alone(struct store *store, struct image *image, struct fsnap_error *err)
{
	/* As it was; levels are not recorded, and 1 is the default of both. */
	const struct layout_coding *was = &image->own->slot.coding;
	struct store_coding coding = { (int)was->codec, 1, (int)was->cipher };
	struct image_writer *writer =
		writer_replacing(store, image, image->own->slot.pages + image_referred(image), &coding, err);
	if (!writer)
		return -1;
	if (fill(writer, image, err) < 0) {
		image_writer_abort(writer);
		return -1;
	}
	return image_writer_commit(writer, NULL, err);
}

int store_compact(struct store *store, const char *name, uint64_t *bytes, struct fsnap_error *err)
{
	struct image *image = image_open(store, name, err);
	if (!image)
		return -1;
	int result = 0;
	if (bytes)
		*bytes = image_referred(image) * STORE_PAGE;
	if (strchr(name, '/'))
		result = fail(err, FSNAP_E_USAGE, 0, "image %s: only an image of the store can be made to stand alone",
			      name);
	else if (image->n_files > 1)
		result = write_alone(store, image, err);
	image_close(image);
	if (result == 0)
		store_collect(store, NULL);
	return result;
}
