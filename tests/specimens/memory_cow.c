/*
 * A parent and eight children share most of their pages copy-on-write; each has
 * written to some of its own. Everybody sees its own values, and writing after
 * the restore stays private.
 */
#include "specimen.h"

#include <sys/mman.h>
#include <sys/wait.h>

enum { PAGE = 4096, PAGES = 512, CHILDREN = 8 };

static char *area;

static void write_own(int who)
{
	for (int page = who; page < PAGES; page += 64)
		pattern_fill(area + page * PAGE, PAGE, 1000 + (uint64_t)who);
}

/* who: 0 the parent, 1.. the children. The parent's own pages were written after the forks. */
static void check(int who)
{
	for (int page = 0; page < PAGES; page++) {
		bool own = page % 64 == who;
		expect_pattern(own ? "page of my own" : "page shared with the family",
			       area + page * PAGE, PAGE,
			       own ? 1000 + (uint64_t)who : (uint64_t)page);
	}
	write_own(who);
}

int main(void)
{
	area = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0));
	for (int page = 0; page < PAGES; page++)
		pattern_fill(area + page * PAGE, PAGE, (uint64_t)page);
	for (int who = 1; who <= CHILDREN; who++) {
		if (MUST(fork()))
			continue;
		write_own(who);
		while (specimen_child_round())
			check(who);
		_exit(specimen_end());
	}
	write_own(0);
	sleep_ms(20);
	while (specimen_round()) {
		specimen_ready();
		check(0);
		specimen_await(CHILDREN);
	}
	for (int i = 0; i < CHILDREN; i++) {
		int status = -1;
		expect_ok("waiting for a child", wait(&status));
		expect_int("child's status", 0, status);
	}
	return specimen_end();
}
