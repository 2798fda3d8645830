#include "fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coded.h"
#include "engine/inspect/thread_view.h"
#include "engine/inspect/view.h"
#include "engine/model.h"
#include "recipe.h"
#include "store/layout.h"
#include "store/scope.h"

static char path[64];
static int file = -1;

static void forget(void)
{
	unlink(path);
}

static void open_file(void)
{
	snprintf(path, sizeof(path), "/dev/shm/fsnap-fuzz.%d", getpid());
	file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (file < 0)
		abort();
	atexit(forget);
}

static void write_pieces(int fd, const struct fuzz_piece *pieces, size_t n, uint64_t file_length)
{
	if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)file_length) < 0)
		abort();
	for (size_t i = 0; i < n; i++)
		if (pwrite(fd, pieces[i].bytes, pieces[i].length, (off_t)pieces[i].offset) !=
		    (ssize_t)pieces[i].length)
			abort();
}

const char *fuzz_file_pieces(const struct fuzz_piece *pieces, size_t n, uint64_t file_length)
{
	if (file < 0)
		open_file();
	write_pieces(file, pieces, n, file_length);
	return path;
}

/* --- images whose checksums are right --------------------------------------------------- */

int fuzz_image_of_recipe(struct fuzz_image *image, const uint8_t *bytes, size_t length)
{
	struct recipe recipe;
	if (length < sizeof(recipe))
		return -1;
	memcpy(&recipe, bytes, sizeof(recipe));
	bytes += sizeof(recipe);
	length -= sizeof(recipe);
	size_t metadata = recipe.metadata < length ? recipe.metadata : length;
	size_t hints = recipe.hints < length - metadata ? recipe.hints : length - metadata;
	size_t index = (length - metadata - hints) / sizeof(struct page_run) * sizeof(struct page_run);
	*image = (struct fuzz_image){ .metadata = { bytes, metadata }, .hints = { bytes + metadata, hints },
				      .index = { bytes + metadata + hints, index }, .records = recipe.records,
				      .hint_records = recipe.hint_records };
	return 0;
}

static uint64_t put(struct fuzz_piece *piece, struct layout_section *section, const void *bytes, size_t length,
		    uint64_t at)
{
	*piece = (struct fuzz_piece){ bytes, length, at };
	*section = (struct layout_section){ at, length, layout_checksum(bytes, length) };
	return align_up(at + length, 8);
}

#define PIECES 7

/* Blocks and pages: as they are, or coded. */
static uint64_t put_pages(const struct fuzz_image *image, struct layout_slot *slot, uint64_t *sum,
			  struct fuzz_piece pieces[PIECES], uint64_t at)
{
	static const uint8_t page[FUZZ_PAGES * STORE_PAGE];
	const struct fuzz_coded *coded = image->coded;
	slot->pages = coded ? FUZZ_CODED_PAGES : FUZZ_PAGES;
	pieces[6] = (struct fuzz_piece){ 0 };
	if (coded) {
		slot->coding = coded->coding;
		pieces[6] = (struct fuzz_piece){ coded->bytes, coded->coding.stored, 0 };
		return put(&pieces[4], &slot->blocks, coded->frames, FUZZ_BLOCKS * sizeof(*coded->frames), at);
	}
	*sum = layout_checksum(page, sizeof(page));
	return put(&pieces[4], &slot->blocks, sum, sizeof(*sum), at);
}

