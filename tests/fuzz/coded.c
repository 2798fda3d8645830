#include "coded.h"

void fuzz_cut_frames(struct layout_frame *frames, const struct fuzz_cut *cut, size_t length)
{
	size_t left = length;
	for (unsigned i = 0; i < FUZZ_BLOCKS; i++) {
		size_t want = i + 1 < FUZZ_BLOCKS ? cut[i].length % (left + 1) : left;
		frames[i] = (struct layout_frame){ .length = (uint32_t)want, .codec = cut[i].codec % 4 };
		left -= want;
	}
}

void fuzz_sum_frames(struct layout_frame *frames, const uint8_t *bytes)
{
	for (unsigned i = 0; i < FUZZ_BLOCKS; bytes += frames[i++].length)
		frames[i].checksum = layout_checksum(bytes, frames[i].length);
}

void fuzz_seal_head(const struct fuzz_coded *coded, struct layout_head *head)
{
	struct layout_slot *slot = &head->slot[0];
	cipher_mac(coded->cipher, &head->super, slot, coded->frames, NULL, slot->coding.mac);
	slot->coding.mac[0] += coded->wrong;
}
