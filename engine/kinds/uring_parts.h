/*
 * uring_parts.h - what uring.c and its parts share: the shape of a ring.
 *
 *	uring.c		how it is read
 *	uring_links.c	what ties it to the rest of the tree
 *	uring_make.c	how it is made again, but for what only its owner can do
 *	uring_owner.c	that: rings that belong to one thread, buffers, registered descriptors
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

struct ring { /* of this process: what there is to see of one */
	struct io_uring_params
		params; /* where things are; the kernel tells it only to who makes a ring */
	char *rings, *sqes;
	size_t rings_size, sqes_size;
	size_t sqe, cqe; /* bytes */
};

/* Maps a ring; `params` as io_uring_setup(2) has filled them in for it, or for one set up the same. */
int ring_map(struct ring *ring, int fd, const struct io_uring_params *params, bool write,
	     struct fsnap_error *err);
void ring_unmap(struct ring *ring);

static inline uint32_t *ring_word(const struct ring *ring, uint32_t offset)
{
	return (uint32_t *)(ring->rings + offset);
}

/* Where the CQE of a position lies. */
static inline char *ring_cqe(const struct ring *ring, uint32_t position)
{
	return ring->rings + ring->params.cq_off.cqes +
	       (position & (ring->params.cq_entries - 1)) * ring->cqe;
}

int ring_setup(const image_file_io_uring *state, unsigned more_flags,
	       struct io_uring_params *params);

struct async_ring;
int uring_note(struct dump *dump, const image_file_io_uring *state, const struct async_ring *facts,
	       const __u64 *files, struct fsnap_error *err);
int uring_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err);
void uring_dump_end(void *scratch);

int uring_make(struct restore *restore, const image_file *file, const void *in,
	       struct fsnap_error *err);
int uring_connect(struct restore *restore, const image_file *file, const void *in, int fd,
		  struct fsnap_error *err);
void uring_restore_end(void *scratch);
void uring_release(struct restore *restore);
void uring_settle(struct restore *restore, const image_file *file, const void *in,
		  struct plans *plans, uint32_t task, int fd);
void uring_settle_task(struct restore *restore, const image_file *file, const void *in,
		       struct plans *plans, uint32_t task, int fd, pid_t tid);

/* What the ring of a file was set up with in this restore. */
const struct ring *uring_made(struct restore *restore, unsigned file_id);

extern const struct file_kind kind_uring;

/* Does it belong to one thread, which then has to enable it? */
static inline bool uring_has_issuer(const image_file_io_uring *state)
{
	return state->submitter != 0;
}

#endif
