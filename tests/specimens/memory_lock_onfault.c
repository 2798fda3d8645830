/*
 * Memory locked as it is touched: mlock2(MLOCK_ONFAULT) and mlockall(MCL_FUTURE |
 * MCL_ONFAULT). What had not been touched takes no memory after a restore either.
 */
#include "specimen_memory.h"

#include <sys/resource.h>

enum { PAGES = 64 };

int main(void)
{
	char *area = anonymous(PAGES, PROT_READ | PROT_WRITE);
	if (mlock2(area, PAGES * PAGE, MLOCK_ONFAULT) < 0)
		specimen_skip("mlock2: %s", strerror(errno));
	pattern_fill(area, 3 * PAGE, 1);
	char *whole = anonymous(PAGES, PROT_READ | PROT_WRITE);
	MUST(mlock2(whole, PAGES * PAGE, 0));
	char *readonly = anonymous(PAGES, PROT_READ);
	MUST(mlock(readonly, PAGES * PAGE));
	MUST(mlockall(MCL_FUTURE | MCL_ONFAULT));
	bool future = true;

	while (specimen_round()) {
		long rss = smaps_number(area, "Rss"), locked = smaps_number(area, "Locked");
		specimen_ready();
		expect_int("locked as it is touched", 1, has_flag(area, "lf"));
		expect_int("resident (KiB)", rss, smaps_number(area, "Rss"));
		expect_int("locked (KiB)", locked, smaps_number(area, "Locked"));
		expect_pattern("content", area, 3 * PAGE, 1);
		expect_int("locked at once", 0, has_flag(whole, "lf"));
		expect_int("resident, all of it (KiB)", PAGES * PAGE / 1024, smaps_number(whole, "Rss"));
		expect_int("read-only memory is locked", 1, has_flag(readonly, "lo"));
		char *more = anonymous(PAGES, PROT_READ | PROT_WRITE);
		expect_int("new memory is locked", future, has_flag(more, "lo"));
		expect_int("as it is touched", future, has_flag(more, "lf"));
		expect_int("so it is not present yet", 0, page_present(more));
		MUST(munmap(more, PAGES * PAGE));
		/* The promise itself can be taken back without unlocking anything: by the next mlockall(). */
		MUST(munlockall());
		MUST(mlock2(area, PAGES * PAGE, MLOCK_ONFAULT));
		MUST(mlock2(whole, PAGES * PAGE, 0));
		MUST(mlock(readonly, PAGES * PAGE));
		future = specimen_number() % 2 == 0;
		if (future)
			MUST(mlockall(MCL_FUTURE | MCL_ONFAULT));
	}
	return specimen_end();
}
