/*
 * fuzz_records.c - any bytes as records, hints and page index of an image whose checksums are right.
 *
 * Shown: whoever can compute checksums can make fsnap refuse, not crash, read elsewhere, or allocate
 * without bound. The input is a struct recipe, then metadata, then hints, then the index.
 */
#include <string.h>

#include "fuzz.h"
#include "recipe.h"
#include "store/layout.h"

#define PAGES 64

static uint64_t put(struct fuzz_piece *piece, struct layout_section *section, const uint8_t *bytes, size_t length,
		    uint64_t at)
{
	*piece = (struct fuzz_piece){ bytes, length, at };
	*section = (struct layout_section){ at, length, layout_checksum(bytes, length) };
	return align_up(at + length, 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	static const uint8_t page[PAGES * STORE_PAGE];
	struct recipe recipe;
	if (length < sizeof(recipe))
		return 0;
	memcpy(&recipe, bytes, sizeof(recipe));
	bytes += sizeof(recipe);
	length -= sizeof(recipe);
	size_t metadata = recipe.metadata < length ? recipe.metadata : length;
	size_t hints = recipe.hints < length - metadata ? recipe.hints : length - metadata;
	size_t index = (length - metadata - hints) / sizeof(struct page_run) * sizeof(struct page_run);

	struct layout_head head = { .super = { .magic = LAYOUT_MAGIC, .format = IMAGE_FORMAT,
					       .machine = LAYOUT_MACHINE, .page_size = STORE_PAGE,
					       .block_pages = STORE_BLOCK_PAGES } };
	struct layout_slot *slot = &head.slot[0];
	*slot = (struct layout_slot){ .generation = 1, .pages = PAGES, .records = recipe.records,
				      .hint_records = recipe.hint_records };
	uint64_t sum = layout_checksum(page, sizeof(page));
	struct fuzz_piece pieces[5];
	uint64_t at = LAYOUT_TABLES;
	at = put(&pieces[1], &slot->metadata, bytes, metadata, at);
	at = put(&pieces[2], &slot->hints, bytes + metadata, hints, at);
	at = put(&pieces[3], &slot->index, bytes + metadata + hints, index, at);
	at = put(&pieces[4], &slot->blocks, (const uint8_t *)&sum, sizeof(sum), at);
	slot->pages_offset = align_up(at, LAYOUT_HUGE);
	slot->length = slot->pages_offset + sizeof(page);
	layout_seal_super(&head.super);
	layout_seal_slot(slot);
	pieces[0] = (struct fuzz_piece){ &head, sizeof(head), 0 };
	fuzz_look_into(fuzz_file_pieces(pieces, 5, slot->length));
	return 0;
}
