/*
 * changing.c - memory that changes in every way, and knows what it should hold: for tests/cli/chain.py.
 *
 * A region of pages, each with a number and a version in every word; what the version is stands in a table elsewhere.
 * SIGUSR1: a step - pages are written, given back (MADV_DONTNEED: single ones, and so many that whole page tables go),
 * unmapped and mapped anew, moved aside and back (mremap), made guard regions; the heap grows; at the second step a
 * child is forked, which shares the pages and then goes its own way, and at the third another, which executes this
 * program anew.  Of shared memory, and of a file mapped privately and written all over, a few pages change each time,
 * by whoever made them.  SIGUSR2: everything is compared; "ok" or what differs goes to check.PID.N.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096ul
#define PAGES 6144ul /* 24 MiB: a dozen page tables */
#define TABLE 512ul
#define GUARDED UINT32_MAX
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

static char *region;
static uint32_t *version; /* of each page; 0: zeroes; GUARDED */
static unsigned steps, checks, seed = 7;
static char **grown; /* pieces of the heap */
static size_t n_grown;
static char *self;
static bool elder; /* has children */

/* What no userfaultfd tracks. */
enum { SHARED, MAPPED, OTHERS };
#define OTHER_PAGES 2048ul
static uint64_t *other[OTHERS];
static uint32_t *other_version[OTHERS];
static pid_t owner;

static void write_other(int which, size_t page, uint32_t v)
{
	for (size_t i = 0; i < PAGE / sizeof(uint64_t); i += 64)
		other[which][page * (PAGE / sizeof(uint64_t)) + i] = ((uint64_t)v << 32 | page) * 0x9e3779b97f4a7c15u + i;
	other_version[which][page] = v;
}

static void make_others(void)
{
	FILE *file = tmpfile();
	owner = getpid();
	if (!file || ftruncate(fileno(file), OTHER_PAGES * PAGE) < 0)
		abort();
	other[SHARED] = mmap(NULL, OTHER_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	other[MAPPED] = mmap(NULL, OTHER_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fileno(file), 0);
	fclose(file);
	for (int which = 0; which < OTHERS; which++) {
		other_version[which] = calloc(OTHER_PAGES, sizeof(uint32_t));
		for (size_t page = 0; page < OTHER_PAGES; page++)
			write_other(which, page, 1000);
	}
}

static bool others_hold(void)
{
	for (int which = 0; which < OTHERS; which++)
		for (size_t page = 0; page < OTHER_PAGES; page++)
			for (size_t i = 0; i < PAGE / sizeof(uint64_t); i += 64)
				if (other[which][page * (PAGE / sizeof(uint64_t)) + i] !=
				    ((uint64_t)other_version[which][page] << 32 | page) * 0x9e3779b97f4a7c15u + i)
					return false;
	return true;
}

static unsigned any(unsigned below)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 12) % below;
}

static uint64_t word_of(size_t page, uint32_t v)
{
	return v ? ((uint64_t)v << 32 | page) * 0x9e3779b97f4a7c15u : 0;
}

static void write_page(size_t page, uint32_t v)
{
	uint64_t *words = (uint64_t *)(region + page * PAGE);
	for (size_t i = 0; i < PAGE / sizeof(*words); i += 64)
		words[i] = word_of(page, v);
	version[page] = v;
}

static void open_guard(size_t first, size_t n)
{
	for (size_t page = first; page < first + n; page++)
		if (version[page] == GUARDED) {
			madvise(region + page * PAGE, PAGE, MADV_GUARD_REMOVE);
			version[page] = 0;
		}
}

static void drop(size_t first, size_t n)
{
	open_guard(first, n);
	madvise(region + first * PAGE, n * PAGE, MADV_DONTNEED);
	memset(version + first, 0, n * sizeof(*version));
}

