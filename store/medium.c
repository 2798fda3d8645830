#define _GNU_SOURCE
#include "store/medium.h"

#include <fcntl.h>
#include <libpmem2.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store/internal.h"
#include "store/parallel.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define PMEM2_E_FIRST 100000
#ifdef __SANITIZE_THREAD__
#define RESERVE_ADDRESSES (1ull << 37)	/* it leaves 1.5 TiB to the program, libraries in the midst */
#else
#define RESERVE_ADDRESSES (1ull << 40)	/* address space kept free for growth; costs nothing */
#endif
#define HUGE_WORTH (256u << 10)		/* bytes needed of a folio before it is asked for */
#define HUGE_BUSY_MAX 16
#define MUCH (256u << 10)
#define POPULATE_GRAIN (16ull << 20)	/* bytes one thread populates at least */

void (*medium_persisted_hook)(int fd, uint64_t offset, uint64_t length);

/* What libpmem2 knows of this CPU: how to copy to memory, and how to flush it. Which functions
 * these are depends on the granularity alone, so each is asked for once, with a page that stays.
 *
 * The image itself is not mapped by pmem2_map_new() (1.12). It tries MAP_SYNC with MAP_FIXED, and
 * where the file is not on DAX that attempt unmaps what it reserved; other threads' mappings land
 * in the hole and are overwritten by its second attempt (these calls, made here at first, killed
 * the writers side by side of test_store). It also walks /sys with fchdir(2), and the working
 * directory belongs to the program. pmem2_map_from_existing() for each image would leak 176 bytes
 * each. */
struct methods {
	pmem2_memcpy_fn copy;
	pmem2_persist_fn persist;
};

static struct methods methods[2]; /* page cache or DRAM; DAX */
static int methods_error;
static char methods_message[256];

static int ask_methods(struct methods *found, enum pmem2_granularity granularity)
{
	struct pmem2_source *source;
	struct pmem2_map *map;
	void *page = mmap(NULL, STORE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			  0);
	if (page == MAP_FAILED)
		return -errno;
	int r = pmem2_source_from_anon(&source, STORE_PAGE);
	if (r)
		return r;
	r = pmem2_map_from_existing(&map, source, page, STORE_PAGE, granularity);
	pmem2_source_delete(&source);
	if (r)
		return r;
	found->copy = pmem2_get_memcpy_fn(map);
	found->persist = pmem2_get_persist_fn(map);
	return 0;
}

/* Where libpmem2 is an archive, its constructors have been taken out of the start of the program
 * (Dependencies.cmake). */
extern void (*const __start_pmem2_late_start[])(void) __attribute__((weak, visibility("hidden")));
extern void (*const __stop_pmem2_late_start[])(void) __attribute__((weak, visibility("hidden")));

static void ask_all_methods(void)
{
	for (size_t i = 0; __start_pmem2_late_start + i < __stop_pmem2_late_start; i++)
		__start_pmem2_late_start[i]();
	methods_error = ask_methods(&methods[0], PMEM2_GRANULARITY_PAGE);
	if (!methods_error)
		methods_error = ask_methods(&methods[1], PMEM2_GRANULARITY_CACHE_LINE);
	if (methods_error) /* the library keeps it for this thread only */
		snprintf(methods_message, sizeof(methods_message), "%s", pmem2_errormsg());
}

struct medium {
	int fd;
	bool in_memory;
	bool dax;
	char *base;	 /* address of file offset 0, mapped or not */
	uint64_t length; /* end of what is mapped */
	void *reserved;	 /* addresses, of which the last are kept free for growth */
	uint64_t reserved_length;
};

/* MAP_SYNC is granted only on DAX, and says that flushed caches are durable there. Asked with a
 * mapping of its own: one with MAP_FIXED that is refused may have unmapped what was there, and
 * other threads map into the hole. */
static bool file_is_dax(int fd)
{
	void *page = mmap(NULL, STORE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED_VALIDATE | MAP_SYNC,
			  fd, 0);
	if (page == MAP_FAILED)
		return false;
	munmap(page, STORE_PAGE);
	return true;
}

/* Before methods[] is used. */
static int find_methods(struct fsnap_error *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, ask_all_methods);
	if (!methods_error)
		return 0;
	/* Negative errno values, or beyond them the library's own. */
	return store_fail(err, methods_error > -PMEM2_E_FIRST ? -methods_error : 0,
			  "libpmem2: %s", methods_message);
}

static uint64_t half(uint64_t length)
{
	return length / 2 / LAYOUT_HUGE * LAYOUT_HUGE;
}

/* As many addresses as there are to be had, up to `most`. Where that is not all of them (RLIMIT_AS), half of what is left
 * is for others: the stacks of threads, what is allocated. */
