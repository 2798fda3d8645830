/*
 * A family grown at random: every process writes, drops, unmaps, maps anew, protects and moves
 * pages of what it has inherited, and forks now and then, in any order. Afterwards each has the
 * content it had, at each address, whatever its relatives have there, and what was shared is.
 *
 * harness: shares
 */
#include "specimen.h"

#include <sys/mman.h>
#include <sys/wait.h>

enum { PAGE = 4096, PAGES = 96, PROCESSES = 24, STEPS = 40 };
enum { DATA = 2, MAPPINGS }; /* two anonymous ones, and one of the program's file */

static char *area[MAPPINGS];
static char in_data[(PAGES + 1) * PAGE] = { 1 };
/* How each page may be used; 0: it is not there. */
static unsigned char use[MAPPINGS][PAGES];
static int *born, *ready;
static uint64_t dice;

static unsigned roll(unsigned sides)
{
	dice = dice * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(dice >> 33) % sides;
}

static void set_use(unsigned which, unsigned page, unsigned n, unsigned char prot)
{
	memset(&use[which][page], prot, n);
}

static bool all(unsigned which, unsigned page, unsigned n, unsigned char prot)
{
	for (unsigned i = page; i < page + n; i++)
		if ((use[which][i] & prot) != prot)
			return false;
	return true;
}

static void step(void)
{
	unsigned which = roll(MAPPINGS), page = roll(PAGES), n = 1 + roll(12);
	if (page + n > PAGES)
		n = PAGES - page;
	char *at = area[which] + page * PAGE;
	bool there = all(which, page, n, PROT_READ);
	switch (roll(10)) {
	case 0:
		MUST(munmap(at, n * PAGE));
		set_use(which, page, n, 0);
		break;
	case 1:
		if (which == DATA)
			break;
		MUST(mmap(at, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		set_use(which, page, n, PROT_READ | PROT_WRITE);
		break;
	case 2:
	case 3:
		if (there) {
			unsigned prot = PROT_READ | (roll(2) ? PROT_WRITE : 0);
			MUST(mprotect(at, n * PAGE, (int)prot));
			set_use(which, page, n, (unsigned char)prot);
		}
		break;
	case 4:
		if (there)
			MUST(madvise(at, n * PAGE, MADV_DONTNEED));
		break;
	case 5:
		if (n == 1 && there && which == 1) { /* moved here from another mapping */
			char *from = area[which - 1] + page * PAGE;
			if (!use[which - 1][page])
				break;
			MUST(mremap(from, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at));
			use[which][page] = use[which - 1][page];
			use[which - 1][page] = 0;
		}
		break;
	default:
		if (all(which, page, n, PROT_READ | PROT_WRITE))
			pattern_fill(at, n * PAGE, dice);
	}
}

static uint64_t sum(unsigned which, unsigned page)
{
	const uint64_t *words = (const uint64_t *)(area[which] + page * PAGE);
	uint64_t total = 0;
	for (int i = 0; i < PAGE / 8; i++)
		total = total * 31 + words[i];
	return total;
}

static uint64_t sums[MAPPINGS][PAGES];

static void note(void)
{
	for (unsigned which = 0; which < MAPPINGS; which++)
		for (unsigned page = 0; page < PAGES; page++)
			sums[which][page] = use[which][page] ? sum(which, page) : 0;
}

static void check(void)
{
	for (unsigned which = 0; which < MAPPINGS; which++)
		for (unsigned page = 0; page < PAGES; page++)
			if (use[which][page])
				expect_hex("sum of a page", sums[which][page], sum(which, page));
	for (int i = 0; i < 3; i++)
		step();
	note();
}

/* Returns in every process of the family, with its own children counted. */
static int grow(int *children)
{
	for (int i = 0; i < STEPS; i++) {
		step();
		if (roll(6) == 0) {
			int number = __atomic_fetch_add(born, 1, __ATOMIC_SEQ_CST);
			if (number >= PROCESSES)
				continue;
			uint64_t next = dice;
			if (MUST(fork()) == 0) {
				dice = next ^ (uint64_t)number * 0x9e3779b97f4a7c15ull;
				*children = 0;
				grow(children);
				return 1;
			}
			(*children)++;
		}
	}
	return 0;
}

static void end_children(int children)
{
	for (int i = 0; i < children; i++) {
		int status = -1;
		expect_ok("waiting for a child", wait(&status));
		expect_int("child's status", 0, status);
	}
}

int main(void)
{
	int children = 0;
	dice = (uint64_t)getpid() * 77 + (uint64_t)now_ms();
	born = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	ready = born + 1;
	for (unsigned which = 0; which < MAPPINGS; which++) {
		area[which] = which == DATA ? (char *)(((uintptr_t)in_data + PAGE - 1) & -(uintptr_t)PAGE) :
					   MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
						     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		set_use(which, 0, PAGES, PROT_READ | PROT_WRITE);
		pattern_fill(area[which], PAGES / 2 * PAGE, which);
	}
	*born = 1;
	bool child = grow(&children);
	note();
	__atomic_add_fetch(ready, 1, __ATOMIC_SEQ_CST);
	while (child && specimen_child_round())
		check();
	int most = PROCESSES;
	while (!child && __atomic_load_n(ready, __ATOMIC_SEQ_CST) <
				 (*born < most ? *born : most))
		sleep_ms(1);
	while (!child && specimen_round()) {
		specimen_ready();
		check();
		specimen_await((*born < most ? *born : most) - 1);
	}
	end_children(children);
	return specimen_end();
}
