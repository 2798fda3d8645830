/*
 * fuzz_frames.c - any bytes as compressed blocks of an image whose checksums are right, and any bytes as what its head
 * says of coding.
 *
 * Shown: whoever can compute checksums can make a frame that is refused, not one that fills more than its block, reads
 * elsewhere, or takes memory. What says that it is encrypted is refused: there is no key here.
 * The input is a struct layout_coding, then for each block its length and codec, then the bytes of all.
 */
#include <string.h>

#include "coded.h"

struct about {
	struct layout_coding coding;
	struct fuzz_cut cut[FUZZ_BLOCKS];
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct about about;
	struct layout_frame frames[FUZZ_BLOCKS];
	if (length < sizeof(about))
		return 0;
	memcpy(&about, bytes, sizeof(about));
	bytes += sizeof(about);
	length -= sizeof(about);
	fuzz_cut_frames(frames, about.cut, length);
	fuzz_sum_frames(frames, bytes);
	about.coding.stored = length;
	about.coding.codec %= 4;
	about.coding.cipher %= 4;
	if (about.coding.kdf) /* Argon2id works for as long as it was told: store/secret.c bounds that */
		about.coding.kdf = 0;
	struct page_run run = { .page = 1, .at = 0, .npages = FUZZ_CODED_PAGES, .space = 1 };
	struct fuzz_coded coded = { .coding = about.coding, .frames = frames, .bytes = bytes };
	struct fuzz_image image = { .index = { (const uint8_t *)&run, sizeof(run) }, .coded = &coded };
	fuzz_look_into(fuzz_image_file(&image));
	return 0;
}
