/*
 * Transparent huge pages come back as huge pages where they were, and small ones as
 * small ones: of a region that was to have them, of which a part was split; and of one
 * for which nobody had asked (MADV_COLLAPSE). What is advised stays advised.
 */
#include "specimen_memory.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE_SIZE (2 * MIB)

static char *region(size_t size)
{
	char *at = empty_place(size, HUGE_SIZE);
	return MUST(mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
}

static long huge_kib(const char *at)
{
	return smaps_number(at, "AnonHugePages");
}

/* How often the kernel has made a huge page of small ones by itself, anywhere: it may do that to ours. */
static long collapses(void)
{
	char text[32] = "";
	int fd = open("/sys/kernel/mm/transparent_hugepage/khugepaged/pages_collapsed", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	if (fd >= 0)
		close(fd);
	return atol(text);
}

int main(void)
{
	long collapses_before = collapses();
	char *asked = region(4 * HUGE_SIZE);
	MUST(madvise(asked, 4 * HUGE_SIZE, MADV_HUGEPAGE));
	pattern_fill(asked, 2 * HUGE_SIZE, 1);
	/* Small pages where there could be a huge one: the region was split, and most of it given back. */
	pattern_fill(asked + 2 * HUGE_SIZE, PAGE, 2);
	MUST(madvise(asked + 2 * HUGE_SIZE + PAGE, HUGE_SIZE - PAGE, MADV_DONTNEED));
	char *collapsed = region(2 * HUGE_SIZE);
	pattern_fill(collapsed, 2 * HUGE_SIZE, 3);
	madvise(collapsed, HUGE_SIZE, MADV_COLLAPSE);
	char *refused = region(HUGE_SIZE);
	MUST(madvise(refused, HUGE_SIZE, MADV_NOHUGEPAGE));
	pattern_fill(refused, HUGE_SIZE, 4);
	long asked_kib = huge_kib(asked), collapsed_kib = huge_kib(collapsed);
	long resident_kib = smaps_number(asked, "Rss");
	if (asked_kib == 0)
		specimen_skip("no transparent huge pages to be had (/sys/kernel/mm/transparent_hugepage/enabled)");

	while (specimen_round()) {
		specimen_ready();
		long more = collapses() == collapses_before ? 0 : 2048;
		expect_between("huge pages where they were asked for (KiB)", asked_kib, asked_kib + more,
			       huge_kib(asked));
		expect_between("memory it takes (KiB)", resident_kib, resident_kib + more, smaps_number(asked, "Rss"));
		expect_int("they are still asked for", 1, has_flag(asked, "hg"));
		expect_int("huge pages nobody asked for (KiB)", collapsed_kib, huge_kib(collapsed));
		expect_int("and nobody has since", 0, has_flag(collapsed, "hg"));
		expect_int("no huge pages where they were refused", 0, huge_kib(refused));
		expect_int("they are still refused", 1, has_flag(refused, "nh"));
		expect_pattern("huge", asked, 2 * HUGE_SIZE, 1);
		expect_pattern("small", asked + 2 * HUGE_SIZE, PAGE, 2);
		expect_pattern("collapsed", collapsed, 2 * HUGE_SIZE, 3);
		expect_pattern("refused", refused, HUGE_SIZE, 4);
	}
	return specimen_end();
}
