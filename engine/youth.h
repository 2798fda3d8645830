/*
 * youth.h - which pages were young when the tree was dumped: they come first in a streamed restore that has no record of
 * an earlier one (restorer/record.h).
 *
 * The kernel tells nobody when a page was used last: PAGEMAP_SCAN has no such category, /proc/PID/smaps says only how much
 * of a mapping was, /sys/kernel/mm/page_idle is left out of most kernels, and DAMON samples regions, for root alone.
 * What any user has is what was written: pages that had to be copied again, because they were written while a live dump
 * copied, and in a chain those that were written since the image before.
 */
#ifndef ENGINE_YOUTH_H
#define ENGINE_YOUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dump;
struct image;
struct record_entry;

struct youth { /* zeroed: nobody was found young */
	struct young_run {
		uint64_t at, npages; /* in the image */
	} *runs;
	size_t n;
	bool lost; /* there was no memory to note them all */
};

/* Pages [at, at + n) of the image have been written lately. */
void youth_note(struct youth *youth, uint64_t at, uint64_t n);
/* What is to be copied now that the tree stands still, where something was copied before. */
void youth_note_jobs(struct dump *dump);
/* A hint in the image, when all pages are in it. */
void youth_put(struct dump *dump);
void youth_free(struct youth *youth);

/* What the image says, as a record would; malloc'ed. NULL: nothing. */
struct record_entry *youth_read(struct image *image, size_t *n);

#endif
