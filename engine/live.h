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

struct chain_member;

struct live_space { /* the memory of one process */
	pid_t pid;
	struct process *process; /* while rounds last; it may not be the same when the tree stands still */
	struct chain_member *member; /* of a chain, whose track it is then; else NULL */
	struct track track;
	struct held held;
	image_span *huge; /* huge pages there were before: tracking splits those that are written */
	u_int n_huge;
	image_span *doubts; /* ranges of which track_take() has lost sight */
	u_int n_doubts;
	bool evaded; /* it may have changed unseen while copies were made: none holds */
	bool judged; /* is it still that memory? Asked once, when the tree stands still */
};

struct live {
	struct live_space *spaces;
	size_t n_spaces;
	struct numbers by_pid; /* places in spaces */
	double page_us; /* the price of a page, as the last round had it */
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

/* Are there copies of pages of this mapping? Then live_pages() stores its pages, unless a chain does. */
bool live_has(const struct dump *dump, const struct process *process, const image_vma *vma);
int live_pages(struct dump *dump, struct process *process, int pagemap, const image_vma *vma,
	       struct fsnap_error *err);

/* Was its memory copied while it ran? */
bool live_follows(const struct dump *dump, const struct process *process);

/* For a chain, of a range of its member's memory: stores the copies in it, which are good, nothing having been written
 * there; what lies between is told to `between` first. `table`: theirs in common. */
typedef int (*live_between_fn)(void *arg, uint64_t start, uint64_t end, struct fsnap_error *err);
int live_keep(struct dump *dump, struct process *process, int pagemap, uint64_t start, uint64_t end,
	      struct track_table *table, live_between_fn between, void *arg, struct fsnap_error *err);
/* Adds what counts as written besides, and sorts. */
int live_doubts(const struct dump *dump, const struct process *process, uint64_t start, uint64_t end,
		struct track_spans *written, struct fsnap_error *err);
/* Adds what was huge before to those from `from` on in the list of the process' huge pages. */
int live_huge(const struct dump *dump, struct process *process, const image_vma *vma, u_int from,
	      struct fsnap_error *err);

/* The place in the image that a page was given, whatever is there; HELD_NOWHERE: none. *n: see held_find(). */
uint64_t live_place(const struct dump *dump, const struct process *process, uint64_t page, uint64_t *n);

#endif
