/* pager_private.h - what the files of the pager share. Nobody else includes this. */
#ifndef RESTORER_PAGER_PRIVATE_H
#define RESTORER_PAGER_PRIVATE_H

#include <liburing.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "restorer/pager.h"
#include "restorer/pending.h"
#include "restorer/record.h"

#define PAGER_SLOTS 8u	      /* blocks in memory at once */
#define PAGER_AHEAD 4u	      /* of them being read for nobody in particular */
#define PAGER_FAULTS 1024u    /* threads that wait, at most, before events are left in the kernel */
#define PAGER_CHUNK 64u	      /* pages placed between two looks at what happens: a fault waits no longer than that */
#define PAGER_CLUSTER 16u     /* pages that a fault brings */
#define PAGER_EVENTS 64
#define PAGER_READS 512u      /* on their way at once, at most */

enum slot_state { SLOT_FREE, SLOT_READING, SLOT_READY };

/* A block of the image in memory. */
struct slot {
	enum slot_state state;
	char *buffer;
	char *stored;	  /* where the file has it compressed or encrypted: as it was read */
	bool coded;	  /* it has */
	uint64_t block;
	uint32_t segment; /* to be looked at next, PENDING_NONE: done */
	uint32_t from;	  /* and from which of its pages */
	uint64_t valid[4]; /* its pages that are there, or are to be: all, but where a record is played */
	unsigned reads;	  /* on their way */
	uint64_t asked;	  /* bytes that they are, and were */
	int64_t got;	  /* or -errno */
	uint64_t used;	  /* when, by pager.clock */
	const struct record_entry *entries; /* NULL: the block as a whole, and its checksum */
	size_t n_entries;
};

struct fault {
	uint32_t space;
	bool write;
	uint64_t page;
};

struct pager {
	const struct pager_order *order;
	struct pager_progress *progress;
	struct pending pending;
	int *uffd; /* by space; -1: it is over */
	size_t uffd_room;
	size_t alive;
	int epoll, self, guardian; /* the last two: pidfds */
	pid_t guardian_pid;
	struct io_uring ring;
	bool has_ring;
	bool plain;	  /* the image lies in memory: reading it never waits */
	uint64_t cursor;  /* next block for nobody in particular */
	struct slot slots[PAGER_SLOTS];
	struct fault faults[PAGER_FAULTS];
	size_t n_faults;
	uint64_t clock;	     /* blocks read */
	size_t played;	     /* entries of order->played that were asked for */
	struct record_entry *recorded;
	size_t n_recorded, most_recorded;
	bool recording;	     /* nothing but faults is served, and these one by one */
	char *zeroes;	  /* a page of them */
	uint64_t hungry_ns; /* since when the kernel has no memory to give; 0: it has */
	struct fsnap_error err;
};

static inline uint64_t pager_now(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static inline void pager_done(struct pager_progress *progress)
{
	__atomic_store_n(&progress->done, 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &progress->done, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* --- block.c ----------------------------------------------------------------------- */

int blocks_open(struct pager *pager);
/* The slot that has, or is to have, a page of a block; NULL: none. */
struct slot *blocks_find(struct pager *pager, uint64_t block, uint32_t page);
bool blocks_reading(const struct pager *pager);
/* Begins to read a block; NULL: there is no slot free. It may be READY at once. */
struct slot *blocks_read(struct pager *pager, uint64_t block);
/* Takes in what has been read. -1: the image cannot be read, or is not what it was; pager->err. */
int blocks_reap(struct pager *pager);
/* Begins to read what is wanted, for nobody in particular. */
int blocks_ahead(struct pager *pager);

/* --- guest.c ------------------------------------------------------------------------- */

/* -1, here and below: it cannot go on; pager->err. */
int guests_open(struct pager *pager);
int guest_events(struct pager *pager, uint32_t space);
/* Places at most n wanted pages of a segment from a slot, beginning with the first wanted one behind `from`. Returns
 * how many were dealt with. 0: there are none, or events have to be read first (*again). */
int guest_place(struct pager *pager, const struct slot *slot, uint32_t segment, uint32_t from, uint32_t n, bool *again);
/* A page that the image has not. 1: done; 0: events have to be read first. */
int guest_zero(struct pager *pager, const struct fault *fault);
void guest_over(struct pager *pager, uint32_t space);
bool guest_is_gone(int uffd);

/* --- guardian.c ------------------------------------------------------------------------ */

int guardian_start(struct pager *pager);
int guardian_watch(struct pager *pager); /* it has ended: makes another one */
/* Kills the tree; returns when its memory is gone. */
void guardian_end_tree(struct pager *pager, const char *why);

#endif
