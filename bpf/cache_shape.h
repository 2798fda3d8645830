/*
 * cache_shape.h - what cache.bpf.c and cache.c share.
 *
 * The loader writes an order and reads the iterator; the program fills runs until the files are done, or
 * the room or its patience is at an end. Then the loader takes the runs and reads it again.
 */
#ifndef BPF_CACHE_SHAPE_H
#define BPF_CACHE_SHAPE_H

#include <linux/types.h>

/* How likely it is that pages are needed again, as the kernel judges it. */
enum cache_heat {
	CACHE_ABSENT = 0,
	CACHE_COLD = 1, /* read ahead, and not wanted so far */
	CACHE_WARM = 2, /* PG_referenced: read once already (folio_mark_accessed() in mm/swap.c), or mapped */
	CACHE_HOT = 3,  /* on the active list, or come back after eviction: PG_active, PG_workingset */
};

/* Neighbouring pages of one file and one heat. */
struct cache_run {
	__u64 page; /* the first, counted from the start of the file */
	__u32 pages;
	__u16 file; /* which of the files that were asked about */
	__u16 heat; /* enum cache_heat, never CACHE_ABSENT */
};

#define CACHE_DESCRIPTORS 65536u
#define CACHE_RUNS 65536u /* a power of two */
#define CACHE_NODES 1024u /* of 64 slots each, per reading: under a millisecond without a break */

struct cache_order {
	/* Where to begin: set by the loader, moved on by the program. Files of lower numbers are done. */
	__u64 page;
	__u32 fd;
	__u32 n_runs; /* loader: 0. program: how many there are */
	__u32 nodes;	 /* loader: 0. program: how many were looked at */
};

#endif
