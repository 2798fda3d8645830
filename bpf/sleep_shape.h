/*
 * sleep_shape.h - what sleep.bpf.c and sleep.c share.
 */
#ifndef BPF_SLEEP_SHAPE_H
#define BPF_SLEEP_SHAPE_H

#include <linux/types.h>

#define SLEEP_THREADS 4096u

/* The restart block of a thread (include/linux/restart_block.h), read in each of the ways in which it may be
 * meant: the system call that was interrupted tells which. */
struct sleep_block {
	__u32 tid;
	__u32 first;	 /* poll: number of descriptors; futex: the value waited with */
	__s32 clock;	 /* nanosleep: of .expires */
	__u32 reserved;
	__u64 remainder; /* nanosleep: where it writes what remains */
	__s64 expires;	 /* nanosleep: ns */
	__u64 fds;	 /* poll: of its descriptors */
	__s64 poll_end;	 /* poll: ns of CLOCK_MONOTONIC */
	__u64 futex;	 /* futex: its address */
	__s64 futex_end; /* futex: ns */
};

struct sleep_told { /* by the program */
	__u32 n;
	__u32 reserved;
	__s64 monotonic, boottime; /* when it was told: the clocks of the machine, whatever the time namespace */
};

#endif
