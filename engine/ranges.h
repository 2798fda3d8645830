/*
 * ranges.h - finding one's place in ranges that are sorted and do not overlap.
 */
#ifndef ENGINE_RANGES_H
#define ENGINE_RANGES_H

#include <stddef.h>
#include <stdint.h>

/* The end of the range that is an element of the array, in whatever unit `at` is. */
typedef uint64_t (*range_end_fn)(const void *element);

/* The first of n elements that reaches beyond `at`; n: none. */
static inline size_t ranges_beyond(const void *array, size_t n, size_t size, range_end_fn end, uint64_t at)
{
	size_t low = 0, high = n;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (end((const char *)array + middle * size) <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

#endif
