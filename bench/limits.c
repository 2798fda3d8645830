/*
 * limits.c - what this machine can do at best, beside which fsnap's figures stand.
 *
 *	limits warm BYTES           touch that much memory and give it back: in a virtual
 *	                            machine the first touch of host memory is many times
 *	                            slower than every later one, and must not be measured
 *	limits copy-warm BYTES N    memcpy between pages that exist, one thread
 *	limits copy-all BYTES N     the same, a thread on each processor copying its part
 *	limits copy-fresh BYTES N   memcpy into anonymous pages that do not exist yet
 *	limits read FILE N          read(2) of a file, 1 MiB at a time, into the same buffer
 *
 * Each but the first prints N lines "BYTES NANOSECONDS".
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "page.h"

static void must(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static void *map(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(memory != MAP_FAILED, "mmap");
	return memory;
}

/* A different byte, so that no layer below may share the pages. */
static char *map_touched(size_t bytes, int byte)
{
	char *memory = map(bytes);

	memset(memory, byte, bytes);
	return memory;
}

static void print(size_t bytes, uint64_t start)
{
	printf("%zu %llu\n", bytes, (unsigned long long)(now_ns() - start));
}

static void copy_warm(size_t bytes, int rounds)
{
	char *from = map_touched(bytes, 1), *to = map_touched(bytes, 2);

	while (rounds--) {
		uint64_t start = now_ns();

		memcpy(to, from, bytes);
		print(bytes, start);
	}
}

#define THREADS_MAX 64

struct part {
	char *to, *from;
	size_t bytes;
	pthread_t thread;
	pthread_barrier_t *barrier;
	int rounds;
};

/* Between the first barrier and the second, all of them copy. */
static void *copy_part(void *argument)
{
	struct part *part = argument;

	for (int i = 0; i < part->rounds; i++) {
		pthread_barrier_wait(part->barrier);
		memcpy(part->to, part->from, part->bytes);
		pthread_barrier_wait(part->barrier);
	}
	return NULL;
}

static void copy_all(size_t bytes, int rounds)
{
	cpu_set_t cpus;
	struct part parts[THREADS_MAX];
	pthread_barrier_t barrier;

	must(!sched_getaffinity(0, sizeof(cpus), &cpus), "sched_getaffinity");
	int n = CPU_COUNT(&cpus) < THREADS_MAX ? CPU_COUNT(&cpus) : THREADS_MAX;
	size_t each = bytes / (size_t)n / 4096 * 4096;
	char *from = map_touched(bytes, 1), *to = map_touched(bytes, 2);

	pthread_barrier_init(&barrier, NULL, (unsigned)n);
	for (int i = 0; i < n; i++) {
		size_t at = (size_t)i * each;

		parts[i] = (struct part){ .to = to + at, .from = from + at, .bytes = each, .barrier = &barrier,
					  .rounds = rounds };
		must(!i || !pthread_create(&parts[i].thread, NULL, copy_part, &parts[i]), "pthread_create");
	}
	while (rounds--) { /* we are the first of them */
		pthread_barrier_wait(&barrier);
		uint64_t start = now_ns();

		memcpy(to, from, each);
		pthread_barrier_wait(&barrier);
		print(each * (size_t)n, start);
	}
	for (int i = 1; i < n; i++)
		pthread_join(parts[i].thread, NULL);
}

static void copy_fresh(size_t bytes, int rounds)
{
	char *from = map_touched(bytes, 1);

	munmap(map_touched(bytes, 2), bytes); /* what the first round will be given is warm */
	while (rounds--) {
		char *to = map(bytes);
		uint64_t start = now_ns();

		memcpy(to, from, bytes);
		print(bytes, start);
		munmap(to, bytes);
	}
}

static void read_file(const char *path, int rounds)
{
	const size_t piece = 1 << 20;
	char *buffer = map_touched(piece, 1);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	must(fd >= 0, path);
	while (rounds--) {
		uint64_t start = now_ns();
		size_t bytes = 0;
		ssize_t got;

		while ((got = pread(fd, buffer, piece, bytes)) > 0)
			bytes += got;
		must(!got, "read");
		print(bytes, start);
	}
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	int rounds = argc > 3 ? atoi(argv[3]) : 1;
	size_t bytes = argc > 2 ? strtoull(argv[2], NULL, 0) : 0;

	if (!strcmp(what, "warm"))
		map_touched(bytes, 1);
	else if (!strcmp(what, "copy-warm"))
		copy_warm(bytes, rounds);
	else if (!strcmp(what, "copy-all"))
		copy_all(bytes, rounds);
	else if (!strcmp(what, "copy-fresh"))
		copy_fresh(bytes, rounds);
	else if (!strcmp(what, "read"))
		read_file(argv[2], rounds);
	else
		return fprintf(stderr, "usage: limits warm|copy-warm|copy-all|copy-fresh|read WHAT [N]\n"), 2;
	return 0;
}
