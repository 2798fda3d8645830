/*
 * Memory that a child does not have (MADV_WIPEONFORK, MAP_DROPPABLE) comes back with its content; in a copy with
 * other process numbers (mode renumbered) it is zero, as in a child, so that generators of random numbers that keep
 * their state there notice (the vDSO's is in such memory).
 */
#include "specimen_memory.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

enum { PAGES = 3 };

int main(void)
{
	char *wiped = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	char *droppable = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
	MUST(madvise(wiped, PAGES * PAGE, MADV_WIPEONFORK));
	bool copy = strcmp(specimen_mode(), "renumbered") == 0;
	while (specimen_round()) {
		pattern_fill(wiped, PAGES * PAGE, 1);
		if (droppable != MAP_FAILED)
			pattern_fill(droppable, PAGES * PAGE, 2);
		specimen_ready();
		if (copy)
			expect_zero("what a child would not have", wiped, PAGES * PAGE);
		else
			expect_pattern("content", wiped, PAGES * PAGE, 1);
		if (droppable != MAP_FAILED && copy)
			expect_zero("what may be dropped", droppable, PAGES * PAGE);
		else if (droppable != MAP_FAILED)
			expect_pattern("what may be dropped", droppable, PAGES * PAGE, 2);
	}
	return specimen_end();
}
