/*
 * vmas_shape.h - what vmas.bpf.c and vmas.c share.
 */
#ifndef BPF_VMAS_SHAPE_H
#define BPF_VMAS_SHAPE_H

#include <linux/types.h>

#define VMAS_BARE 1024u /* ranges; more are not told of */

struct vmas_range {
	__u64 start, end;
};

/* 0: not known. */
struct vmas_counts {
	__u64 space;	  /* whose: two differ as long as both are there, if only because somebody has its pagemap open */
	__u64 locked;	  /* so often for changes of its mappings */
	__u64 taken_away; /* so often pages that were there, by their entries in the page tables */
};

#endif