static void replace(size_t first, size_t n)
{
	char *at = region + first * PAGE;
	munmap(at, n * PAGE);
	if (mmap(at, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
		abort();
	memset(version + first, 0, n * sizeof(*version));
}

/* Aside and back: the same content, in a mapping that is another. */
static void move(size_t first, size_t n)
{
	char *at = region + first * PAGE;
	char *aside = mmap(NULL, n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	open_guard(first, n);
	if (mremap(at, n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, aside) != aside) {
		munmap(aside, n * PAGE); /* more than one mapping: some may have moved */
		replace(first, n);
	}
	else if (mremap(aside, n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at) != at)
		abort();
}

static void grow_heap(void)
{
	char *piece = malloc(100000);
	char **more = realloc(grown, (n_grown + 1) * sizeof(*more));
	if (!piece || !more)
		abort();
	memset(piece, (int)(n_grown + 1), 100000);
	grown = more;
	grown[n_grown++] = piece;
}

static void step(void)
{
	uint32_t v = ++steps;
	for (int i = 0; i < 60; i++) {
		size_t page = any(PAGES);
		open_guard(page, 1);
		write_page(page, v);
	}
	for (int i = 0; i < 10; i++)
		drop(any(PAGES), 1);
	drop(any(PAGES - 2 * TABLE) % (2 * TABLE), 2 * TABLE); /* wherever tables begin, one of them goes whole */
	replace(any(PAGES - 40), 40);
	move(any(PAGES - 70), 70);
	size_t page = any(PAGES - 8);
	if (madvise(region + page * PAGE, 3 * PAGE, MADV_GUARD_INSTALL) == 0)
		for (int i = 0; i < 3; i++)
			version[page + i] = GUARDED;
	grow_heap();
	for (int i = 0; i < 20 && getpid() == owner; i++)
		write_other(i % OTHERS, any(OTHER_PAGES), v);
	if (steps == 2 && elder && fork() == 0) {
		elder = false;
		seed += (unsigned)getpid();
	}
	if (steps == 3 && elder && fork() == 0)
		execl(self, self, "anew", NULL);
}

static bool is_guarded(size_t page)
{
	int ends[2];
	char byte = 0;
	if (pipe(ends) < 0)
		return false;
	bool guarded = write(ends[1], region + page * PAGE, 1) < 0; /* EFAULT */
	close(ends[0]);
	close(ends[1]);
	(void)byte;
	return guarded;
}

static const char *compare(char *text, size_t size)
{
	for (size_t page = 0; page < PAGES; page++) {
		const uint64_t *words = (uint64_t *)(region + page * PAGE);
		if ((version[page] == GUARDED) != is_guarded(page)) {
			snprintf(text, size, "page %zu: version %u, guard region: %d", page, version[page], is_guarded(page));
			return text;
		}
		for (size_t i = 0; version[page] != GUARDED && i < PAGE / sizeof(*words); i += 64)
			if (words[i] != word_of(page, version[page])) {
				snprintf(text, size, "page %zu word %zu: %llx instead of version %u", page, i,
					 (unsigned long long)words[i], version[page]);
				return text;
			}
	}
	for (size_t piece = 0; piece < n_grown; piece++)
		for (size_t i = 0; i < 100000; i += 1000)
			if (grown[piece][i] != (char)(piece + 1)) {
				snprintf(text, size, "piece %zu of the heap", piece);
				return text;
			}
	if (getpid() == owner && !others_hold())
		return "shared memory, or what is mapped privately";
	return "ok";
}

static void answer(const char *name, unsigned number, const char *text)
{
	char path[64], temporary[64];
	snprintf(path, sizeof(path), "%s.%d.%u", name, getpid(), number);
	snprintf(temporary, sizeof(temporary), "tmp.%d", getpid());
	FILE *out = fopen(temporary, "w");
	if (!out || fputs(text, out) < 0 || fclose(out) || rename(temporary, path) < 0)
		abort();
}

int main(int argc, char **argv)
{
	sigset_t set;
	char text[200];
	self = argv[0];
	elder = argc == 1;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	region = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	version = calloc(PAGES, sizeof(*version));
	for (size_t page = 0; page < PAGES; page++)
		write_page(page, 1000);
	make_others();
	answer("step", 0, "ready");
	for (int signal;;) {
		if (sigwait(&set, &signal))
			continue;
		if (signal == SIGUSR1) {
			step();
			snprintf(text, sizeof(text), "%u", steps);
			answer("step", steps, text);
		} else {
			answer("check", ++checks, compare(text, sizeof(text)));
		}
	}
}
