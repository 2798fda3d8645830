/*
 * fds_shape.h - what fds.bpf.c and fds.c share.
 */
#ifndef BPF_FDS_SHAPE_H
#define BPF_FDS_SHAPE_H

#include <linux/types.h>

#define FDS_MOST 2048u /* a power of two */

struct fds_told {
	__u64 pos;
	__u32 fd;
	__u32 flags; /* as fdinfo shows them, close-on-exec of the number among them */
	__u32 plain; /* fdinfo shows nothing else of this kind of file, and there is no lock on it */
};

#endif
