/*
 * What a program may do to its memory while a restore still brings it. Every page holds its number; what is expected
 * of each is known whatever has come by then. It begins when WORK/go is there, which is before it is restored, and looks
 * again at WORK/again.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8, THREADS = 8 };

static FILE *result;
static size_t pages; /* of a region */

static void check(const char *what, bool good)
{
	fprintf(result, "%s %s\n", good ? "ok" : "FAIL", what);
	fflush(result);
}

static uint64_t *region(uint64_t seed)
{
	uint64_t *at = mmap(NULL, (pages + 1) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(at + pages * WORDS, PAGE); /* so that regions are mappings of their own */
	for (size_t i = 0; i < pages; i++)
		at[i * WORDS] = at[i * WORDS + WORDS - 1] = seed + i;
	return at;
}

/* Pages [from, to) of a region that was made with seed are as they were, or, with seed 0, zeroes. */
static bool holds(const uint64_t *at, uint64_t seed, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++) {
		uint64_t wanted = seed ? seed + i : 0;
		if (at[i * WORDS] != wanted || at[i * WORDS + WORDS - 1] != wanted || at[i * WORDS + 1] != 0)
			return false;
	}
	return true;
}

static void await(const char *name)
{
	while (access(name, F_OK) != 0)
		usleep(500);
}

/* --- threads that all want pages, each in an order of its own ------------------------------------ */

static uint64_t *crowded;

static void *wander(void *arg)
{
	size_t step = 2 * (size_t)(uintptr_t)arg + 1, n = pages;
	bool good = true;
	for (size_t i = 0, at = step; i < n; i++, at = (at + step * 37) % n)
		good &= crowded[at * WORDS] == 7000000 + at;
	return good ? arg : NULL;
}

static bool crowd(void)
{
	pthread_t thread[THREADS];
	bool good = true;
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&thread[i], NULL, wander, (void *)(i + 1));
	for (int i = 0; i < THREADS; i++) {
		void *said;
		pthread_join(thread[i], &said);
		good &= said != NULL;
	}
	return good;
}

/* --- children ----------------------------------------------------------------------------------------- */

static bool child_says(pid_t child)
{
	int status;
	return waitpid(child, &status, 0) == child && status == 0;
}

static bool fork_sees(uint64_t *at, uint64_t seed)
{
	int gate[2];
	char byte;
	if (pipe(gate) < 0)
		return false;
	pid_t child = fork();
	if (child == 0) { /* what the parent writes from now on is not for it */
		bool good = read(gate[0], &byte, 1) == 1 && holds(at, seed, 0, pages);
		pid_t second = fork(); /* a child of a child, whose memory may still be coming */
		if (second == 0)
			_exit(!holds(at, seed, 0, pages));
		_exit(!(child_says(second) && good));
	}
	for (size_t i = 0; i < pages; i += 3)
		at[i * WORDS] = 1;
	if (write(gate[1], "", 1) != 1)
		return false;
	bool good = child_says(child);
	for (size_t i = 0; i < pages; i++)
		good &= at[i * WORDS] == (i % 3 ? seed + i : 1);
	return good;
}

static bool fork_execs(void)
{
	pid_t child = fork();
	if (child == 0) {
		execl("/bin/true", "true", NULL);
		_exit(1);
	}
	return child_says(child);
}

static bool fork_lacks(uint64_t *at, uint64_t seed)
{
	madvise(at, pages * PAGE, MADV_DONTFORK);
	pid_t child = fork();
	if (child == 0)
		_exit(msync(at, PAGE, MS_ASYNC) == 0 || errno != ENOMEM);
	bool good = child_says(child);
	madvise(at, pages * PAGE, MADV_DOFORK);
	return good && holds(at, seed, 0, pages);
}

/* --- mappings that look as they did --------------------------------------------------------------------- */

