/*
 * coverage.c - in builds that count which lines run (FSNAP_COVERAGE): who ends by _exit(2) counts, too.
 *
 * Pagers, guardians, keepers and other children of fsnap leave that way, and their counters with them. The linker
 * leads their calls here (tools/cmake/Flags.cmake).
 */
void __gcov_dump(void); /* gcc's libgcov */
void __real__exit(int status) __attribute__((noreturn));
void __wrap__exit(int status) __attribute__((noreturn));
void starve_end(void) __attribute__((weak)); /* starve.c */

void __wrap__exit(int status)
{
	if (starve_end)
		starve_end();
	__gcov_dump();
	__real__exit(status);
}
