/*
 * index.h - numbers found again by two keys (device and inode, say) in constant time,
 * however many there are.  Start with zeroes; index_free() at the end.
 */
#ifndef ENGINE_INDEX_H
#define ENGINE_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "store/error.h"

struct index {
	size_t used, room; /* room is a power of two, at most three quarters used */
	struct index_entry {
		uint64_t a, b;
		size_t value; /* + 1; 0: the entry is free */
	} *entry;
};

#define INDEX_NONE SIZE_MAX

size_t index_find(const struct index *index, uint64_t a, uint64_t b); /* INDEX_NONE: not there */
int index_add(struct index *index, uint64_t a, uint64_t b, size_t value, struct fsnap_error *err);
void index_free(struct index *index);

#endif