/* It is one mapping, and no userfaultfd watches it. */
static bool plain(const uint64_t *at)
{
	char line[512], wanted[64];
	bool here = false, good = false;
	FILE *smaps = fopen("/proc/self/smaps", "r");
	snprintf(wanted, sizeof(wanted), "%lx-%lx ", (unsigned long)(uintptr_t)at,
		 (unsigned long)(uintptr_t)at + pages * PAGE);
	while (smaps && fgets(line, sizeof(line), smaps)) {
		if (strncmp(line, "VmFlags:", 8) != 0)
			here |= strncmp(line, wanted, strlen(wanted)) == 0;
		else if (here)
			here = !(good = strstr(line, " um") == NULL);
		if (good)
			break;
	}
	fclose(smaps);
	return good;
}

int main(int argc, char **argv)
{
	if (argc < 2 || chdir(argv[1]) < 0)
		return 1;
	pages = (size_t)(argc > 2 ? atoi(argv[2]) : 8) * 256;
	uint64_t *quiet = region(1000000), *thrown = region(2000000), *moved = region(3000000), *cut = region(4000000),
		 *forked = region(5000000), *kept = region(6000000), *read_into = region(8000000),
		 *guarded = region(9000000), *sparse = region(10000000);
	crowded = region(7000000);
	madvise(sparse + pages / 2 * WORDS, pages / 2 * PAGE, MADV_DONTNEED);
	result = fopen("result", "w");
	fclose(fopen("ready", "w"));
	await("go");

	size_t half = pages / 2;
	madvise(thrown + half * WORDS, (pages - half) * PAGE, MADV_DONTNEED);
	check("thrown away: zeroes", holds(thrown, 0, half, pages));
	uint64_t *there = mmap(NULL, 2 * pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	moved = mremap(moved, pages * PAGE, 2 * pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, there);
	check("moved, and grown", moved == there);
	check("grown by zeroes", holds(moved + pages * WORDS, 0, 0, 16));
	munmap(cut + 16 * WORDS, 16 * PAGE);
	mmap(cut + 16 * WORDS, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	mprotect(guarded + 8 * WORDS, 8 * PAGE, PROT_READ);
	check("parent and children see what there was at the fork", fork_sees(forked, 5000000));
	check("a child runs another program", fork_execs());
	check("a child has no mapping that it is not to have", fork_lacks(kept, 6000000));
	int zero = open("/dev/zero", O_RDONLY);
	check("the kernel writes to a page", read(zero, read_into + half * WORDS + 1, 64) == 64);
	sparse[(half + 5) * WORDS] = 5;
	check("a page without content is written", sparse[(half + 5) * WORDS + 1] == 0);
	check("threads find their pages", crowd());
	check("thrown away: the rest", holds(thrown, 2000000, 0, half));
	check("moved: all of it", holds(moved, 3000000, 0, pages));
	check("cut: before", holds(cut, 4000000, 0, 16));
	check("cut: new memory", holds(cut + 16 * WORDS, 0, 0, 16));
	check("cut: behind", holds(cut, 4000000, 32, pages));
	check("the kernel wrote only there", holds(read_into, 8000000, 0, pages));
	check("protected in parts", holds(guarded, 9000000, 0, pages));
	check("sparse: with content", holds(sparse, 10000000, 0, half));
	check("sparse: without", holds(sparse, 0, half + 6, pages));
	fclose(fopen("done", "w"));

	await("again");
	check("quiet: all of it", holds(quiet, 1000000, 0, pages));
	check("still zeroes", holds(thrown, 0, half, pages));
	check("still moved", holds(moved, 3000000, 0, pages));
	check("still new", holds(cut + 16 * WORDS, 0, 0, 16));
	check("a mapping as it was", plain(quiet));
	check("... the crowded one, too", plain(crowded));
	madvise(quiet, pages * PAGE, MADV_DONTNEED);
	check("thrown away afterwards: zeroes", holds(quiet, 0, 0, pages));
	fclose(fopen("over", "w"));
	pause();
	return 0;
}
