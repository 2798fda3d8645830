#include "engine/ahead.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE 4096ul
#define PIECE (512ul << 10) /* below what malloc(3) maps by itself */
#define PIECES 16

/* They are held together, or each would be where the one before was. */
void ahead_heap(size_t bytes)
{
	char *pieces[PIECES];
	size_t n = 0;
	for (size_t size; bytes >= PAGE && n < PIECES && (pieces[n] = malloc(size = bytes < PIECE ? bytes : PIECE)); n++) {
		uintptr_t first = ((uintptr_t)pieces[n] + PAGE - 1) & -PAGE;
		uintptr_t end = ((uintptr_t)pieces[n] + size) & -PAGE;
		madvise((void *)first, end - first, MADV_POPULATE_WRITE);
		bytes -= size;
	}
	while (n > 0)
		free(pieces[--n]);
}
