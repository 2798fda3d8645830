/*
 * track.h - which pages of a running process have been written since one looked last.
 *
 * The kernel keeps the list: private anonymous memory is registered with a userfaultfd that
 * write-protects asynchronously (UFFD_FEATURE_WP_ASYNC, Linux 6.7), and PAGEMAP_SCAN tells which pages
 * are no longer protected.  Nobody handles a fault; a first write costs the process 1.4 us.
 *
 *	arm.c    making the userfaultfd inside, registering mappings
 *	evaded.c who is not tracked, or has evaded it
 *	dirty.c  what was written; watching it again
 *
 * A userfaultfd belongs to the memory of whoever makes it.  So the process is stopped for a moment, makes
 * one, we take it, and it closes its own: nothing is left to be seen inside but `uw` in the flags of
 * /proc/PID/smaps.  All the rest is done from outside, while it runs.  When the last descriptor is closed,
 * by track_close() or by our death, the kernel forgets all of it.
 *
 * What is *not written* has, since track_take() returned it, been neither written nor replaced: the kernel clears the
 * mark with a page-table entry.  Where the mapping itself was replaced (munmap, mremap, exec) the answer is
 * TRACK_LOST.  But a page may be gone: MADV_DONTNEED frees whole page tables, which are then
 * neither written nor there.  Whoever keeps a copy of a page asks whether its page table still is:
 * track_has_table().
 *
 * Not seen is what goes past the page tables: a device or an io_uring that writes into pages it has
 * pinned before.  Processes with such descriptors are not tracked (track_open() says why); who opens one later is noticed (track_refuse()).
 */
#ifndef ENGINE_TRACK_H
#define ENGINE_TRACK_H

#include "engine/tree.h"

struct track {
	int uffd;    /* -1: nothing is tracked */
	int pagemap; /* of the memory that was there when it was opened */
	image_span *spans; /* where something was registered, by address, not overlapping */
	size_t n_spans;
	image_span *aside; /* likewise, track_register_aside() */
	size_t n_aside;
	uint64_t stopped_us; /* so long the process stood still for it */
};

#define TRACK_NONE ((struct track){ .uffd = -1, .pagemap = -1 })

/* 0, or -1 with a reason that people understand: this kernel, this user, this process cannot be tracked.
 * The process must have been looked at (struct process: text, mm.vmas, mem), and must not be stopped by
 * us: it is stopped alone, for some hundred microseconds. */
int track_open(struct track *track, struct process *process, struct fsnap_error *err);

/* Does it have what that refuses, now? What was opened since the last look and closed again is missed. A question about what was written that is asked meanwhile does not hold for longer than
 * it takes: to pages that are in the hands of such a descriptor more may come unseen. */
int track_refuse(const struct process *process, struct fsnap_error *err);
/* Always -1: process 123 (comm) `why`. */
int track_refused(const struct process *process, const char *why, struct fsnap_error *err);
/* The same of what was collected: of a descriptor by what it leads to and its flags, of all mappings. NULL: no. */
const char *track_evaded_by(const char *link, unsigned long flags);
bool track_evaded_in(const image_mm *mm);

/* Registers what of its mappings (process->mm.vmas) can and need be tracked; those that have vanished or
 * belong to somebody else's userfaultfd are left out. May be called again when there are new ones, also where
 * others were before: all pages of a mapping that was not registered count as written until track_take() returns them. */
int track_register(struct track *track, const struct process *process, struct fsnap_error *err);

/* Registers small mappings, and those of files that may hold pages of the process' own, which `bare` is not; they are not
 * among the spans. Of a file's page that is given back (MADV_DONTNEED) the mark stays, and falls on what is there next
 * (zap_install_uffd_wp_if_needed(), mm/memory.c): only as long as no page was taken away anywhere is one that is there, and
 * not written, what it was (bpf/vmas.h). */
struct vmas_range;
int track_register_aside(struct track *track, const struct process *process, const struct vmas_range *bare, size_t n,
			 struct fsnap_error *err);

/* By that only? */
bool track_is_aside(const struct track *track, uint64_t start, uint64_t end);
/* Has something in the range been registered? */
bool track_has(const struct track *track, uint64_t start, uint64_t end);

