/*
 * Memory that cannot become executable (PR_SET_MDWE): refused as before, in the process, in a child
 * that inherited it, and not in the child of one that does not hand it on; what was executable and has
 * been written on still runs.
 */
#include "specimen.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_GET_MDWE 66
#endif
enum { REFUSE_EXEC_GAIN = 1, NO_INHERIT = 2, PAGE = 4096 };

static int (*code)(void); /* mov $42, %eax; ret */

static void check(const char *who, int mdwe)
{
	expect_int(who, mdwe, prctl(PR_GET_MDWE, 0, 0, 0, 0));
	expect_int("code of the program's own", 42, code());
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int gained = mprotect(page, PAGE, PROT_READ | PROT_EXEC);
	void *both = mmap(NULL, PAGE, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mdwe & REFUSE_EXEC_GAIN) {
		expect_int("a page cannot become executable", -1, gained);
		expect_int("nor be both", 1, both == MAP_FAILED);
	} else {
		expect_int("a page becomes executable", 0, gained);
		expect_int("or is both", 1, both != MAP_FAILED);
	}
	munmap(page, PAGE);
	if (both != MAP_FAILED)
		munmap(both, PAGE);
}

static void check_child(const char *who, int mdwe)
{
	pid_t pid = MUST(fork());
	if (pid == 0) {
		check(who, mdwe);
		_exit(specimen_end());
	}
	int status = -1;
	MUST(waitpid(pid, &status, 0));
	expect_int("status of a child made now", 0, status);
}

/* A process of its own, and what its children have. */
static void live(int set, int mdwe, int handed_on)
{
	if (set)
		MUST(prctl(PR_SET_MDWE, set, 0, 0, 0));
	while (specimen_child_round()) {
		check("a child", mdwe);
		check_child("its child", handed_on);
	}
	_exit(specimen_end());
}

int main(void)
{
	static const unsigned char text[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
	if (prctl(PR_GET_MDWE, 0, 0, 0, 0) < 0)
		specimen_skip("no PR_SET_MDWE here: Linux 6.3");
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(page, text, sizeof(text));
	MUST(mprotect(page, PAGE, PROT_READ | PROT_EXEC));
	code = (int (*)(void))(uintptr_t)page;
	if (fork() == 0)
		live(REFUSE_EXEC_GAIN | NO_INHERIT, REFUSE_EXEC_GAIN | NO_INHERIT, 0);
	if (fork() == 0)
		live(0, 0, 0);
	MUST(prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0));
	if (fork() == 0)
		live(0, REFUSE_EXEC_GAIN, REFUSE_EXEC_GAIN);
	while (specimen_round()) {
		specimen_ready();
		check("the first", REFUSE_EXEC_GAIN);
		check_child("its child", REFUSE_EXEC_GAIN);
		specimen_await(3);
	}
	return specimen_end();
}
