/*
 * userfaults.c - memory that userfaultfds watch: which ranges, for what, and what the page
 * tables say of them.  The other half, and who watches, is kinds/userfaultfd.c.
 */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/chain/chain.h"
#include "engine/pagemap.h"
#include "store/scope.h"

void userfaults_forget(struct process *process)
{
	process->userfaults.n_ranges = process->userfaults.n_protected = process->userfaults.n_present = 0;
}

/* By this dump's own chain: nothing that the program should have again. */
static bool is_tracked(const struct process *process, uint64_t start, uint64_t end, unsigned mode)
{
	const struct track *track = process->chained ? &process->chained->member->track : NULL;
	return track && mode == UFFDIO_REGISTER_MODE_WP && track_has(track, start, end);
}

int userfaults_add(struct process *process, uint64_t start, uint64_t end, bool shared, unsigned marks,
		   struct fsnap_error *err)
{
	struct userfaults *faults = &process->userfaults;
	struct userfault_range range = { { start, end, 0 }, shared, false };
	if (marks & MARK_WATCHED_MISSING)
		range.watch.mode |= UFFDIO_REGISTER_MODE_MISSING;
	if (marks & MARK_WATCHED_WRITES)
		range.watch.mode |= UFFDIO_REGISTER_MODE_WP;
	if (marks & MARK_WATCHED_MINOR)
		range.watch.mode |= UFFDIO_REGISTER_MODE_MINOR;
	if (range.watch.mode == 0 || is_tracked(process, start, end, range.watch.mode))
		return 0;
	struct userfault_range *ranges = grow(faults->ranges, faults->n_ranges, sizeof(*ranges), err);
	if (!ranges)
		return -1;
	faults->ranges = ranges;
	ranges[faults->n_ranges++] = range;
	return 0;
}

/* Which pages of a range are write-protected; of shared memory, whose content does not tell, which are mapped. */
static int look_at(struct process *process, int pagemap, const struct userfault_range *range,
		   struct fsnap_error *err)
{
	struct userfaults *faults = &process->userfaults;
	uint64_t entries[1024];
	for (uint64_t at = range->watch.start, end = range->watch.end; at < end;) {
		uint64_t n = (end - at) / STORE_PAGE < 1024 ? (end - at) / STORE_PAGE : 1024;
		if (pread(pagemap, entries, n * 8, (off_t)(at / STORE_PAGE * 8)) != (ssize_t)(n * 8))
			return fail(err, FSNAP_E_SYSTEM, errno, "process %d (%s): pagemap", process->pid,
				    process->comm);
		for (uint64_t i = 0; i < n; i++, at += STORE_PAGE)
			if ((entries[i] & ENTRY_PROTECTED &&
			     pages_add_span(&faults->n_protected, &faults->protected, at, at + STORE_PAGE, err) < 0) ||
			    (range->shared && entries[i] & ENTRY_PRESENT &&
			     pages_add_span(&faults->n_present, &faults->present, at, at + STORE_PAGE, err) < 0))
				return -1;
	}
	return 0;
}

int userfaults_pages(struct process *process, int pagemap, struct fsnap_error *err)
{
	for (u_int i = 0; i < process->userfaults.n_ranges; i++)
		if (look_at(process, pagemap, &process->userfaults.ranges[i], err) < 0)
			return -1;
	return 0;
}

static int nothing(void *arg, uint64_t start, uint64_t end, struct fsnap_error *err)
{
	(void)arg, (void)start, (void)end, (void)err;
	return 0;
}

/* Likewise, by another fsnap, or whoever wants to know what is written: nobody handles faults there. */
static bool only_counts_writes(const struct process *process, const image_watch *range)
{
	struct fsnap_error ignored = { 0 };
	cleanup_fd int pagemap = openat(process->proc, "pagemap", O_RDONLY | O_CLOEXEC);
	return range->mode == UFFDIO_REGISTER_MODE_WP && pagemap >= 0 &&
	       track_written(pagemap, range->start, range->start + STORE_PAGE, nothing, NULL, &ignored) == 0;
}

int userfaults_check(const struct process *process, struct fsnap_error *err)
{
	for (u_int i = 0; i < process->userfaults.n_ranges; i++) {
		const image_watch *range = &process->userfaults.ranges[i].watch;
		if (process->userfaults.ranges[i].claimed || only_counts_writes(process, range))
			continue;
		fail(err, FSNAP_E_UNSUPPORTED, 0,
		     "process %d (%s): mapping %lx-%lx: a userfaultfd that another process holds is registered for it",
		     process->pid, process->comm, (unsigned long)range->start, (unsigned long)range->end);
		return error_hint(err, "who handles its page faults cannot be saved with it: let that end first (if the "
				       "tree was restored a moment ago, its memory may still be coming: try again)");
	}
	return 0;
}
