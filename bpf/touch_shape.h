/*
 * touch_shape.h - what touch.bpf.c and touch.c share: tables of files and of what was touched in them.
 *
 * Memory is bounded: at most TOUCH_RANGES ranges of a MiB each and TOUCH_FILES names are remembered, and the
 * least recently used are forgotten first. A range takes 104 bytes of kernel memory, so that a watched file
 * costs 104 KiB a GiB, up to 64 GiB; the room for all of it is taken at the start, and everything together
 * is TOUCH_MEMORY at most.
 */
#ifndef BPF_TOUCH_SHAPE_H
#define BPF_TOUCH_SHAPE_H

#include <linux/types.h>

#define TOUCH_RANGES 65536u
#define TOUCH_FILES 4096u
#define TOUCH_MEMORY (12 << 20)
#define TOUCH_PIDS (1u << 22) /* the kernel's own limit, PID_MAX_LIMIT */
#define TOUCH_PATH 1024u
/* What one CPU may spend on looking: events of 80 ns each, and four times that where the range changes. A program
 * that starts or turns to something new is seen whole; whoever goes on at a higher rate than can be paid for is
 * seen a part of the time: 40000 a second are 0.3 % of the CPU. */
#define TOUCH_BUDGET 65536u
#define TOUCH_RATE 40000u
#define TOUCH_CHANGE 4u

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
	__u32 count;  /* how often; going on where the last read ended counts as the same time */
	__u32 second; /* when last, CLOCK_MONOTONIC */
};

/* Names from the file upwards to the root of its file system, each with its NUL: "c\0b\0a\0". */
struct touch_name {
	__u32 length;
	char names[TOUCH_PATH];
};

/* Of each CPU: the range it works on, not in the table yet; and what it has spent. */
struct touch_gather {
	struct touch_key key;
	struct touch_range range; /* count 0: none */
	__u64 inode;		  /* address of it: compared sooner than a key is made */
	__u64 next;		  /* page behind the last that was touched */
	__u64 jiffy;		  /* tick of the kernel's clock in which we looked last */
	__u32 spent;		  /* of TOUCH_BUDGET */
};

#endif
