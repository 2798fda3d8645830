/*
 * flags_shape.h - what flags.bpf.c and flags.c share.
 */
#ifndef BPF_FLAGS_SHAPE_H
#define BPF_FLAGS_SHAPE_H

#include <linux/types.h>

enum flags_trait {
	FLAGS_SHARED = 1, /* another process may have pages of its own memory, too: copy-on-write, or merged */
	FLAGS_TMPFS = 2,  /* of a file, or memory, of tmpfs */
};

struct flags_mapping {
	__u64 start, end;
	__u64 flags;  /* vm_flags */
	__u64 traits; /* enum flags_trait */
};

#endif
