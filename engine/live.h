/*
 * live.h - copying while the tree runs, so that little is left to be copied while it stands still.
 *
 *	live.c        before the freeze: tracking, rounds of copying
 *	live_pages.c  during it: which copies still hold
 *
 * The pages that an image stores are the same as without it; only where they are read from differs. A copy
 * counts only if its page has not been written, replaced or given back since (track/track.h).
 */
#ifndef ENGINE_LIVE_H
#define ENGINE_LIVE_H

#include "engine/dump.h"
#include "engine/held.h"
#include "engine/track/track.h"

struct live_space { /* the memory of one process */
	pid_t pid;
	struct process *process; /* while rounds last; it may not be the same when the tree stands still */
	struct track track;
	struct held held;
	image_span *huge; /* huge pages there were before: tracking splits those that are written */
	u_int n_huge;
	image_span *doubts; /* ranges of which track_take() has lost sight */
	u_int n_doubts;
	bool judged; /* is it still that memory? Asked once, when the tree stands still */
};

struct live {
	struct live_space *spaces;
	size_t n_spaces;
	struct numbers by_pid; /* places in spaces */
};

/* Copies as long as it pays, if that was asked for or the tree is large. What cannot be tracked is left to the
 * freeze, with a note. */
int live_copy(struct dump *dump, struct fsnap_error *err);

/* In the report: was the tree frozen for longer than it should be, and why? */
void live_account(struct dump *dump);

/* Lets go of all tracking. */
void live_free(struct dump *dump);

/* Is what watches [start, end) our own doing? */
bool live_watches(const struct dump *dump, const struct process *process, uint64_t start, uint64_t end);

/* Are there copies of pages of this mapping? Then live_pages() stores its pages. */
bool live_has(const struct dump *dump, const struct process *process, const image_vma *vma);
int live_pages(struct dump *dump, struct process *process, int pagemap, const image_vma *vma,
	       struct fsnap_error *err);

/* The place in the image that a page was given, whatever is there; HELD_NOWHERE: none. *n: see held_find(). */
uint64_t live_place(const struct dump *dump, const struct process *process, uint64_t page, uint64_t *n);

#endif
