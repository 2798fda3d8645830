/*
 * page.h - the page that a specimen shares with bench/run, and the clock of both.
 *
 * The specimen alone writes, but for one word; the driver maps the same file. lib/page.py
 * knows this layout.
 */
#ifndef BENCH_PAGE_H
#define BENCH_PAGE_H

#include <stdint.h>
#include <time.h>

#define PAGE_GAPS 4000

/* The specimen was not running between these two moments (CLOCK_MONOTONIC, ns). */
struct gap {
	uint64_t from;
	uint64_t to;
};

struct page {
	uint64_t ready;	     /* 1: set-up is done, measuring may begin */
	uint64_t gaps;	     /* how many were seen; the newest PAGE_GAPS of them are kept */
	struct gap gap[PAGE_GAPS]; /* number n stands at n % PAGE_GAPS */
	uint64_t asked;	      /* requests: the driver's word */
	uint64_t answered;    /* ... and how many of them have been, the last at this moment: */
	uint64_t answered_at; /* CLOCK_MONOTONIC, ns */
};

static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#endif
