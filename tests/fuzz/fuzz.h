/*
 * fuzz.h - what the fuzz targets share.
 *
 * A target is libFuzzer's: LLVMFuzzerTestOneInput(). In the preset `fuzz` it is linked with libFuzzer; in
 * all others with replay.c, which runs it once on every file of the corpus, so that what was once found
 * is looked at in every test run.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "store/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* A file of ours in memory, that image_open() takes. Written anew for each input. */
struct fuzz_piece {
	const void *bytes;
	size_t length;
	uint64_t offset;
};

const char *fuzz_file_pieces(const struct fuzz_piece *pieces, size_t n, uint64_t file_length);

/* Everything that looks into an image without making a process: records, hints, runs, checksums, the
 * model a restore is compiled from, the view that inspect, report and core share. */
void fuzz_look_into(const char *path);

#endif
