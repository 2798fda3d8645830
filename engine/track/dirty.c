/*
 * dirty.c - what of a tracked range was written: PAGEMAP_SCAN.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/dump.h"
#include "engine/pagemap.h"
#include "engine/track/track.h"
#include "store/store.h"

int track_note(void *arg, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	struct track_spans *noted = arg;
	image_span *spans = grow(noted->spans, noted->n, sizeof(*spans), err);
	if (!spans)
		return -1;
	noted->spans = spans;
	spans[noted->n++] = (image_span){ start, end };
	return 0;
}

static int by_start(const void *a, const void *b)
{
	const image_span *x = a, *y = b;
	return x->start < y->start ? -1 : x->start > y->start;
}

void track_sort(struct track_spans *noted)
{
	if (noted->n)
		qsort(noted->spans, noted->n, sizeof(*noted->spans), by_start);
}

static int scan(int pagemap, struct scan_argument *argument, track_region_fn fn, void *arg, struct fsnap_error *err)
{
	struct scan_region regions[REGIONS];
	argument->size = sizeof(*argument);
	argument->vec = (uintptr_t)regions;
	argument->vec_len = REGIONS;
	while (argument->start < argument->end) {
		int n = ioctl(pagemap, SCAN, argument);
		if (n < 0 && (errno == EPERM || errno == ESRCH)) /* another mapping; another program, or its end */
			return TRACK_LOST;
		if (n < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "PAGEMAP_SCAN");
		for (int i = 0; i < n; i++)
			if (fn(arg, regions[i].start, regions[i].end, err) < 0)
				return -1;
		argument->start = argument->walk_end;
	}
	return 0;
}

/* Exactly this question is one that the kernel answers without a look at the pages themselves
 * (pagemap_scan_pmd_entry(), fs/proc/task_mmu.c): an entry with nothing in it is "written", too. */
int track_written(int pagemap, uint64_t start, uint64_t end, track_region_fn fn, void *arg, struct fsnap_error *err)
{
	struct scan_argument argument = {
		.flags = SCAN_CHECK_ASYNC,
		.start = start,
		.end = end,
		.category_mask = IS_WRITTEN,
		.return_mask = IS_WRITTEN,
	};
	return scan(pagemap, &argument, fn, arg, err);
}

int track_changed(int pagemap, uint64_t start, uint64_t end, track_region_fn fn, void *arg, struct fsnap_error *err)
{
	struct scan_argument argument = {
		.flags = SCAN_CHECK_ASYNC,
		.start = start,
		.end = end,
		.category_inverted = IS_ZERO,
		.category_mask = IS_WRITTEN | IS_ZERO,
		.category_anyof_mask = IS_PRESENT | IS_SWAPPED,
		.return_mask = IS_WRITTEN,
	};
	return scan(pagemap, &argument, fn, arg, err);
}

int track_renew(const struct track *track, uint64_t start, uint64_t end, track_region_fn fn, void *arg,
		struct fsnap_error *err)
{
	struct scan_argument argument = {
		.flags = SCAN_CHECK_ASYNC | SCAN_PROTECT,
		.start = start,
		.end = end,
		.category_mask = IS_WRITTEN,
		.return_mask = IS_WRITTEN,
	};
	return scan(track->pagemap, &argument, fn, arg, err);
}

static int ignore(void *arg, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	(void)arg, (void)start, (void)end, (void)err;
	return 0;
}

/* Marked is what is there and going to be copied, nothing else: what looks like a page in swap may be none (a guard
 * region), and the marks of empty entries look like that. */
int track_take(const struct track *track, uint64_t start, uint64_t end, track_region_fn fn, void *arg,
	       struct fsnap_error *err)
{
	struct scan_argument argument = {
		.flags = SCAN_CHECK_ASYNC | SCAN_PROTECT,
		.start = start,
		.end = end,
		.category_inverted = IS_ZERO,
		.category_mask = IS_WRITTEN | IS_PRESENT | IS_ZERO,
		.return_mask = IS_WRITTEN,
	};
	return scan(track->pagemap, &argument, fn, arg, err);
}

/* Without SCAN_CHECK_ASYNC what is not registered is passed over. */
int track_take_aside(const struct track *track, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	struct scan_argument argument = {
		.flags = SCAN_PROTECT,
		.start = start,
		.end = end,
		.category_inverted = IS_ZERO | IS_FILE,
		.category_mask = IS_WRITTEN | IS_PRESENT | IS_ZERO | IS_FILE,
		.return_mask = IS_WRITTEN,
	};
	return scan(track->pagemap, &argument, ignore, NULL, err);
}

bool track_watches(const struct track *track, uint64_t page_address)
{
	return track_written(track->pagemap, page_address, page_address + STORE_PAGE, ignore, NULL,
			     &(struct fsnap_error){ 0 }) == 0;
}

int track_unmarked(const struct track *track, uint64_t start, uint64_t end, track_region_fn fn, void *arg,
		   struct fsnap_error *err)
{
	struct scan_argument argument = {
		.start = start,
		.end = end,
		.category_inverted = IS_WRITTEN,
		.category_mask = IS_WRITTEN,
		.category_anyof_mask = IS_PRESENT | IS_SWAPPED,
		.return_mask = IS_WRITTEN,
	};
	return scan(track->pagemap, &argument, fn, arg, err);
}

int track_huge(int pagemap, uint64_t start, uint64_t end, track_region_fn fn, void *arg, struct fsnap_error *err)
{
	struct scan_argument argument = {
		.start = start,
		.end = end,
		.category_inverted = IS_ZERO,
		.category_mask = IS_HUGE | IS_ZERO,
		.return_mask = IS_HUGE,
	};
	return scan(pagemap, &argument, fn, arg, err);
}

static ssize_t read_entry(int pagemap, uint64_t address, uint64_t *entry)
{
	*entry = 0;
	return pread(pagemap, entry, sizeof(*entry), (off_t)(address / STORE_PAGE * sizeof(*entry)));
}

int track_has_table(int pagemap, uint64_t address, struct fsnap_error *err)
{
	uint64_t entry;
	if (read_entry(pagemap, address, &entry) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "pagemap of tracked memory");
	return (entry & (ENTRY_PRESENT | ENTRY_SWAPPED)) != 0;
}

int track_has_table_of(struct track_table *last, int pagemap, uint64_t address, struct fsnap_error *err)
{
	uint64_t number = address / TRACK_TABLE + 1;
	if (last->number != number)
		*last = (struct track_table){ number, track_has_table(pagemap, address, err) };
	return last->is_there;
}

/* Of memory that nobody has any more nothing can be read (pagemap_read(), fs/proc/task_mmu.c). */
bool track_is_alive(const struct track *track)
{
	uint64_t entry;
	return track->uffd >= 0 && read_entry(track->pagemap, 0, &entry) > 0;
}
