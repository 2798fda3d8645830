/*
 * coded.h - images whose pages are compressed, encrypted, or both, with a head that an input has a say in.
 */
#ifndef FUZZ_CODED_H
#define FUZZ_CODED_H

#include "fuzz.h"
#include "store/cipher.h"
#include "store/layout.h"

#define FUZZ_BLOCKS 3u
#define FUZZ_CODED_PAGES (2u * STORE_BLOCK_PAGES + 7u) /* the last block is short */

struct fuzz_coded {
	struct layout_coding coding; /* `stored` is right */
	const struct layout_frame *frames; /* FUZZ_BLOCKS */
	const uint8_t *bytes; /* of the page area */
	const struct cipher *cipher; /* makes the MAC; NULL: it is left as it is */
	uint8_t wrong; /* ... and then this is added to its first byte */
};

/* What an input says of a block. */
struct fuzz_cut {
	uint32_t length, codec;
};

/* Lengths that add up are worth more than those that do not: the last block takes what there is. */
void fuzz_cut_frames(struct layout_frame *frames, const struct fuzz_cut *cut, size_t length);

/* Checksums of the bytes as they are stored. */
void fuzz_sum_frames(struct layout_frame *frames, const uint8_t *bytes);

/* The MAC of all that is readable; there is no lineage. */
void fuzz_seal_head(const struct fuzz_coded *coded, struct layout_head *head);

#endif
