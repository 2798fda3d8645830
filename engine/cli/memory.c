/*
 * memory.c - the command's own memory, ahead of what it does.
 */
#include <stdint.h>
#include <sys/mman.h>

#include "engine/ahead.h"
#include "engine/cli/cli.h"

/* What a small dump or restore touches, at once (ahead.h). Where the kernel cannot (before Linux 5.14), it comes by faults. */
void memory_ahead(void)
{
	enum { PAGE = 4096, STACK = 12 * PAGE, HEAP = 30 * PAGE };
	uintptr_t here = (uintptr_t)__builtin_frame_address(0) & -(uintptr_t)PAGE;
	madvise((void *)(here - STACK), STACK, MADV_POPULATE_WRITE);
	ahead_keep_heap();
	ahead_heap(HEAP);
}
