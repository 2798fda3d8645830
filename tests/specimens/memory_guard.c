/*
 * Guard regions (MADV_GUARD_INSTALL, Linux 6.13) are there again: they fault, their
 * neighbours hold what they held, and a region that is removed gives zeroes. In a
 * mapping that is locked as well, under memory that may only be read, and in a file's.
 */
#include "specimen_memory.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

enum { PAGES = 16 };

static void expect_guarded(const char *what, char *area, int from, int to)
{
	for (int page = 0; page < PAGES; page++)
		expect_int(what, page >= from && page < to ? SIGSEGV : 0, access_signal(area + page * PAGE, false));
}

int main(void)
{
	char *area = anonymous(PAGES, PROT_READ | PROT_WRITE);
	pattern_fill(area, PAGES * PAGE, 1);
	if (madvise(area + 4 * PAGE, 3 * PAGE, MADV_GUARD_INSTALL) < 0)
		specimen_skip("this kernel has no guard regions (Linux 6.13)");
	char *locked = anonymous(PAGES, PROT_READ | PROT_WRITE);
	pattern_fill(locked, PAGES * PAGE, 2);
	MUST(madvise(locked, PAGE, MADV_GUARD_INSTALL));
	mlock(locked, PAGES * PAGE); /* locks all, and says ENOMEM */
	char *readonly = anonymous(PAGES, PROT_READ | PROT_WRITE);
	pattern_fill(readonly, PAGES * PAGE, 3);
	MUST(madvise(readonly + 15 * PAGE, PAGE, MADV_GUARD_INSTALL));
	MUST(mprotect(readonly, PAGES * PAGE, PROT_READ));
	char *untouched = anonymous(PAGES, PROT_READ | PROT_WRITE);
	MUST(madvise(untouched + 2 * PAGE, 9 * PAGE, MADV_GUARD_INSTALL));

	char content[PAGES * PAGE];
	pattern_fill(content, sizeof(content), 4);
	int fd = MUST(open(specimen_path("guarded"), O_RDWR | O_CREAT, 0600));
	MUST(write(fd, content, sizeof(content)));
	char *file = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	bool files = madvise(file + 8 * PAGE, 2 * PAGE, MADV_GUARD_INSTALL) == 0; /* Linux 6.15 */
	MUST(close(fd));
	catch_faults();

	while (specimen_round()) {
		MUST(madvise(area + 10 * PAGE, PAGE, MADV_GUARD_INSTALL));
		specimen_ready();
		expect_int("a guard alone", SIGSEGV, access_signal(area + 10 * PAGE, true));
		MUST(madvise(area + 10 * PAGE, PAGE, MADV_GUARD_REMOVE));
		expect_zero("where the guard was", area + 10 * PAGE, PAGE);
		expect_guarded("guard region", area, 4, 7);
		expect_guarded("guard in a locked mapping", locked, 0, 1);
		expect_int("it is locked", 1, has_flag(locked, "lo"));
		expect_guarded("guard in a read-only mapping", readonly, 15, 16);
		expect_guarded("guard in untouched memory", untouched, 2, 11);
		expect_guarded("guard in a file's mapping", file, files ? 8 : 0, files ? 10 : 0);
		expect_bytes("file before the guard", content, file, 8 * PAGE);
		expect_pattern("before the guard", area, 4 * PAGE, 1);
		char whole[PAGES * PAGE];
		pattern_fill(whole, sizeof(whole), 1);
		expect_bytes("behind the guard", whole + 7 * PAGE, area + 7 * PAGE, 3 * PAGE);
		pattern_fill(whole, sizeof(whole), 2);
		expect_bytes("behind the locked guard", whole + PAGE, locked + PAGE, 15 * PAGE);
	}
	return specimen_end();
}
