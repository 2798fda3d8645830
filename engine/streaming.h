/*
 * streaming.h - a restore whose memory comes when the tree runs already: restorer/stream.h says which part of it,
 * restorer/pager.h how.
 *
 *	decide      is it worth it, and possible?
 *	choose      per address space, when its plan is written: what comes when
 *	hand over   when all tasks stand at the end of their plans: each has a userfaultfd in the *seat*, a number
 *	            that nobody else uses; the pager gets them
 *	leave       they close theirs
 *	begin       the last thing before the tree is let go
 */
#ifndef ENGINE_STREAMING_H
#define ENGINE_STREAMING_H

#include "restorer/pager.h"
#include "restorer/stream.h"

struct restore;

struct streaming {
	bool on;
	int seat;
	int ready; /* where the pager says that it is there, while it starts and tasks run the rest of their plans */
	struct stream *of; /* by process */
	struct pager_progress *progress;
};

/* --memory, and the size of the image. Where it was asked for but cannot be had, a note says why. */
int streaming_decide(struct restore *restore, struct fsnap_error *err);
void streaming_free(struct restore *restore);

/* For compile.c: what of a process' memory comes later goes from `part`, which memory_build() gets. */
int streaming_choose(struct restore *restore, size_t process, const image_mm *mm, struct memory_part *part,
		     struct fsnap_error *err);
int streaming_seat(const struct restore *restore, const image_process *process); /* -1: it needs none */
void streaming_leave(struct restore *restore, const image_process *process, uint32_t task);

/* Checksums of all pages that the plans bring. */
int streaming_verify(const struct restore *restore, struct fsnap_error *err);
/* Of an image that is compressed or encrypted: decodes what comes before the program runs, into memory where the plans
 * read it. */
int streaming_decode(const struct restore *restore, struct fsnap_error *err);
/* When tasks are traced, and before any of them goes on. */
int streaming_hand_over(struct restore *restore, struct fsnap_error *err);
/* All that can fail has not: waits for the pager, which brings from now on what nobody waits for, too. */
int streaming_begin(struct restore *restore, struct fsnap_error *err);
/* The caller may wait for the rest. */
void streaming_report(struct restore *restore);

#endif
