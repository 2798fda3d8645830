/*
 * wake_shape.h - what wake.bpf.c and wake.c share.
 */
#ifndef BPF_WAKE_SHAPE_H
#define BPF_WAKE_SHAPE_H

#include <linux/types.h>

#define WAKE_THREADS 8192u /* a power of two */

/* A thread that slept with a time limit when its tracer wanted it to stop. */
struct wake_limit {
	__u32 tid;
	__s32 clock;   /* of .expires */
	__s64 expires; /* ns */
};

struct wake_told { /* by the programs */
	__u32 n;
	__s32 tracer;	 /* whose tracees are looked at, as the kernel numbers it */
	__s64 monotonic; /* when it was asked for: the machine's clock, whatever the time namespace */
};

#endif
