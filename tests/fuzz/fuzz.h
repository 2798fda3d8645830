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

/* An image with these tables, all checksums right, and FUZZ_PAGES pages of zeroes. `records` and `hint_records`
 * are how many there are said to be. */
#define FUZZ_PAGES 64
struct fuzz_table {
	const uint8_t *bytes;
	size_t length;
};
struct fuzz_coded;
struct fuzz_image {
	struct fuzz_table metadata, hints, index, lineage;
	uint32_t records, hint_records;
	uint8_t uuid[16];
	const struct fuzz_coded *coded; /* coded.h; NULL: its pages are as they are */
};
const char *fuzz_image_file(const struct fuzz_image *image);

/* The same, under that name, which stays; the commit slot is told. */
struct layout_slot;
void fuzz_image_at(const char *path, const struct fuzz_image *image, struct layout_slot *slot);

/* Splits an input of fuzz_records.c (recipe.h). */
int fuzz_image_of_recipe(struct fuzz_image *image, const uint8_t *bytes, size_t length);

/* Whether it was refused; a refusal says what is wrong. */
struct fsnap_error;
int fuzz_refused(int result, const struct fsnap_error *err);

/* Everything that looks into an image without making a process: records, hints, runs, checksums, the
 * model a restore is compiled from, the view that inspect, report and core share. */
void fuzz_look_into(const char *path);

#endif
