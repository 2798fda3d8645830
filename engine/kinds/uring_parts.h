/*
 * uring_parts.h - what uring.c and its parts share: the shape of a ring.
 *
 *	uring.c		how it is read
 *	uring_ring.c	a ring's memory, mapped or in another process
 *	uring_look.c	what is read in the kernel's memory
 *	uring_pages.c	where a program has what the kernel holds of its memory
 *	uring_links.c	what ties it to the rest of the tree
 *	uring_make.c	how it is made again, but for what only its owner can do
 *	uring_equip.c	what is registered with it
 *	uring_use.c	how it comes to its positions: by use
 *	uring_owner.c	what belongs to a process or a thread: rings of one thread, buffers, registered descriptors
 *	uring_late.c	rings that only a process of the tree can make: polled ones, those in its memory
 */
#ifndef ENGINE_KINDS_URING_PARTS_H
#define ENGINE_KINDS_URING_PARTS_H

#include <linux/io_uring.h>
#include <stdbool.h>

#include "engine/kinds/kinds.h"

/* Younger than Debian 12's headers. */
#define SETUP_NO_MMAP (1u << 14)	    /* Linux 6.5 */
#define SETUP_REGISTERED_FD_ONLY (1u << 15) /* Linux 6.5 */
#define SETUP_NO_SQARRAY (1u << 16)	    /* Linux 6.6 */
#define SETUP_HYBRID_IOPOLL (1u << 17)	    /* Linux 6.13 */
#define SETUP_CQE_MIXED (1u << 18)	    /* Linux 6.18 */

/* image_ring_group.flags: IOU_PBUF_RING_MMAP, Linux 6.4; IOU_PBUF_RING_INC, Linux 6.12. */
#define BUFFERS_OF_KERNEL 1u
#define BUFFERS_INCREMENTAL 2u
#define OFF_PBUF_RING 0x80000000ull /* IORING_OFF_PBUF_RING, IORING_OFF_PBUF_SHIFT */
#define OFF_PBUF_SHIFT 16

struct ring { /* what there is to see of one */
	struct io_uring_params
		params; /* where things are; the kernel tells it only to who makes a ring */
	char *rings, *sqes; /* with `process` a copy of what that has */
	size_t rings_size, sqes_size;
	size_t sqe, cqe; /* bytes */
	int process;	 /* /proc/PID/mem of the one that has a ring of SETUP_NO_MMAP in its memory; else 0 */
	uint64_t rings_address, sqes_address; /* there */
};

/* --- uring_ring.c ------------------------------------------------------------------ */

/* One of our own that is laid out the same: not polled, in nobody's memory. */
int ring_setup(const image_file_io_uring *state, unsigned more_flags,
	       struct io_uring_params *params);

/* Where things are; `params` as io_uring_setup(2) has filled them in for it, or for one set up the same. */
void ring_measure(struct ring *ring, const struct io_uring_params *params);
/* Maps a ring that was measured. */
int ring_map(struct ring *ring, int fd, bool write, struct fsnap_error *err);
/* Reads one that is in memory of a process; takes `process` over. */
int ring_fetch(struct ring *ring, int process, uint64_t rings, uint64_t sqes, struct fsnap_error *err);
void ring_unmap(struct ring *ring);

/* A word of the rings as it is now, and what it is to be. */
uint32_t ring_word(const struct ring *ring, uint32_t offset);
void ring_set(struct ring *ring, uint32_t offset, uint32_t value);
/* What was written at `at`, in rings or sqes, is now in the ring. */
void ring_put(struct ring *ring, const char *at, size_t size);

/* Where the CQE of a position lies. */
static inline char *ring_cqe(const struct ring *ring, uint32_t position)
{
	return ring->rings + ring->params.cq_off.cqes +
	       (position & (ring->params.cq_entries - 1)) * ring->cqe;
}

/* Provided buffers of the kernel's memory, mapped; NULL with *err. */
void *ring_map_group(int fd, const image_ring_group *group, struct fsnap_error *err);

/* --- dump --------------------------------------------------------------------------- */

struct async_ring;
struct uring_found;
struct uring_shape;

/* What is known of the kernel's shape in this dump; NULL: no memory. */
struct uring_shape *uring_shape(struct dump *dump);

/* Positions, what was submitted and not taken, what came of it and was not read. */
int uring_save_memory(const struct ring *ring, image_file_io_uring *state, struct fsnap_error *err);
/* Why a ring at these positions cannot be; NULL: it can. */
const char *uring_check_positions(const image_file_io_uring *state, uint32_t sq_head, uint32_t cq_tail,
				  const char **hint);

/* Owns *found from here on. */
int uring_note(struct dump *dump, const image_file_io_uring *state, const struct async_ring *facts,
	       const __u64 *files, struct uring_found *found, struct fsnap_error *err);
int uring_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err);
void uring_dump_end(void *scratch);

