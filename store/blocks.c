/*
 * blocks.c - the blocks of an image and of those it builds on, numbered through: where they are, whether they are what
 * they were.
 */
#include <inttypes.h>

#include "store/reader.h"

uint64_t image_blocks(const struct image *image)
{
	uint64_t blocks = 0;
	for (unsigned i = 0; i < image->n_files; i++)
		blocks += layout_blocks(image->files[i]->slot.pages);
	return blocks;
}

uint64_t image_block_of(const struct image *image, uint64_t at, uint32_t *page)
{
	unsigned file = image->n_files == 1 ? 0 : lineage_file(image, at);
	uint64_t before = 0;
	for (unsigned i = 0; i < file; i++)
		before += layout_blocks(image->files[i]->slot.pages);
	*page = (uint32_t)((at - image->base[file]) % STORE_BLOCK_PAGES);
	return before + (at - image->base[file]) / STORE_BLOCK_PAGES;
}

/* A block's file; *block becomes its number there. */
static unsigned file_of_block(const struct image *image, uint64_t *block)
{
	unsigned file = 0;
	for (; *block >= layout_blocks(image->files[file]->slot.pages); file++)
		*block -= layout_blocks(image->files[file]->slot.pages);
	return file;
}

struct image_extent image_block_extent(const struct image *image, uint64_t block)
{
	unsigned file = file_of_block(image, &block);
	const struct layout_slot *slot = &image->files[file]->slot;
	if (image->files[file]->coded)
		return coded_extent(image->files[file], block);
	return (struct image_extent){ .fd = image->files[file]->fd,
				      .offset = slot->pages_offset + block * LAYOUT_BLOCK,
				      .bytes = layout_block_pages(block, slot->pages) * STORE_PAGE };
}

static int check_block(const struct image *image, unsigned file, uint64_t block, const void *bytes,
		       struct fsnap_error *err)
{
	const struct page_file *of = image->files[file];
	uint64_t pages = layout_block_pages(block, of->slot.pages), first = block * STORE_BLOCK_PAGES;
	uint64_t offset = of->slot.pages_offset + block * LAYOUT_BLOCK;
	if (signature_check(of->signature, offset, pages * STORE_PAGE, err) < 0)
		return -1;
	if (layout_checksum(bytes, pages * STORE_PAGE) == of->sums[block])
		return 0;
	if (!file)
		return layout_corrupt(err, image->name, "pages %" PRIu64 " to %" PRIu64 " differ from their checksum",
				      first, first + pages - 1);
	return layout_corrupt(err, image->name,
			      "pages %" PRIu64 " to %" PRIu64 " of %s, which it builds on, differ from their checksum",
			      first, first + pages - 1, image->lineage[file - 1].name);
}

int image_check_block(const struct image *image, uint64_t block, const void *bytes, struct fsnap_error *err)
{
	unsigned file = file_of_block(image, &block);
	return check_block(image, file, block, bytes, err);
}

int image_decode_block(const struct image *image, uint64_t block, const void *bytes, void *to,
		       struct image_decoder *decoder, struct fsnap_error *err)
{
	unsigned file = file_of_block(image, &block);
	return coded_decode(image->files[file], block, bytes, to, decoder, lineage_name(image, file), err);
}

static int verify_block(const struct image *image, unsigned file, uint64_t block, struct fsnap_error *err)
{
	const struct page_file *of = image->files[file];
	if (file && !(image->used[file][block / 64] >> block % 64 & 1))
		return 0; /* nothing of it is ours */
	if (of->coded)
		return coded_verify(of, block, lineage_name(image, file), err);
	return check_block(image, file, block, medium_at(of->medium, of->slot.pages_offset + block * LAYOUT_BLOCK),
			   err);
}

static int prepare_block(const struct image *image, unsigned file, uint64_t block, struct fsnap_error *err)
{
	const struct page_file *of = image->files[file];
	if (!of->coded || (file && !(image->used[file][block / 64] >> block % 64 & 1)))
		return 0;
	return coded_prepare(of, block, lineage_name(image, file), err);
}

static int each_block(const struct image *image, uint64_t first, uint64_t n,
		      int (*fn)(const struct image *, unsigned, uint64_t, struct fsnap_error *), struct fsnap_error *err)
{
	uint64_t before = 0;
	for (unsigned file = 0; file < image->n_files; file++) {
		uint64_t blocks = layout_blocks(image->files[file]->slot.pages);
		uint64_t block = first > before ? first - before : 0;
		for (; block < blocks && before + block < first + n; block++)
			if (fn(image, file, block, err) < 0)
				return -1;
		before += blocks;
	}
	return 0;
}

int image_verify_blocks(const struct image *image, uint64_t first, uint64_t n,
			struct fsnap_error *err)
{
	return each_block(image, first, n, verify_block, err);
}

int image_prepare(const struct image *image, uint64_t first, uint64_t n, struct fsnap_error *err)
{
	return each_block(image, first, n, prepare_block, err);
}
