/*
 * reader.c - reads a file over and over, and counts what it got.
 *
 *	reader PAGE PATTERN BLOCK FILE [OTHER]
 *
 * PATTERN is sequential, random (blocks anywhere) or skewed (all but one block in TAIL lies in the first
 * tenth of every 160 MiB). PAGE is a file shared with bench/warm: bytes per slice of time since page->start, and
 * which of the two files is to be read. It never ends by itself.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "page.h"

#define SLICE_NS 10000000u
#define TAIL 1000000u	/* one read of so many leaves the hot tenth */
#define HOT (16ull << 20) /* of every ten times as much: large beside a folio */

/* lib/slices.py knows it. */
struct slices {
	uint64_t start; /* ns of CLOCK_MONOTONIC; written by bench/warm before we start */
	uint64_t other; /* 1: read the other file, sequentially */
	uint64_t count; /* how many slices there is room for */
	uint64_t bytes[];
};

static uint64_t xorshift(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	return *state ^= *state << 17;
}

static uint64_t next_offset(const char *pattern, uint64_t last, uint64_t size, size_t block)
{
	static uint64_t state = 88172645463325252ull;
	if (pattern[0] == 's' && pattern[1] == 'e')
		return last + block < size ? last + block : 0;
	uint64_t random = xorshift(&state) >> 8;
	if (pattern[0] == 'r' || random % TAIL == 0)
		return xorshift(&state) % (size / block) * block;
	uint64_t within = HOT / block;
	random /= TAIL;
	return random / within % (size / (10 * HOT)) * 10 * HOT + random % within * block;
}

static int open_sized(const char *path, int flags, uint64_t *size)
{
	struct stat stat;
	int fd = open(path, flags);
	if (fd < 0 || fstat(fd, &stat) < 0) {
		perror(path);
		exit(1);
	}
	*size = (uint64_t)stat.st_size;
	return fd;
}

static struct slices *share(const char *path)
{
	uint64_t size;
	int fd = open_sized(path, O_RDWR, &size);
	void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED) {
		perror(path);
		exit(1);
	}
	close(fd);
	return page;
}

int main(int argc, char **argv)
{
	if (argc < 5) {
		fprintf(stderr, "usage: reader PAGE sequential|random|skewed BLOCK FILE [OTHER]\n");
		return 2;
	}
	struct slices *page = share(argv[1]);
	size_t block = strtoul(argv[3], NULL, 0);
	uint64_t size[2] = { 0 }, at[2] = { 0 };
	int fd[2] = { open_sized(argv[4], O_RDONLY, &size[0]), -1 };
	char *buffer = malloc(block);
	if (argc > 5)
		fd[1] = open_sized(argv[5], O_RDONLY, &size[1]);
	if (!buffer || !block || size[0] < (argv[2][1] == 'k' ? 10 * HOT : block) || HOT % block)
		return 2;
	memset(buffer, 1, block);

	for (;;) {
		int which = fd[1] >= 0 && __atomic_load_n(&page->other, __ATOMIC_RELAXED);
		at[which] = next_offset(which ? "sequential" : argv[2], at[which], size[which], block);
		ssize_t got = pread(fd[which], buffer, block, (off_t)at[which]);
		if (got < 0) {
			perror("read");
			return 1;
		}
		uint64_t slice = (now_ns() - page->start) / SLICE_NS;
		if (slice < page->count)
			__atomic_fetch_add(&page->bytes[slice], (uint64_t)got, __ATOMIC_RELAXED);
	}
}
