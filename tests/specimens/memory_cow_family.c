/*
 * Copy-on-write sharing is still sharing: a parent, sixteen workers and a grandchild have the
 * frames in common that they had in common, also where the parent has since written, unmapped
 * or mapped something else, and where a child has unmapped, protected or dropped a part.
 * Everybody sees its own content; writing stays private.
 *
 * harness: shares
 */
#include "specimen.h"

#include <sys/mman.h>
#include <sys/wait.h>

enum { PAGE = 4096, PAGES = 64, WORKERS = 16, GRANDCHILD = WORKERS + 1 };
enum area { PLAIN, WRITTEN, HALVED, HANDED, REPLACED, DROPPED, ADVISED, TEXT, AREAS };

static char *area[AREAS];
static int *born;
static char in_data[PAGES * PAGE] = { 1 }; /* a private mapping of the program's file */

/* Parts of HALVED and TEXT that a worker treats differently. */
enum { FIRST = 8, COUNT = 16 };

static char *page_of(enum area which, int page)
{
	return area[which] + page * PAGE;
}

static void fill(enum area which, uint64_t seed)
{
	for (int page = 0; page < PAGES; page++)
		pattern_fill(page_of(which, page), PAGE, seed + (uint64_t)page);
}

static void prepare(void)
{
	for (int which = 0; which < AREAS; which++) {
		area[which] = which == TEXT ? (char *)(((uintptr_t)in_data + PAGE - 1) & -(uintptr_t)PAGE) :
					      MUST(mmap(NULL, 2 * PAGES * PAGE, PROT_NONE,
							MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		if (which != TEXT)
			MUST(mprotect(area[which], PAGES * PAGE, PROT_READ | PROT_WRITE));
		for (int page = 0; page < PAGES - 1; page++)
			pattern_fill(page_of(which, page), PAGE, 1000 * (uint64_t)which + (uint64_t)page);
	}
}

/* What worker `who` does to its memory after its birth. */
static void differ(int who)
{
	pattern_fill(page_of(PLAIN, who), PAGE, 50000 + (uint64_t)who);
	if (who == 1)
		fill(HANDED, 60000); /* before the grandchild is born */
	if (who == 2)
		MUST(munmap(page_of(HALVED, PAGES / 2), PAGES / 2 * PAGE));
	if (who == 3)
		MUST(mprotect(page_of(HALVED, FIRST), COUNT * PAGE, PROT_READ));
	if (who == 4)
		MUST(mprotect(page_of(HALVED, FIRST), COUNT * PAGE, PROT_NONE));
	if (who == 5)
		MUST(madvise(page_of(DROPPED, FIRST), COUNT * PAGE, MADV_DONTNEED));
	if (who == 6)
		MUST(madvise(page_of(TEXT, FIRST), COUNT * PAGE, MADV_DONTNEED));
	if (who == 7)
		MUST(madvise(page_of(ADVISED, 0), PAGES * PAGE, MADV_DONTFORK));
	if (who == 8)
		MUST(mlock(page_of(ADVISED, 0), PAGES * PAGE));
}

/* The parent, when all are born: from here on its children have these frames without it. */
static void part_with_the_children(void)
{
	fill(WRITTEN, 70000);
	MUST(munmap(area[REPLACED], PAGES * PAGE));
	MUST(mmap(area[REPLACED] + PAGE, 8 * PAGE, PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	pattern_fill(area[REPLACED] + PAGE, 8 * PAGE, 80000);
	MUST(madvise(area[ADVISED], PAGES * PAGE, MADV_WIPEONFORK));
}

static void expect_page(const char *what, enum area which, int page, uint64_t seed)
{
	expect_pattern(what, page_of(which, page), PAGE, seed + (uint64_t)page);
}

static void check_area(int who, enum area which)
{
	bool worker_1 = who == 1 || who == GRANDCHILD;
	for (int page = 0; page < PAGES - 1; page++) {
		bool part = page >= FIRST && page < FIRST + COUNT;
		if (which == PLAIN && who && page == (who == GRANDCHILD ? 1 : who))
			expect_page("page of my own", which, page, 50000);
		else if (which == WRITTEN && who == 0)
			expect_page("page the parent wrote", which, page, 70000);
		else if (which == HANDED && worker_1)
			expect_page("page handed to a grandchild", which, page, 60000);
		else if (which == DROPPED && who == 5 && part)
			expect_zero("page dropped", page_of(which, page), PAGE);
		else if (which == TEXT && who == 6 && part)
			expect_zero("page dropped, of the file", page_of(which, page), PAGE);
		else if ((which == HALVED && who == 2 && page >= PAGES / 2) ||
			 (which == HALVED && who == 4 && part) || (which == REPLACED && who == 0))
			continue;
		else
			expect_page("page of the family", which, page, 1000 * (uint64_t)which);
	}
}

/* Nobody touches the last page until it checks: what one writes there no other sees. */
static void check_mark(int who)
{
	char *last = page_of(PLAIN, PAGES - 1);
	expect_int("mark on a page nobody else sees", specimen_number() > 1 ? 100 + who : 0, *last);
	*last = (char)(100 + who);
}

static void check(int who)
{
	for (int which = 0; which < AREAS; which++)
		check_area(who, which);
	if (who == 0)
		expect_pattern("what the parent mapped instead", area[REPLACED] + PAGE, 8 * PAGE, 80000);
	check_mark(who);
}

static void worker(int who)
{
	differ(who);
	if (who == 1 && MUST(fork()) == 0)
		who = GRANDCHILD;
	__atomic_add_fetch(born, 1, __ATOMIC_SEQ_CST);
	while (specimen_child_round())
		check(who);
	_exit(specimen_end());
}

int main(void)
{
	prepare();
	born = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	/* A heap that is shared, too, and grows on after the restore. */
	char *heap[32];
	for (int i = 0; i < 32; i++)
		pattern_fill(heap[i] = MUST(malloc(10000)), 10000, (uint64_t)i);
	for (int who = 1; who <= WORKERS; who++)
		if (MUST(fork()) == 0)
			worker(who);
	while (__atomic_load_n(born, __ATOMIC_SEQ_CST) <= WORKERS)
		sleep_ms(1);
	part_with_the_children();
	while (specimen_round()) {
		specimen_ready();
		check(0);
		for (int i = 0; i < 32; i++)
			expect_pattern("heap", heap[i], 10000, (uint64_t)i);
		free(MUST(malloc(100000)));
		specimen_await(WORKERS + 1);
	}
	for (int i = 0; i < WORKERS; i++) {
		int status = -1;
		expect_ok("waiting for a worker", wait(&status));
		expect_int("worker's status", 0, status);
	}
	return specimen_end();
}