static void *take_addresses(uint64_t least, uint64_t most, uint64_t *length)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	void *start;
	*length = most;
	while ((start = mmap(NULL, *length, PROT_NONE, flags, -1, 0)) == MAP_FAILED && *length > least)
		*length = half(*length) < least ? least : half(*length);
	uint64_t kept = half(*length);
	if (start == MAP_FAILED || *length == most || kept < least)
		return start;
	munmap((char *)start + kept, *length - kept);
	*length = kept;
	return start;
}

/* Addresses for file bytes from `offset` on, aligned like the file so that 2 MiB folios can be mapped whole. */
static int reserve_addresses(struct medium *medium, uint64_t offset, uint64_t least, uint64_t most,
			     struct fsnap_error *err)
{
	uint64_t length;
	void *start = take_addresses(least + LAYOUT_HUGE, most + LAYOUT_HUGE, &length);
	if (start == MAP_FAILED)
		return store_fail(err, errno, "reserving addresses for the image");
	medium->reserved = start;
	medium->reserved_length = length;
	medium->base = (char *)align_up((uintptr_t)start, LAYOUT_HUGE) - offset;
	return 0;
}

static int map_piece(struct medium *medium, uint64_t offset, uint64_t length, int prot,
		     struct fsnap_error *err)
{
	int flags = medium->dax ? MAP_SHARED_VALIDATE | MAP_SYNC : MAP_SHARED;
	char *where = medium->base + offset;
	if (where + length > (char *)medium->reserved + medium->reserved_length) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "growing the image: addresses for it");
		return error_hint(err, "a limit on the address space of fsnap itself: `ulimit -v unlimited`");
	}
	if (mmap(where, length, prot, flags | MAP_FIXED, medium->fd, (off_t)offset) == MAP_FAILED)
		return store_fail(err, errno, "mapping the image");
	medium->length = offset + length;
	return 0;
}

static struct medium *medium_new(int fd, struct fsnap_error *err)
{
	struct medium *medium = calloc(1, sizeof(*medium));
	if (medium)
		medium->fd = fd;
	else
		fail(err, FSNAP_E_NOMEM, ENOMEM, "mapping the image");
	return medium;
}

static struct medium *open_fixed(int fd, uint64_t offset, uint64_t length, int prot, struct fsnap_error *err)
{
	struct medium *medium = medium_new(fd, err);
	if (!medium)
		return NULL;
	if (reserve_addresses(medium, offset, length, length, err) < 0 ||
	    map_piece(medium, offset, length, prot, err) < 0) {
		medium_close(medium);
		return NULL;
	}
	return medium;
}

struct medium *medium_open_read(int fd, uint64_t offset, uint64_t length, struct fsnap_error *err)
{
	return open_fixed(fd, offset, length, PROT_READ, err);
}

struct medium *medium_open_scratch(int fd, uint64_t length, struct fsnap_error *err)
{
	return open_fixed(fd, 0, length, PROT_READ | PROT_WRITE, err);
}

struct medium *medium_open_write(int fd, uint64_t length, bool in_memory, struct fsnap_error *err)
{
	struct medium *medium = medium_new(fd, err);
	if (!medium)
		return NULL;
	uint64_t most = length < RESERVE_ADDRESSES / 2 ? RESERVE_ADDRESSES : 2 * length;
	medium->in_memory = in_memory;
	medium->dax = !in_memory && file_is_dax(fd);
	if ((medium->dax && find_methods(err) < 0) || reserve_addresses(medium, 0, length, most, err) < 0 ||
	    map_piece(medium, 0, length, PROT_READ | PROT_WRITE, err) < 0) {
		medium_close(medium);
		return NULL;
	}
	return medium;
}

int medium_grow(struct medium *medium, uint64_t length, struct fsnap_error *err)
{
	if (length <= medium->length)
		return 0;
	uint64_t size = align_up(length, LAYOUT_HUGE);
	if (size > LAYOUT_LIMIT)
		return store_fail(err, EFBIG, "growing the image to %llu bytes",
				  (unsigned long long)size);
	if (ftruncate(medium->fd, (off_t)size) < 0)
		return store_fail(err, errno, "growing the image to %llu bytes",
				  (unsigned long long)size);
	return map_piece(medium, medium->length, size - medium->length,
			 PROT_READ | PROT_WRITE, err);
}

/* --- backing -------------------------------------------------------------------- */

struct range {
	char *start;
	uint64_t length;
	int fd;
	uint64_t offset;
	int advice;
	atomic_int error;
	atomic_int busy;
};

/* One folio at a time. A hole is not collapsed as a whole: give it one page first. A page that is
 * busy spoils one folio; where memory has none left, trying on only takes time. */
