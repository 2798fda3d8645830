/*
 * Sealed memory (mseal(2), Linux 6.10) is sealed again, with its content, protection
 * and advice; what may still be done to it may, and its neighbour is free.
 */
#include "specimen_memory.h"

#include <sys/syscall.h>

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

enum { PAGES = 6 };

int main(void)
{
	char *area = anonymous(3 * PAGES, PROT_READ | PROT_WRITE);
	pattern_fill(area, 3 * PAGES * PAGE, 1);
	char *sealed = area + PAGES * PAGE;
	MUST(madvise(sealed, PAGES * PAGE, MADV_DONTDUMP));
	MUST(mprotect(sealed, PAGES * PAGE, PROT_READ));
	if (syscall(SYS_mseal, sealed, PAGES * PAGE, 0) < 0)
		specimen_skip("this kernel has no mseal (Linux 6.10)");

	while (specimen_round()) {
		specimen_ready();
		expect_int("smaps calls it sealed", 1, has_flag(sealed, "sl"));
		expect_int("and not to be dumped", 1, has_flag(sealed, "dd"));
		expect_int("its neighbour is not sealed", 0, has_flag(area, "sl"));
		expect_errno("munmap", EPERM, munmap(sealed, PAGE));
		expect_errno("mprotect", EPERM, mprotect(sealed, PAGES * PAGE, PROT_READ | PROT_WRITE));
		expect_errno("mmap over it", EPERM,
			     (intptr_t)mmap(sealed, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		expect_errno("MADV_DONTNEED of what cannot be written", EPERM,
			     madvise(sealed, PAGE, MADV_DONTNEED));
		expect_ok("MADV_WILLNEED", madvise(sealed, PAGE, MADV_WILLNEED));
		expect_ok("mprotect of its neighbour", mprotect(area, PAGE, PROT_READ));
		expect_ok("and back", mprotect(area, PAGE, PROT_READ | PROT_WRITE));
		expect_pattern("content", area, 3 * PAGES * PAGE, 1);
	}
	return specimen_end();
}
