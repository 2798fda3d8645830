/*
 * Private anonymous memory comes back byte for byte: patterns, pages that were
 * touched but hold zeroes, and pages that were never touched. It must still be
 * ordinary anonymous memory: MADV_DONTNEED gives zeroes, never the old bytes.
 *
 * harness: musl
 */
#include "specimen.h"

#include <sys/mman.h>

enum { PAGE = 4096, PAGES = 96 };

static bool has_pattern(int page)
{
	return page % 3 == 0;
}

static bool touched_zero(int page)
{
	return page % 3 == 1;
}

static void fill(char *area, uint64_t seed)
{
	for (int i = 0; i < PAGES; i++) {
		if (has_pattern(i))
			pattern_fill(area + i * PAGE, PAGE, seed + (uint64_t)i);
		else if (touched_zero(i))
			*(volatile char *)(area + i * PAGE) = 0;
	}
}

static void check(const char *area, uint64_t seed)
{
	for (int i = 0; i < PAGES; i++) {
		if (has_pattern(i))
			expect_pattern("written page", area + i * PAGE, PAGE, seed + (uint64_t)i);
		else
			expect_zero("page of zeroes", area + i * PAGE, PAGE);
	}
}

int main(void)
{
	char *area = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

	for (uint64_t seed = 1000; specimen_round(); seed += 1000) {
		fill(area, seed);
		specimen_ready();
		check(area, seed);
		MUST(madvise(area, PAGES * PAGE, MADV_DONTNEED));
		expect_zero("all pages after MADV_DONTNEED", area, PAGES * PAGE);
	}
	return specimen_end();
}
