#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bpf/cache.h"
#include "store/scope.h"

#define PAGE 4096u
#define WINDOW ((size_t)1 << 30) /* mapped at a time: 256 KiB of answers */

static int visit_window(const unsigned char *present, uint64_t first, size_t pages, uint16_t file,
			cache_visit *visit, void *arg)
{
	for (size_t begin = 0, end; begin < pages; begin = end) {
		for (end = begin + 1; end < pages && (present[end] & 1) == (present[begin] & 1);)
			end++;
		if (!(present[begin] & 1))
			continue;
		const struct cache_run run = { .page = first + begin, .pages = (uint32_t)(end - begin),
					       .file = file, .heat = CACHE_COLD };
		int result = visit(arg, &run);
		if (result != 0)
			return result;
	}
	return 0;
}

static int read_window(int fd, uint64_t offset, size_t size, unsigned char *present,
		       struct fsnap_error *err)
{
	void *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, (off_t)offset);
	if (map == MAP_FAILED)
		return fail(err, FSNAP_E_SYSTEM, errno, "mapping a file to see what of it is cached");
	int result = mincore(map, size, present);
	if (result < 0)
		fail(err, FSNAP_E_SYSTEM, errno, "mincore");
	munmap(map, size);
	return result;
}

/* do_mincore() in mm/mincore.c: to others everything looks as if it were there. */
static bool may_know(int fd, const struct stat *stat)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return stat->st_uid == geteuid() || geteuid() == 0 || access(path, W_OK) == 0;
}

static int read_file(int fd, uint16_t file, unsigned char *present, cache_visit *visit, void *arg,
		     struct fsnap_error *err)
{
	struct stat stat;
	if (fstat(fd, &stat) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "fstat");
	if (!S_ISREG(stat.st_mode) || !may_know(fd, &stat))
		return 0;
	for (uint64_t at = 0; at < (uint64_t)stat.st_size; at += WINDOW) {
		uint64_t left = (uint64_t)stat.st_size - at;
		size_t size = left < WINDOW ? (size_t)left : WINDOW;
		if (read_window(fd, at, size, present, err) < 0)
			return -1;
		int result = visit_window(present, at / PAGE, (size + PAGE - 1) / PAGE, file, visit, arg);
		if (result != 0)
			return result;
	}
	return 0;
}

int cache_read_plain(const int *fds, size_t n, cache_visit *visit, void *arg, struct fsnap_error *err)
{
	cleanup_free unsigned char *present = calloc(WINDOW / PAGE, 1);
	if (!present)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "what is cached of %zu files", n);
	for (size_t i = 0; i < n; i++) {
		int result = read_file(fds[i], (uint16_t)i, present, visit, arg, err);
		if (result != 0)
			return result;
	}
	return 0;
}
