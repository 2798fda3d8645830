/*
 * fuzz_records.c - any bytes as records, hints and page index of an image whose checksums are right.
 *
 * Shown: whoever can compute checksums can make fsnap refuse, not crash, read elsewhere, or allocate
 * without bound. The input is a struct recipe, then metadata, then hints, then the index.
 */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct fuzz_image image;
	if (fuzz_image_of_recipe(&image, bytes, length) == 0)
		fuzz_look_into(fuzz_image_file(&image));
	return 0;
}
