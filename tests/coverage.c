/*
 * coverage.c - in builds that count which lines run (FSNAP_COVERAGE): all who end count, however they end.
 *
 * The linker leads calls here (tools/cmake/Flags.cmake). Pagers, guardians, keepers and other children of fsnap leave by
 * _exit(2), and their counters with them; who executes another program, likewise. Some of them have their memory in common
 * with their parent (clone(2) with CLONE_VM): counters begin anew when they are written, or the parent, believing that all
 * is written, would write nothing.
 * What is written then are many files: no call of that is fsnap's, so that nothing is injected there (sweep/programs/stopat.c).
 */
#include <sys/syscall.h>
#include <unistd.h>

#include "coverage.h"

void __gcov_dump(void); /* gcc's libgcov */
void __gcov_reset(void);
void __real___gcov_exit(void);
void __wrap___gcov_exit(void);
int __wrap___gcov_execve(const char *path, char *const argv[], char *const environment[]);
void __real__exit(int status) __attribute__((noreturn));
void __wrap__exit(int status) __attribute__((noreturn));
void starve_end(void) __attribute__((weak)); /* starve.c */

static void announce(void)
{
	if (starve_end)
		starve_end();
	close(COVERAGE_IS_WRITTEN);
}

void __wrap___gcov_exit(void)
{
	static int announced; /* it is called once for each source */
	if (!announced++)
		announce();
	__real___gcov_exit();
}

static void write_counters(void)
{
	__gcov_dump();
	__gcov_reset();
}

int __wrap___gcov_execve(const char *path, char *const argv[], char *const environment[])
{
	write_counters();
	return (int)syscall(SYS_execve, path, argv, environment);
}

void __wrap__exit(int status)
{
	announce();
	write_counters();
	__real__exit(status);
}
