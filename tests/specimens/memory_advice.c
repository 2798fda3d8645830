/*
 * Everything madvise(2) has said about a mapping is still true of it, as smaps shows
 * it and as it behaves: what is not for children is not there in one, what is wiped is
 * zeroes there. Boundaries between differently advised pages are where they were.
 */
#include "specimen_memory.h"

#include <sys/wait.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

enum { PAGES = 8 };

static const struct {
	int advice;
	const char *flag, *what;
} table[] = {
	{ MADV_DONTFORK, "dc", "MADV_DONTFORK" },	{ MADV_WIPEONFORK, "wf", "MADV_WIPEONFORK" },
	{ MADV_DONTDUMP, "dd", "MADV_DONTDUMP" },	{ MADV_HUGEPAGE, "hg", "MADV_HUGEPAGE" },
	{ MADV_NOHUGEPAGE, "nh", "MADV_NOHUGEPAGE" },	{ MADV_MERGEABLE, "mg", "MADV_MERGEABLE" },
	{ MADV_SEQUENTIAL, "sr", "MADV_SEQUENTIAL" },	{ MADV_RANDOM, "rr", "MADV_RANDOM" },
};
enum { N = sizeof(table) / sizeof(table[0]) };

static bool in_child(const char *at, int expected)
{
	pid_t pid = MUST(fork());
	int status;
	if (pid == 0) {
		if (access_signal((volatile char *)at, false))
			_exit(2);
		_exit(*at != 0);
	}
	MUST(waitpid(pid, &status, 0));
	return expect_int("what a child finds (0 zeroes, 1 content, 2 nothing)", expected, WEXITSTATUS(status));
}

int main(void)
{
	char *area = anonymous(N * PAGES, PROT_READ | PROT_WRITE);
	bool knows[N];
	pattern_fill(area, N * PAGES * PAGE, 1);
	/* Half of each part: the other half must stay as it was. */
	for (int i = 0; i < N; i++)
		knows[i] = madvise(area + i * PAGES * PAGE, PAGES / 2 * PAGE, table[i].advice) == 0;
	char *both = anonymous(PAGES, PROT_READ | PROT_WRITE);
	MUST(madvise(both, PAGES * PAGE, MADV_DONTFORK));
	MUST(madvise(both, PAGES * PAGE, MADV_DONTDUMP));
	char *shared = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	MUST(madvise(shared, PAGES * PAGE, MADV_DONTFORK));
	catch_faults();

	while (specimen_round()) {
		specimen_ready();
		for (int i = 0; i < N; i++) {
			char *part = area + i * PAGES * PAGE;
			for (int j = 0; j < N; j++) {
				expect_int(table[j].what, i == j && knows[i], has_flag(part, table[j].flag));
				expect_int("in the other half", 0, has_flag(part + PAGES / 2 * PAGE, table[j].flag));
			}
		}
		expect_int("two pieces of advice: dontfork", 1, has_flag(both, "dc"));
		expect_int("two pieces of advice: dontdump", 1, has_flag(both, "dd"));
		expect_int("shared memory: dontfork", 1, has_flag(shared, "dc"));
		expect_pattern("content", area, N * PAGES * PAGE, 1);
		in_child(area, 2);
		in_child(area + PAGES * PAGE, 0);
		in_child(area + (PAGES + PAGES / 2) * PAGE, 1);
		in_child(shared, 2);
	}
	return specimen_end();
}