/* All that is registered counts as written from here on: 4 ms per GiB, and more for what did not. */
int track_wash(struct track *track, struct fsnap_error *err);

/* Takes over what another process has opened: both descriptors are the track's. */
int track_adopt(struct track *track, int uffd, int pagemap);

/* Is the memory still that of the process (exec(2) gives it another)? */
bool track_is_alive(const struct track *track);

/* In short steps, for nobody can map or fault in memory during one: 30 ms per GiB in all. */
void track_close(struct track *track);
/* Another process has the same descriptors, and goes on tracking. */
void track_leave(struct track *track);

/* --- asking; [start, end) lies within one mapping, whole pages ------------------------------- */

typedef int (*track_region_fn)(void *arg, uint64_t start, uint64_t end, struct fsnap_error *err);

/* Ranges as they were told; whoever has them frees spans. */
struct track_spans {
	image_span *spans;
	size_t n;
};

/* A track_region_fn that notes the range; arg is a struct track_spans. */
int track_note(void *arg, uint64_t start, uint64_t end, struct fsnap_error *err);

void track_sort(struct track_spans *noted); /* by address */

enum { TRACK_LOST = 1 }; /* the range, or a part of it, is not registered (any more) */

/* Is the mapping that has this page registered? */
bool track_watches(const struct track *track, uint64_t page_address);

/* Calls fn for what may have been written since it was taken last, whatever is there now: pages, or nothing.
 * 0.7 ms per GiB. Changes nothing. Any pagemap descriptor of the memory will do. */
int track_written(int pagemap, uint64_t start, uint64_t end, track_region_fn fn, void *arg,
		  struct fsnap_error *err);

/* The same of what is there, and not zero. 0.9 ms per GiB. */
int track_changed(int pagemap, uint64_t start, uint64_t end, track_region_fn fn, void *arg, struct fsnap_error *err);

/* Calls fn for pages that are there, not zero and written, each marked as not written the moment before: what is
 * read from it now is what it holds as long as it is not written. Pages in swap are left as they are: they
 * count as written. 1 ms per GiB and 20 for what is marked. TRACK_LOST: the mapping was changed at this moment, and
 * pages of the range may be marked without fn having been told: of all of it nothing is known. */
int track_take(const struct track *track, uint64_t start, uint64_t end, track_region_fn fn, void *arg,
	       struct fsnap_error *err);

/* Marks pages that are there, not zero, no file's and written as not written, wherever in the range something is registered. */
int track_take_aside(const struct track *track, uint64_t start, uint64_t end, struct fsnap_error *err);

/* Calls fn for pages that are there and not written. 4 ms per GiB. */
int track_unmarked(const struct track *track, uint64_t start, uint64_t end, track_region_fn fn, void *arg,
		   struct fsnap_error *err);

/* Calls fn for pages that are huge. 5 ms per GiB of those that are not. */
int track_huge(int pagemap, uint64_t start, uint64_t end, track_region_fn fn, void *arg, struct fsnap_error *err);

/* As track_written(), and marks all of it as not written: pages, present or in swap, and entries that are empty or guard
 * regions. For who keeps of every entry what it was; the process must stand still. 0.8 ms per GiB, in one go:
 * track_take() for each of many small ranges costs a flush of the TLB each. */
int track_renew(const struct track *track, uint64_t start, uint64_t end, track_region_fn fn, void *arg,
		struct fsnap_error *err);

#define TRACK_TABLE (2ull << 20) /* bytes that one page table is for */

/* Is there a page at this address, present or in swap? Then its page table was not freed, and whatever of the
 * same 2 MiB is not written is there. 1, 0 or -1. */
int track_has_table(int pagemap, uint64_t address, struct fsnap_error *err);

/* The same, where that is asked of one page after the other, whoever asks: each table is asked once. It begins as zeroes. */
struct track_table {
	uint64_t number; /* + 1 */
	int is_there;
};
int track_has_table_of(struct track_table *last, int pagemap, uint64_t address, struct fsnap_error *err);

#endif
