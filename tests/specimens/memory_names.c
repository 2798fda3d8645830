/*
 * Names that a program gave its memory (PR_SET_VMA_ANON_NAME), private and shared.
 */
#include "specimen_memory.h"

#include <sys/prctl.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

enum { PAGES = 3 };

static const char *name_of(const char *at, char *buf, size_t size)
{
	char line[4096];
	FILE *maps = fopen("/proc/self/maps", "re");
	buf[0] = '\0';
	while (maps && fgets(line, sizeof(line), maps)) {
		unsigned long start, end;
		const char *name = strchr(line, '[');
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2 && (uintptr_t)at >= start && (uintptr_t)at < end && name)
			snprintf(buf, size, "%.*s", (int)strcspn(name, "\n"), name);
	}
	if (maps)
		fclose(maps);
	return buf;
}

int main(void)
{
	char *own = anonymous(PAGES, PROT_READ | PROT_WRITE), seen[256];
	char *shared = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, own, PAGES * PAGE, "arena") < 0)
		specimen_skip("this kernel keeps no names (CONFIG_ANON_VMA_NAME)");
	bool both = prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, shared, PAGES * PAGE, "board") == 0; /* Linux 6.2 */
	pattern_fill(own, PAGES * PAGE, 1);
	pattern_fill(shared, PAGES * PAGE, 2);

	while (specimen_round()) {
		specimen_ready();
		expect_text("private memory", "[anon:arena]", name_of(own, seen, sizeof(seen)));
		if (both)
			expect_text("shared memory", "[anon_shmem:board]", name_of(shared, seen, sizeof(seen)));
		expect_pattern("its content", own, PAGES * PAGE, 1);
		expect_pattern("and", shared, PAGES * PAGE, 2);
	}
	return specimen_end();
}
