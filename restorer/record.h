/*
 * record.h - which pages of an image a program touched first after a restore, beside the image.
 *
 * IMAGE.record belongs to the one image whose UUID it names; it is replaced as a whole. Every page has a checksum of
 * its own, so that it can be read without the rest of its block. Nothing but speed depends on it.
 *
 *	0   "FSNAPREC"
 *	8   UUID of the image
 *	24  number of entries
 *	32  checksum of the entries
 *	40  entries: number of the page (block * pages of a block + page in it), checksum of the page
 */
#ifndef RESTORER_RECORD_H
#define RESTORER_RECORD_H

#include "store/store.h"

struct record_entry {
	uint64_t page;
	uint64_t checksum;
};

uint64_t record_checksum(const void *page);

/* Where the record of an image is, or would be; -1: it has no name. */
int record_path(const struct image *image, char *path, size_t size);

/* malloc'ed, sorted by page, each once; NULL: there is none that is good. */
struct record_entry *record_read(const struct image *image, const char *path, size_t *n);

/* Calls no allocator. */
int record_write(const struct image *image, const char *path, const struct record_entry *entries, size_t n);

#endif
