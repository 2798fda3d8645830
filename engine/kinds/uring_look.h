/*
 * uring_look.h - what is looked at of a ring of io_uring in the kernel's memory.
 */
#ifndef ENGINE_KINDS_URING_LOOK_H
#define ENGINE_KINDS_URING_LOOK_H

#include "engine/kinds/kinds.h"
#include "engine/kinds/peek.h"
#include "engine/kinds/uring_parts.h"

enum uring_member {
	RING_CREDS, RING_POLLER, RING_LIMITS, LIMITS_REGISTER, LIMITS_SQE, LIMITS_ALLOWED, LIMITS_REQUIRED, LIMITS_SET,
	RING_GROUPS, RING_PERSONALITIES, RING_NEXT_PERSONALITY, XA_HEAD, NODE_SHIFT, NODE_SLOTS, GROUP_LIST,
	GROUP_ENTRIES, GROUP_HEAD, GROUP_FLAGS, GROUP_REGION, BUFFER_LIST, BUFFER_ADDRESS, BUFFER_LENGTH,
	BUFFER_NUMBER, REGION_PAGES, REGION_COUNT, REGION_FLAGS, RING_RINGS, RING_SQES, RING_PARAM, RING_ALLOC_START,
	RING_ALLOC_END, RING_WORKERS, RING_CLOCK, CRED_IDS, CRED_INHERITABLE, CRED_PERMITTED, CRED_EFFECTIVE,
	CRED_GROUPS, GROUPS_N, GROUPS_IDS, UBUF_PAGES, RING_BUFFERS, TABLE_NODES, NODE_BUFFER, URING_MEMBERS,
};
enum { URING_NAPI_MEMBERS = 3 };

/* Of the running kernel's. Start with zeroes. */
struct uring_shape {
	bool asked;
	bool known; /* Linux 6.14 and newer, where we may look; else nothing below can be asked */
	bool has_napi, has_left, has_zero_copy;
	struct peek_member at[URING_MEMBERS];
	struct peek_member napi[URING_NAPI_MEMBERS], left, zero_copy;
	bool has_frames; /* uring_pages.c: a page of ours, by the kernel's name and by its number */
	uint64_t page, frame;
};
void uring_know(struct dump *dump, struct uring_shape *shape);

struct uring_region { /* pages of the program's that the kernel holds: its names for the first and the last */
	uint64_t first, last; /* 0: it is not the program's */
	uint32_t count;
};

struct uring_found { /* what is not in the image as it is */
	struct ring ring; /* measured */
	struct uring_region rings, sqes; /* IORING_SETUP_NO_MMAP */
	struct uring_region *groups;	 /* by place in groups */
	struct uring_buffer {
		uint64_t page;
		uint32_t length, offset;
	} *buffers; /* by place in buffers: where the first part of it lies */
	uint64_t creds; /* IORING_SETUP_SQPOLL: those it polls with */
	uint64_t *personalities; /* by place */
	bool param, zero_copy;
};

/* Fills what can be read of a ring; registered buffers must be in `state` already. */
int uring_look(struct dump *dump, const struct uring_shape *shape, const struct async_ring *facts,
	       image_file_io_uring *state, struct uring_found *found, struct fsnap_error *err);

/* The kernel's name of the page where registered buffer `number` of a ring of ours begins. */
uint64_t uring_page_of(struct dump *dump, const struct uring_shape *shape, int ring, unsigned number);

/* A thread of the process with these credentials; 0: none. */
pid_t uring_who_has(struct dump *dump, const struct uring_shape *shape, const struct process *process, uint64_t cred);

#endif
