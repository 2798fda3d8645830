/*
 * Memory that is locked stays locked, and what MCL_FUTURE promised for new
 * mappings still holds; a mapping that grows downwards still grows.
 */
#include "specimen.h"

#include <sys/mman.h>

enum { PAGE = 4096 };

static long locked_kib(void)
{
	char text[64];
	return atol(proc_field("/proc/self/status", "VmLck", text, sizeof(text)));
}

int main(void)
{
	char *region = MUST(
		mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	MUST(mlock(region, 8 * PAGE));
	pattern_fill(region, 8 * PAGE, 4);
	char *space = MUST(mmap(NULL, 600 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	MUST(munmap(space, 600 * PAGE));
	char *top = space + 600 * PAGE;
	char *down = MUST(mmap(top - 2 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0));
	pattern_fill(down, 2 * PAGE, 5);
	long before = locked_kib();

	char *low = down;
	while (specimen_round()) {
		specimen_ready();
		expect_int("locked memory (KiB)", before, locked_kib());
		expect_pattern("locked region", region, 8 * PAGE, 4);
		expect_pattern("growing region", down, 2 * PAGE, 5);
		low -= PAGE;
		*(volatile char *)low = 1; /* SIGSEGV where it does not grow */
		expect_int("it has grown by a page of zeroes", 0, low[1]);
	}
	return specimen_end();
}
