/*
 * memory.h - an address space of an image -> operations that rebuild it.
 *
 * The operations run in a task that holds nothing but control memory and the
 * kernel's own mappings (vDSO and its data), in this order:
 *
 *	memory_clear      in the root: drop what was inherited from the restoring process,
 *			  and park the vDSO group beside control memory, out of everybody's way
 *	(heirlooms)       pages for its descendants, before they are born: heirloom.h
 *	memory_specials   move the vDSO group to where the program knows it
 *	memory_build      every mapping at its place, filled, with its protection
 *	memory_fields     heap, stack, arguments, auxiliary vector, executable
 */
#ifndef RESTORER_MEMORY_H
#define RESTORER_MEMORY_H

#include <stdbool.h>

#include "restorer/plan.h"
#include "restorer/vdso.h"
#include "store/store.h"

struct memory_range {
	uint64_t start, end;
};

struct memory_special {
	char name[32];
	uint64_t start, end;
};

/* What the operations may use. Descriptors are those the task has when it runs them. */
struct memory_source {
	const struct image *image;
	const int *image_fds; /* of its files: image_locate() */
	bool staged;	     /* what they lead to fills while tasks run: so many blocks are there as the barrier says */
	uint32_t staged_barrier;
	const int *mapped_fd; /* by image_mapped.id */
	const int *mapped_write_fd; /* likewise, of those that are mapped for writing */
	const int *ghost_fd;  /* by image_ghost.id, -1 for other spaces */
	const int *ring_fd;	     /* by image_file.id */
	const image_ipc *ipc;	     /* segments by content */
	struct memory_range control; /* control memory, in every task */
	struct memory_range parked;  /* right behind it: where the vDSO group waits, then room for attach.c, aio.c */
	struct memory_special *specials; /* where the kernel put the vDSO group in the restoring process */
	size_t n_specials;
	unsigned helpers;    /* crew.c: threads that a process with much memory may take beside its own */
	int helper_number;   /* the first of twice as many numbers for them that nobody has; 0: any will do */
	const struct vdso_redirection *redirection; /* the image is of another kernel build; NULL: of this one */
	const struct memory_range *held; /* what the restoring process holds for the first, by address */
	size_t n_held;
	bool exe_stays;	     /* what /proc/PID/exe tells cannot be set: it is the restoring program */
	uint32_t patched;    /* specials.c: data of the old vDSO as laid last, */
	uint64_t patched_by; /* and how far from it this kernel's was */
};

/* What memory_build() is still to do of an address space, where part of it was inherited. */
struct memory_part {
	const bool *inherited; /* by mapping: it is there, readable and writable; NULL: none is */
	const struct page_run *runs; /* if so: the pages that are to be brought */
	size_t n_runs;
	bool settled;		     /* what is inherited has its protection and its name already */
	const uint64_t *from;	     /* by mapping: where it lies, if that is elsewhere; else 0. NULL: it is nowhere */
	struct memory_range leftover; /* where such lie, and what nobody here takes of it; empty: nothing */
	const struct stream *stream; /* what comes when the program runs; NULL: nothing does */
	int seat;		     /* if so: the number of the userfaultfd */
};

/* A gap of `size` bytes that no address space of the image and nothing of ours uses; 0: none. */
uint64_t memory_find_hole(const image_mm *mms, size_t n, const struct memory_range *ours,
			  size_t n_ours, uint64_t size);

void memory_clear(struct plans *plans, uint32_t task, const struct memory_source *source);
/* specials.c */
void memory_park(struct plans *plans, uint32_t task, const struct memory_source *source);
int memory_specials(struct plans *plans, uint32_t task, struct memory_source *source, const image_mm *mm,
		    struct fsnap_error *err);
int memory_build(struct plans *plans, uint32_t task, const struct memory_source *source,
		 const image_mm *mm, const struct memory_part *part, struct fsnap_error *err);
void memory_fields(struct plans *plans, uint32_t task, const struct memory_source *source,
		   const image_mm *mm);

/* Parts of memory_build(), for what is laid before: one mapping; pages where mappings are. */
void memory_map(struct plans *plans, uint32_t task, const struct memory_source *source, const image_vma *vma);
int memory_fill(struct plans *plans, uint32_t task, const struct memory_source *source,
		const struct page_run *runs, size_t n, struct fsnap_error *err);

/* Where in a plan stretches of work begin that anybody may do. */
struct memory_stretches {
	uint32_t *first;
	size_t n, room;
};

/* The same; notes where each read begins. */
int memory_fill_noting(struct plans *plans, uint32_t task, const struct memory_source *source,
		       const struct page_run *runs, size_t n, struct memory_stretches *stretches,
		       struct fsnap_error *err);

/* crew.c: the same, by several threads where there is much to do (so many pages), whose numbers begin with
 * `number`. */
#define MEMORY_MUCH 8192u
int memory_fill_by_crew(struct plans *plans, uint32_t task, const struct memory_source *source, int number,
			const struct page_run *runs, size_t n, struct fsnap_error *err);

/* aio.c: the context whose ring is this mapping, with the events that wait in it. */
int memory_aio(struct plans *plans, uint32_t task, const struct memory_source *source, const image_mm *mm,
	       const image_vma *vma, struct fsnap_error *err);

/* ring.c: the mappings of io_uring, when all others are there; room for those of rings that come late, whose descriptors
 * memory_late_rings() is told: fds[image_file.id], -1 others. */
int memory_rings(struct plans *plans, uint32_t task, const struct memory_source *source, const image_mm *mm,
		 struct fsnap_error *err);
int memory_late_rings(struct plans *plans, uint32_t task, const struct memory_source *source, const image_mm *mm,
		      const int *fds, struct fsnap_error *err);

/* attach.c: mapping number `vma` is of a System V segment: made, along with the others of the same
 * attachment. To be called for each, in order. */
void memory_attach(struct plans *plans, uint32_t task, const struct memory_source *source,
		   const image_mm *mm, u_int vma);

/* Parts of memory_build(): advice.c, pkeys.c. Pages that were in transparent huge pages, and those that were
 * not, by address; what decides how content arrives; and, when it is there, what else was said about it. */
struct memory_division {
	struct page_run *small;
	size_t n_small;
	struct page_run *huge;
	size_t n_huge;
};

int memory_divide(const image_mm *mm, const struct page_run *runs, size_t n, struct memory_division *out,
		  struct fsnap_error *err);
void memory_division_free(struct memory_division *division);
void memory_expect_small(struct plans *plans, uint32_t task, const image_mm *mm);
void memory_expect_huge(struct plans *plans, uint32_t task, const image_mm *mm);
void memory_advise(struct plans *plans, uint32_t task, const image_mm *mm, const bool *inherited,
		   const bool *streamed);
void memory_protection_keys(struct plans *plans, uint32_t task, const image_mm *mm);

#endif
