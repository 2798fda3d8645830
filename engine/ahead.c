#include "engine/ahead.h"

#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE 4096ul
#define MAPPED (1u << 20)   /* what malloc(3) maps by itself, and gives back when it is freed */
#define PIECE (512ul << 10) /* below that */
#define PIECES 16

static bool kept;

void ahead_keep_heap(void)
{
	mallopt(M_TRIM_THRESHOLD, 64 << 20); /* what is freed is soon wanted again */
	mallopt(M_TOP_PAD, 1 << 18);
	mallopt(M_MMAP_THRESHOLD, MAPPED); /* which does not grow by itself once another is set (mallopt(3)) */
	kept = true;
}

/* They are held together, or each would be where the one before was. */
void ahead_heap(size_t bytes)
{
	char *pieces[PIECES];
	size_t n = 0;
	if (!kept)
		return;
	for (size_t size; bytes >= PAGE && n < PIECES && (pieces[n] = malloc(size = bytes < PIECE ? bytes : PIECE)); n++) {
		uintptr_t first = ((uintptr_t)pieces[n] + PAGE - 1) & -PAGE;
		uintptr_t end = ((uintptr_t)pieces[n] + size) & -PAGE;
		madvise((void *)first, end - first, MADV_POPULATE_WRITE);
		bytes -= size;
	}
	while (n > 0)
		free(pieces[--n]);
}
