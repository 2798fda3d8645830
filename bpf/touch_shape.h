/*
 * touch_shape.h - what touch.bpf.c and touch.c share: tables of files and of what was touched in them.
 *
 * Memory is bounded: at most TOUCH_RANGES ranges of a MiB each and TOUCH_FILES names are remembered, and the
 * least recently used are forgotten first. A range takes 96 bytes of kernel memory, so that a watched file
 * costs 96 KiB a GiB, and everything together 8 MiB.
 */
#ifndef BPF_TOUCH_SHAPE_H
#define BPF_TOUCH_SHAPE_H

#include <linux/types.h>

#define TOUCH_RANGES 65536u
#define TOUCH_FILES 4096u
#define TOUCH_PIDS (1u << 22) /* the kernel's own limit, PID_MAX_LIMIT */
#define TOUCH_PATH 1024u
#define TOUCH_CHANGES 32 /* of range that a CPU makes in one tick of the kernel's clock */

struct touch_file {
	__u64 ino;
	__u32 dev; /* as the kernel has it: major << 20 | minor */
	__u32 generation;
};

struct touch_key {
	struct touch_file file;
	__u64 mib; /* which MiB of the file */
};

struct touch_range {
	__u64 blocks; /* bit n: its n-th 16 KiB were read or mapped */
	__u32 count;  /* how often */
	__u32 second; /* when last, CLOCK_MONOTONIC */
};

/* Names from the file upwards to the root of its file system, each with its NUL: "c\0b\0a\0". */
struct touch_name {
	__u32 length;
	char names[TOUCH_PATH];
};

/* Of each CPU: the range it works on, not in the table yet. */
struct touch_gather {
	struct touch_key key;
	struct touch_range range; /* count 0: none */
	__u64 jiffy;		  /* tick of the kernel's clock (1 to 10 ms) */
	__u32 changes;		  /* of range, in it */
};

#endif
