/*
 * ahead.h - memory that is there before it is wanted: a page that comes by a fault takes 2 to 4 us, one that is asked for
 * with others 0.6, and who stands still waits for each.
 */
#ifndef ENGINE_AHEAD_H
#define ENGINE_AHEAD_H

#include <stddef.h>

/* From here on what is freed stays with malloc(3), for which there is mallopt(3): whether that may be is the program's
 * affair, not a library's. */
void ahead_keep_heap(void);

/* So much of what malloc(3) gives the calling thread next. A hint: nothing is done where it would not be kept, nor before
 * Linux 5.14. */
void ahead_heap(size_t bytes);

#endif
