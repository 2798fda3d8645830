/*
 * fuzz_container.c - any bytes as an image file: superblock, commit slots, tables, checksums.
 *
 * Shown: what is not an image is refused with words; nothing is read beyond the file, nothing is allocated
 * that the file does not have. Checksums stop most inputs early: what lies behind them is fuzz_records.c's.
 */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct fuzz_piece piece = { bytes, length, 0 };
	fuzz_look_into(fuzz_file_pieces(&piece, 1, length));
	return 0;
}