static void collapse_some(void *arg, uint64_t first, uint64_t n)
{
	struct range *range = arg;
	for (uint64_t i = first; i < first + n && !range->error; i++) {
		off_t offset = (off_t)(range->offset + i * LAYOUT_HUGE);
		char *start = range->start + i * LAYOUT_HUGE;
		if (fallocate(range->fd, 0, offset, STORE_PAGE) == 0 &&
		    madvise(start, LAYOUT_HUGE, MADV_COLLAPSE) == 0)
			continue;
		if ((errno != EAGAIN && errno != EBUSY) || ++range->busy > HUGE_BUSY_MAX)
			range->error = errno;
	}
}

void medium_make_huge(struct medium *medium, uint64_t offset, uint64_t length)
{
	uint64_t first = offset / LAYOUT_HUGE * LAYOUT_HUGE;
	uint64_t end = (offset + length) / LAYOUT_HUGE * LAYOUT_HUGE;
	if (offset + length - end >= HUGE_WORTH)
		end += LAYOUT_HUGE;
	if (end > medium->length)
		end = medium->length / LAYOUT_HUGE * LAYOUT_HUGE;
	if (!medium->in_memory || end <= first)
		return;
	struct range range = {.start = medium->base + first, .offset = first, .fd = medium->fd};
	parallel_for((end - first) / LAYOUT_HUGE, POPULATE_GRAIN / LAYOUT_HUGE, collapse_some,
		     &range);
}

static void populate_some(void *arg, uint64_t first, uint64_t n)
{
	struct range *range = arg;
	if (madvise(range->start + first * STORE_PAGE, n * STORE_PAGE, range->advice) < 0)
		range->error = errno;
}

int medium_prepare(struct medium *medium, uint64_t offset, uint64_t length,
		   struct fsnap_error *err)
{
	uint64_t start = offset / STORE_PAGE * STORE_PAGE;
	uint64_t end = align_up(offset + length, STORE_PAGE);
	/* tmpfs: a read fault allocates a page and maps it writable; no second fault follows.
	 * A disk: space must be reserved first, and the write fault is what makes pages dirty. */
	struct range range = {
		.start = medium->base + start,
		.advice = medium->in_memory ? MADV_POPULATE_READ : MADV_POPULATE_WRITE,
	};
	if (!medium->in_memory &&
	    fallocate(medium->fd, 0, (off_t)start, (off_t)(end - start)) < 0 &&
	    errno != EOPNOTSUPP)
		return store_fail(err, errno, "reserving space for the image");
	parallel_for((end - start) / STORE_PAGE, POPULATE_GRAIN / STORE_PAGE, populate_some,
		     &range);
	if (range.error == EINVAL) { /* Linux before 5.14: be sure of the space at least */
		range.error = fallocate(medium->fd, 0, (off_t)start, (off_t)(end - start)) < 0
				      ? errno
				      : 0;
	}
	/* EFAULT and EHWPOISON stand for the SIGBUS that touching the page would have raised. */
	if (range.error)
		return store_fail(err, range.error == EFAULT ? ENOSPC : range.error,
				  "reserving space for the image");
	return 0;
}

/* --- content -------------------------------------------------------------------- */

void *medium_at(const struct medium *medium, uint64_t offset)
{
	return medium->base + offset;
}

uint64_t medium_length(const struct medium *medium)
{
	return medium->length;
}

/* Little is copied sooner than libpmem2 has found out how. */
void medium_copy(struct medium *medium, uint64_t offset, const void *from, uint64_t length)
{
	char *to = medium->base + offset;
	if (length == 0)
		return;
	if (!medium->dax && (length < MUCH || find_methods(NULL) < 0))
		memcpy(to, from, length);
	else
		methods[medium->dax].copy(to, from, length, PMEM2_F_MEM_NOFLUSH);
}

static void tell_hook(const struct medium *medium, uint64_t offset, uint64_t length)
{
	if (medium_persisted_hook)
		medium_persisted_hook(medium->fd, offset, length);
}

int medium_persist(struct medium *medium, uint64_t offset, uint64_t length,
		   struct fsnap_error *err)
{
	uint64_t start = offset / STORE_PAGE * STORE_PAGE;
	uint64_t end = align_up(offset + length, STORE_PAGE);
	if (length == 0)
		return 0;
	/* libpmem2 persists a page cache by msync(2) too, but calls abort(3) when that fails. */
	if (medium->dax)
		methods[medium->dax].persist(medium->base + offset, length);
	else if (!medium->in_memory && msync(medium->base + start, end - start, MS_SYNC) < 0)
		return store_fail(err, errno, "writing the image");
	tell_hook(medium, offset, length);
	return 0;
}

int medium_sync_file(struct medium *medium, struct fsnap_error *err)
{
	if (!medium->in_memory && fsync(medium->fd) < 0)
		return store_fail(err, errno, "writing the image");
	return 0;
}

void medium_close(struct medium *medium)
{
	if (!medium)
		return;
	if (medium->reserved)
		munmap(medium->reserved, medium->reserved_length);
	free(medium);
}
