/*
 * Mappings keep their protection and their content under it: PROT_NONE and
 * read-only regions that hold data, holes between mappings, a guard page that
 * faults, an executable page that still runs, and the advice given to a region.
 */
#include "specimen.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

enum { PAGE = 4096 };

static sigjmp_buf escape;
static volatile int fault_code;

static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)number, (void)context;
	fault_code = info->si_code;
	siglongjmp(escape, 1);
}

/* SEGV_MAPERR, SEGV_ACCERR, or 0 if the access went through. */
static int access_fault(volatile char *at, bool writing)
{
	fault_code = 0;
	if (sigsetjmp(escape, 1) == 0) {
		if (writing)
			*at = *at;
		else
			(void)*at;
	}
	return fault_code;
}

static char *region(int pages, int protection, uint64_t seed)
{
	char *area = MUST(mmap(NULL, (size_t)pages * PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	pattern_fill(area, (size_t)pages * PAGE, seed);
	MUST(mprotect(area, (size_t)pages * PAGE, protection));
	return area;
}

int main(void)
{
	struct sigaction act = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	MUST(sigaction(SIGSEGV, &act, NULL));

	char *none = region(3, PROT_NONE, 1);
	char *readonly = region(3, PROT_READ, 2);
	char *holed = region(5, PROT_READ | PROT_WRITE, 3);
	char *code = region(1, PROT_READ | PROT_WRITE, 4);
	memcpy(code, "\xb8\x2a\x00\x00\x00\xc3", 6); /* mov eax, 42; ret */
	MUST(mprotect(code, PAGE, PROT_READ | PROT_EXEC));
	char *advised = region(4, PROT_READ | PROT_WRITE, 5);
	MUST(madvise(advised, 2 * PAGE, MADV_DONTFORK));
	MUST(madvise(advised, 2 * PAGE, MADV_DONTDUMP));
	MUST(madvise(advised + 2 * PAGE, 2 * PAGE, MADV_WIPEONFORK));
	MUST(munmap(holed + 2 * PAGE, PAGE)); /* last: the next mapping would fill it */

	while (specimen_round()) {
		specimen_ready();
		expect_int("reading a PROT_NONE region faults", SEGV_ACCERR,
			   access_fault(none, false));
		MUST(mprotect(none, 3 * PAGE, PROT_READ));
		expect_pattern("content under PROT_NONE", none, 3 * PAGE, 1);
		MUST(mprotect(none, 3 * PAGE, PROT_NONE));

		expect_int("reading a read-only region", 0, access_fault(readonly, false));
		expect_int("writing a read-only region faults", SEGV_ACCERR,
			   access_fault(readonly, true));
		expect_pattern("content of a read-only region", readonly, 3 * PAGE, 2);

		expect_int("the hole faults", SEGV_MAPERR, access_fault(holed + 2 * PAGE, false));
		expect_pattern("before the hole", holed, 2 * PAGE, 3);
		char whole[5 * PAGE];
		pattern_fill(whole, sizeof(whole), 3);
		expect_bytes("after the hole", whole + 3 * PAGE, holed + 3 * PAGE, 2 * PAGE);

		expect_int("code in anonymous memory", 42, ((int (*)(void))code)());
		expect_int("writing code faults", SEGV_ACCERR, access_fault(code, true));

		expect_pattern("advised region", advised, 4 * PAGE, 5);
		char text[4096] = "", line[512];
		FILE *smaps = fopen("/proc/self/smaps", "r");
		char start[2][32];
		snprintf(start[0], 32, "%lx-", (unsigned long)advised);
		snprintf(start[1], 32, "%lx-", (unsigned long)advised + 2 * PAGE);
		int at = -1;
		while (fgets(line, sizeof(line), smaps)) {
			if (strchr(line, '-') && strchr(line, '-') - line < 17)
				at = strncmp(line, start[0], strlen(start[0])) == 0   ? 0
				     : strncmp(line, start[1], strlen(start[1])) == 0 ? 1
										      : -1;
			if (at >= 0 && strncmp(line, "VmFlags:", 8) == 0) {
				if (at == 0) {
					expect_int("MADV_DONTFORK kept", 1,
						   strstr(line, " dc") != NULL);
					expect_int("MADV_DONTDUMP kept", 1,
						   strstr(line, " dd") != NULL);
				} else {
					expect_int("MADV_WIPEONFORK kept", 1,
						   strstr(line, " wf") != NULL);
				}
				strncat(text, line, sizeof(text) - strlen(text) - 1);
			}
		}
		fclose(smaps);
		expect_int("both advised regions are mappings of their own", 1, text[0] != '\0');
	}
	return specimen_end();
}
