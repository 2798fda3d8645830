/*
 * cache.h - what of a file is in the page cache, and how warm it is.
 *
 * Two sources, one answer: an eBPF iterator that reads the flags of every cached folio (cache.c,
 * cache.bpf.c), and mincore(2), which only knows what is there (cache_plain.c).
 */
#ifndef BPF_CACHE_H
#define BPF_CACHE_H

#include <stddef.h>

#include "bpf/cache_shape.h"
#include "store/error.h"

typedef int cache_visit(void *arg, const struct cache_run *run);

struct cache_reader;

/* Loads the iterator. NULL: this kernel or this caller may not; err says why. */
struct cache_reader *cache_reader_open(struct fsnap_error *err);
void cache_reader_close(struct cache_reader *reader);

/* Visits what is cached of n files (at most CACHE_FILES), in order of files and pages. `fds` may be
 * opened O_RDONLY; O_PATH will not do. Ends early, and returns it, when a visit returns other than 0. */
#define CACHE_FILES 4096
int cache_read(struct cache_reader *reader, const int *fds, size_t n, cache_visit *visit, void *arg,
	       struct fsnap_error *err);

/* The same without BPF. Everything it finds is CACHE_COLD. Of files that the caller neither owns nor
 * may write, the kernel tells nothing (mincore(2)): they count as absent. */
int cache_read_plain(const int *fds, size_t n, cache_visit *visit, void *arg, struct fsnap_error *err);

#endif