/* uring_pages.c: finds what the kernel holds of a program's memory: fills addresses and `owner`. */
int uring_find_memory(struct dump *dump, const image_file *file, const struct uring_found *found,
		      image_file_io_uring *state, const struct process **owner, struct fsnap_error *err);

/* --- restore ------------------------------------------------------------------------- */

/* A ring of this restore. */
struct made {
	unsigned file_id;
	int fd;	       /* of a polled one, else -1 */
	uint32_t byte; /* DATA() of its process' that its chosen buffers lead to */
	struct ring ring;
};
struct made *uring_made(struct restore *restore, unsigned file_id);

int uring_make(struct restore *restore, const image_file *file, const void *in,
	       struct fsnap_error *err);
int uring_connect(struct restore *restore, const image_file *file, const void *in, int fd,
		  struct fsnap_error *err);
void uring_restore_end(void *scratch);
void uring_release(struct restore *restore);
void uring_settle_late(struct restore *restore, const image_file *file, const void *in,
		       struct plans *plans, uint32_t task, int fd);
pid_t uring_settler(const void *in);
void uring_settle_task(struct restore *restore, const image_file *file, const void *in,
		       struct plans *plans, uint32_t task, int fd, pid_t tid);
void uring_settle_parked(struct restore *restore, const image_file *file, const void *in,
			 struct plans *plans, uint32_t task, int fd, pid_t tid);
bool uring_is_late(const void *in);
uint32_t uring_arrive(struct restore *restore, const image_file *file, const void *in,
		      struct plans *plans, uint32_t task);
int uring_equip_late(struct restore *restore, const image_file *file, const void *in, int fd,
		     struct fsnap_error *err);
int uring_drive(struct restore *restore, const image_file *file, const void *in, int fd,
		struct fsnap_error *err);

/* uring_equip.c: provided buffers of the kernel's memory, which must be there when that is mapped; files, eventfd,
 * settings, and last of all restrictions. By a process that may be anybody. */
int uring_register_groups(const image_file_io_uring *state, int fd, struct fsnap_error *err);
int uring_register_files(struct restore *restore, const image_file_io_uring *state, int fd,
			 struct fsnap_error *err);
int uring_equip(struct restore *restore, const image_file_io_uring *state, int fd, struct fsnap_error *err);
/* Provided buffers: the order to register a group, address not filled in where it is not the program's. */
struct io_uring_buf_reg uring_group_order(const image_ring_group *group);

/* uring_use.c. A step is `n` submissions like this one; with IOSQE_CQE_SKIP_SUCCESS without a completion. */
struct uring_step {
	struct io_uring_sqe sqe;
	uint32_t n;
	uint32_t bytes; /* that must be there to be received */
};
/* What brings a ring to its positions, but for completions that must come from another one: *more. `socket`: what
 * bytes are received from, of who submits; -1: registered file 0 is that. malloc'ed; NULL: no memory. */
struct uring_step *uring_steps(const image_file_io_uring *state, int socket, size_t *n, uint32_t *more);
/* Takes them, in this process; `feeder` is the other end of the socket. */
int uring_use(struct ring *ring, int fd, const image_file_io_uring *state, int socket, int feeder,
	      struct fsnap_error *err);
/* Why no use would bring it there; NULL: it does. */
const char *uring_cannot_use(const image_file_io_uring *state);
/* The memory of a group as it must be meanwhile; `byte` is the address of one that may be written where who submits
 * lives. */
void uring_bait(const image_ring_group *group, uint64_t byte, struct io_uring_buf *entries);

extern const struct file_kind kind_uring;

/* Does it belong to one thread, which then has to enable it? */
static inline bool uring_has_issuer(const image_file_io_uring *state)
{
	return state->submitter != 0;
}

/* Can it, or the memory it uses, only be that of a process of the tree? */
static inline bool uring_is_own(const image_file_io_uring *state)
{
	return state->flags & (IORING_SETUP_SQPOLL | SETUP_NO_MMAP);
}

/* Are buffers to be chosen until it is where it was? */
static inline bool uring_has_chosen(const image_file_io_uring *state)
{
	for (u_int i = 0; i < state->groups.groups_len; i++)
		if (state->groups.groups_val[i].head)
			return true;
	return false;
}

/* Who alone may submit to it is one of the tree's threads; a polling thread takes from everybody. */
static inline bool uring_is_used_by_issuer(const image_file_io_uring *state)
{
	return uring_has_issuer(state) && !(state->flags & IORING_SETUP_SQPOLL);
}

/* Does this process bring it to its positions when the tree stands ready? Else it does so at once, or its thread does. */
static inline bool uring_is_driven(const image_file_io_uring *state)
{
	return !uring_is_used_by_issuer(state) &&
	       (uring_is_own(state) || state->limits.in_force || uring_has_chosen(state));
}

static inline size_t uring_group_bytes(const image_ring_group *group)
{
	return group->entries * sizeof(struct io_uring_buf);
}

#endif