static void lay_out(const struct fuzz_image *image, struct layout_head *head, uint64_t *sum,
		    struct fuzz_piece pieces[PIECES])
{
	*head = (struct layout_head){ .super = { .magic = LAYOUT_MAGIC, .format = IMAGE_FORMAT,
						 .machine = LAYOUT_MACHINE, .page_size = STORE_PAGE,
						 .block_pages = STORE_BLOCK_PAGES } };
	struct layout_slot *slot = &head->slot[0];
	*slot = (struct layout_slot){ .generation = 1, .records = image->records,
				      .hint_records = image->hint_records };
	memcpy(head->super.uuid, image->uuid, sizeof(head->super.uuid));
	memcpy(slot->uuid, image->uuid, sizeof(slot->uuid));
	head->super.required = (image->lineage.length ? LAYOUT_LINEAGE : 0) | (image->coded ? LAYOUT_CODED : 0);
	uint64_t at = LAYOUT_TABLES;
	at = put(&pieces[1], &slot->metadata, image->metadata.bytes, image->metadata.length, at);
	at = put(&pieces[2], &slot->hints, image->hints.bytes, image->hints.length, at);
	at = put(&pieces[3], &slot->index, image->index.bytes, image->index.length, at);
	at = put_pages(image, slot, sum, pieces, at);
	at = put(&pieces[5], &slot->lineage, image->lineage.bytes, image->lineage.length, at);
	slot->pages_offset = pieces[6].offset = align_up(at, LAYOUT_HUGE);
	slot->length = slot->pages_offset + layout_area(slot);
	layout_seal_super(&head->super);
	if (image->coded && image->coded->cipher)
		fuzz_seal_head(image->coded, head);
	layout_seal_slot(slot);
	pieces[0] = (struct fuzz_piece){ head, sizeof(*head), 0 };
}

const char *fuzz_image_file(const struct fuzz_image *image)
{
	struct layout_head head;
	struct fuzz_piece pieces[PIECES];
	uint64_t sum;
	lay_out(image, &head, &sum, pieces);
	return fuzz_file_pieces(pieces, PIECES, head.slot[0].length);
}

void fuzz_image_at(const char *at, const struct fuzz_image *image, struct layout_slot *slot)
{
	struct layout_head head;
	struct fuzz_piece pieces[PIECES];
	uint64_t sum;
	cleanup_fd int fd = open(at, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		abort();
	lay_out(image, &head, &sum, pieces);
	write_pieces(fd, pieces, PIECES, head.slot[0].length);
	*slot = head.slot[0];
}

/* --- looking into them -------------------------------------------------------------------- */

int fuzz_refused(int result, const struct fsnap_error *err)
{
	if (result < 0 && (err->code == 0 || !err->message[0]))
		abort();
	if (result < 0 && getenv("FUZZ_TELL"))
		fprintf(stderr, "refused: %s\n", err->message);
	return result < 0;
}

static void look_at_pages(const struct image *image)
{
	struct fsnap_error err = { 0 };
	uint64_t blocks = image_blocks(image);
	fuzz_refused(image_verify_blocks(image, 0, blocks < 4 ? blocks : 4, &err), &err);
	for (uint32_t space = 0; space < 64; space++) {
		size_t n;
		const struct page_run *runs = image_runs(image, space, &n);
		for (size_t i = 0; i < n; i++)
			if (runs[i].npages == 0)
				abort();
	}
}

static void look_at_model(const struct image *image)
{
	struct fsnap_error err = { 0 };
	struct model model = { 0 };
	fuzz_refused(model_load(&model, image, &err), &err);
	model_free(&model);
}

static void look_at_view(struct image *image)
{
	struct fsnap_error err = { 0 };
	struct tree_view view = { 0 };
	fuzz_refused(view_of_image(&view, image, &err), &err);
	view_free(&view);
}

static void look_at_hints(struct image *image)
{
	struct fsnap_error err = { 0 };
	if (fuzz_refused(image_hints(image, &err), &err))
		return;
	for (size_t i = 0; i < image_hint_count(image, IMAGE_HEAT); i++) {
		image_heat heat = { 0 };
		struct fsnap_error own = { 0 };
		fuzz_refused(image_hint_get(image, IMAGE_HEAT, i, (xdrproc_t)xdr_image_heat, &heat, &own), &own);
		xdr_free((xdrproc_t)xdr_image_heat, (char *)&heat);
	}
}

void fuzz_look_into(const char *name)
{
	struct fsnap_error err = { 0 };
	struct image *image = image_open(NULL, name, &err);
	if (fuzz_refused(image ? 0 : -1, &err))
		return;
	look_at_pages(image);
	look_at_model(image);
	look_at_view(image);
	look_at_hints(image);
	image_close(image);
}
