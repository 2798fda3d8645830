/*
 * fuzz_frames.c - any bytes as compressed blocks of an image whose checksums are right, and any bytes as what its head
 * says of coding.
 *
 * Shown: whoever can compute checksums can make a frame that is refused, not one that fills more than its block, reads
 * elsewhere, or takes memory. What says that it is encrypted is refused: there is no key here.
 * The input is a struct layout_coding, then for each block its length and codec, then the bytes of all.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "store/layout.h"

#define BLOCKS 3u
#define PAGES (2u * STORE_BLOCK_PAGES + 7u) /* the last one is short */

struct about {
	struct layout_coding coding;
	struct {
		uint32_t length, codec;
	} frame[BLOCKS];
};

static uint64_t put(struct fuzz_piece *piece, struct layout_section *section, const void *bytes, size_t length,
		    uint64_t at)
{
	*piece = (struct fuzz_piece){ bytes, length, at };
	*section = (struct layout_section){ at, length, layout_checksum(bytes, length) };
	return align_up(at + length, 8);
}

/* Lengths that add up are worth more than those that do not: the last block takes what there is. */
static void place(const struct about *about, struct layout_frame *frames, const uint8_t *bytes, size_t length)
{
	size_t at = 0;
	for (unsigned i = 0; i < BLOCKS; i++) {
		size_t left = length - at, want = i + 1 < BLOCKS ? about->frame[i].length % (left + 1) : left;
		frames[i] = (struct layout_frame){ .length = (uint32_t)want, .codec = about->frame[i].codec % 4,
						   .checksum = layout_checksum(bytes + at, want) };
		at += want;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct about about;
	struct layout_frame frames[BLOCKS];
	if (length < sizeof(about))
		return 0;
	memcpy(&about, bytes, sizeof(about));
	bytes += sizeof(about);
	length -= sizeof(about);
	place(&about, frames, bytes, length);
	about.coding.stored = length;
	about.coding.codec %= 4;
	about.coding.cipher %= 4;
	if (about.coding.kdf) /* Argon2id works for as long as it was told: store/secret.c bounds that */
		about.coding.kdf = 0;

	struct layout_head head = { .super = { .magic = LAYOUT_MAGIC, .format = IMAGE_FORMAT, .machine = LAYOUT_MACHINE,
					       .required = LAYOUT_CODED, .page_size = STORE_PAGE,
					       .block_pages = STORE_BLOCK_PAGES } };
	struct layout_slot *slot = &head.slot[0];
	*slot = (struct layout_slot){ .generation = 1, .pages = PAGES, .coding = about.coding };
	struct page_run run = { .page = 1, .at = 0, .npages = PAGES, .space = 1 };
	struct fuzz_piece pieces[6];
	uint64_t at = LAYOUT_TABLES;
	at = put(&pieces[1], &slot->metadata, "", 0, at);
	at = put(&pieces[2], &slot->hints, "", 0, at);
	at = put(&pieces[3], &slot->index, &run, sizeof(run), at);
	at = put(&pieces[4], &slot->blocks, frames, sizeof(frames), at);
	slot->pages_offset = align_up(at, LAYOUT_HUGE);
	slot->length = slot->pages_offset + length;
	layout_seal_super(&head.super);
	layout_seal_slot(slot);
	pieces[0] = (struct fuzz_piece){ &head, sizeof(head), 0 };
	pieces[5] = (struct fuzz_piece){ bytes, length, slot->pages_offset };
	fuzz_look_into(fuzz_file_pieces(pieces, 6, slot->length));
	return 0;
}
