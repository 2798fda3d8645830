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

#endif
