/*
 * Protection keys: the numbers a program has allocated are its own again, and no others;
 * memory carries the keys it carried, content included, and a thread's rights (PKRU)
 * are what they were. The key the kernel took for execute-only memory is out of the way.
 */
#include "specimen_memory.h"

enum { PAGES = 3 };

int main(void)
{
	int given_back = pkey_alloc(0, 0);
	if (given_back < 0)
		specimen_skip("no protection keys: %s", strerror(errno));
	char *code = anonymous(1, PROT_READ | PROT_WRITE);
	memcpy(code, "\xb8\x2c\x00\x00\x00\xc3", 6); /* mov eax, 44; ret */
	MUST(mprotect(code, PAGE, PROT_EXEC));
	int closed = MUST(pkey_alloc(0, PKEY_DISABLE_ACCESS)), readonly = MUST(pkey_alloc(0, PKEY_DISABLE_WRITE));
	MUST(pkey_free(given_back));
	char *area = anonymous(3 * PAGES, PROT_READ | PROT_WRITE);
	pattern_fill(area, 3 * PAGES * PAGE, 1);
	MUST(pkey_mprotect(area, PAGES * PAGE, PROT_READ | PROT_WRITE, closed));
	MUST(pkey_mprotect(area + PAGES * PAGE, PAGES * PAGE, PROT_READ | PROT_WRITE, readonly));
	catch_faults();

	while (specimen_round()) {
		specimen_ready();
		expect_int("rights of the closed key", PKEY_DISABLE_ACCESS, pkey_get(closed));
		expect_int("rights of the other", PKEY_DISABLE_WRITE, pkey_get(readonly));
		expect_int("reading what is closed", SIGSEGV, access_signal(area, false));
		expect_int("for the reason that it is", SEGV_PKUERR, fault_code);
		expect_int("reading what is read-only", 0, access_signal(area + PAGES * PAGE, false));
		expect_int("writing it", SIGSEGV, access_signal(area + PAGES * PAGE, true));
		expect_int("what has no key", 0, access_signal(area + 2 * PAGES * PAGE, true));
		pkey_set(closed, 0);
		expect_pattern("content", area, 3 * PAGES * PAGE, 1);
		pkey_set(closed, PKEY_DISABLE_ACCESS);
		expect_int("key of the mapping", closed, (int)smaps_number(area, "ProtectionKey"));
		expect_int("execute-only code", 44, ((int (*)(void))code)());
		int next = pkey_alloc(0, 0);
		expect_int("the number that was given back is free", given_back, next);
		pkey_free(next);
	}
	return specimen_end();
}
