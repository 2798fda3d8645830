/*
 * The heap made by brk goes on where it was: its content, its end, and growing
 * and shrinking it; malloc's own bookkeeping survives with it.
 *
 * harness: musl
 */
#include "specimen.h"

#include <sys/syscall.h>

/* musl's sbrk refuses to move the break, so ask the kernel; it is put back each time. */
static char *move_break(char *to)
{
	return (char *)syscall(SYS_brk, to);
}

enum { BLOCKS = 300 };

int main(void)
{
	char *blocks[BLOCKS];
	for (int i = 0; i < BLOCKS; i++) {
		size_t size = 16 + (size_t)i * 37;
		blocks[i] = malloc(size);
		pattern_fill(blocks[i], size, (uint64_t)i);
	}

	while (specimen_round()) {
		char *end = move_break(NULL);
		specimen_ready();
		expect_hex("the end of the heap", (uintptr_t)end, (uintptr_t)move_break(NULL));
		for (int i = 0; i < BLOCKS; i++) {
			size_t size = 16 + (size_t)i * 37;
			expect_pattern("block", blocks[i], size, (uint64_t)i);
		}
		for (int i = 0; i < BLOCKS; i += 2) {
			size_t size = 16 + (size_t)i * 37;
			free(blocks[i]);
			blocks[i] = malloc(size);
			pattern_fill(blocks[i], size, (uint64_t)i);
		}
		/* malloc may have moved the break in between. */
		end = move_break(NULL);
		char *more = end + 3 * 4096;
		for (int i = 0; i < 2; i++) {
			if (!expect_hex("growing the heap", (uintptr_t)more,
					(uintptr_t)move_break(more)))
				break;
			char *first_page = end + (-(uintptr_t)end & 4095);
			expect_zero("grown heap", first_page, (size_t)(more - first_page));
			memset(first_page, 7, (size_t)(more - first_page));
			move_break(end);
		}
	}
	return specimen_end();
}
