/*
 * ahead.h - memory that is there before it is wanted: a page that comes by a fault takes 2 to 4 us, one that is asked for
 * with others 0.6, and who stands still waits for each.
 */
#ifndef ENGINE_AHEAD_H
#define ENGINE_AHEAD_H

#include <stddef.h>

/* So much of what malloc(3) gives the calling thread next. A hint: where what is freed is not kept (mallopt(3),
 * M_TRIM_THRESHOLD), or before Linux 5.14, nothing is gained. */
void ahead_heap(size_t bytes);

#endif
