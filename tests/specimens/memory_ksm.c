/*
 * Pages that the kernel has merged (KSM, MADV_MERGEABLE) hold what they held, are
 * still to be merged, and are private: writing to one changes no other. A process that
 * wants all its memory merged (PR_SET_MEMORY_MERGE) still does, but for what it took out.
 *
 * harness: root
 */
#include "specimen_memory.h"

#include <sys/prctl.h>

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif

enum { PAGES = 64 };

static bool write_sysfs(const char *name, const char *value)
{
	char path[64];
	snprintf(path, sizeof(path), "/sys/kernel/mm/ksm/%s", name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool written = fd >= 0 && write(fd, value, strlen(value)) > 0;
	if (fd >= 0)
		close(fd);
	return written;
}

static char read_sysfs(const char *name)
{
	char path[64], c = '?';
	snprintf(path, sizeof(path), "/sys/kernel/mm/ksm/%s", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, &c, 1) != 1)
		c = '?';
	if (fd >= 0)
		close(fd);
	return c;
}

/* ksm_stat has "key value" without a colon. */
static long merging(void)
{
	char line[128];
	long n = 0;
	FILE *stat = fopen("/proc/self/ksm_stat", "re");
	while (stat && fgets(line, sizeof(line), stat))
		sscanf(line, "ksm_merging_pages %ld", &n);
	if (stat)
		fclose(stat);
	return n;
}

static void merge_now(void)
{
	char was = read_sysfs("run");
	if (!write_sysfs("run", "1"))
		specimen_skip("/sys/kernel/mm/ksm/run cannot be written");
	for (long long end = now_ms() + 8000; merging() < PAGES / 2 && now_ms() < end;)
		sleep_ms(20);
	if (merging() < PAGES / 2)
		specimen_skip("the kernel merges no pages (ksm_stat says %ld)", merging());
	if (was == '0')
		write_sysfs("run", "0");
}

int main(void)
{
	char *area = anonymous(PAGES, PROT_READ | PROT_WRITE), *out = anonymous(PAGES, PROT_READ | PROT_WRITE);
	for (int page = 0; page < PAGES; page++)
		pattern_fill(area + page * PAGE, PAGE, 7);
	if (madvise(area, PAGES * PAGE, MADV_MERGEABLE) < 0)
		specimen_skip("this kernel has no KSM");
	merge_now();
	bool all = prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) == 0; /* Linux 6.4 */
	if (all)
		MUST(madvise(out, PAGES * PAGE, MADV_UNMERGEABLE));

	while (specimen_round()) {
		specimen_ready();
		for (int page = 0; page < PAGES; page++)
			expect_pattern("a merged page", area + page * PAGE, PAGE,
				       page < specimen_number() - 1 ? 100 + (uint64_t)page : 7);
		int page = specimen_number() - 1;
		pattern_fill(area + page * PAGE, PAGE, 100 + (uint64_t)page);
		expect_pattern("its neighbour after a write", area + (page + 1) * PAGE, PAGE, 7);
		expect_int("to be merged", 1, has_flag(area, "mg"));
		expect_int("all memory to be merged", all, prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1);
		expect_int("but not this", 0, has_flag(out, "mg"));
		char *more = anonymous(1, PROT_READ);
		expect_int("new memory to be merged", all, has_flag(more, "mg"));
		MUST(munmap(more, PAGE));
	}
	return specimen_end();
}
