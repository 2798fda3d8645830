/*
 * async_shape.h - what async.bpf.c and async.c share.
 */
#ifndef BPF_ASYNC_SHAPE_H
#define BPF_ASYNC_SHAPE_H

#include <linux/types.h>

#define ASYNC_CONTEXTS 64u
#define ASYNC_THREADS 4096u
#define ASYNC_RINGS 16u /* IO_RINGFD_REG_MAX */
#define ASYNC_TABLE 4096u /* registered files or buffers that are told of */
#define ASYNC_DESCRIPTORS 65536u

/* A context of io_setup(2). */
struct async_context {
	__u64 user_id;	 /* what the program calls it */
	__u32 nr_events; /* slots of its ring */
	__u32 in_flight; /* requests that have not completed */
};

/* What a thread has to do with io_uring. */
struct async_thread {
	__u32 tid;
	__s32 in_flight; /* requests it has submitted that have not completed */
	__u64 rings[ASYNC_RINGS]; /* async_ring.identity of those it has registered, 0: none */
};

struct async_buffer {
	__u64 address; /* 0 with no length: an empty slot */
	__u64 length;
	__u64 tag;
};

struct async_ring {
	__u64 identity; /* the same for the same ring */
	__u32 found;
	__u32 flags; /* IORING_SETUP_* */
	__u32 sq_entries;
	__u32 cq_entries;
	__u32 sq_head; /* the kernel's own position: SQEs taken */
	__u32 cq_tail; /* CQEs written */
	__u32 sq_idle; /* jiffies */
	__u32 submitter; /* IORING_SETUP_SINGLE_ISSUER: the thread; 0: any */
	__u32 sq_owner;	 /* IORING_SETUP_SQPOLL: the process whose thread polls */
	__s32 sq_cpu;
	__s32 eventfd; /* its number among eventfds (fdinfo), -1: none */
	__u32 eventfd_async;
	__u32 restricted;
	__u32 personalities; /* has some */
	__u32 buffer_lists;  /* has some: provided buffers */
	__u32 n_files;
	__u32 n_buffers;
	__u32 odd; /* files or buffers of another sort: not from a descriptor, not from memory */
};

/* Descriptor `fd` of a process is the file of this identity. */
struct async_descriptor {
	__u64 file;
	__u32 fd;
	__u32 reserved;
};

struct async_order { /* by the loader */
	__u32 cpus;
	__u32 fd;	/* tell_ring: which of our descriptors */
	__u32 n;	/* told so far */
};

#endif
