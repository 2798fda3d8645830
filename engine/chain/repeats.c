/*
 * repeats.c - what was stored only because nobody watches it: shared memory, deleted files, private pages of files,
 * small mappings, processes that cannot be tracked. When the tree runs again it is compared with what the base has
 * at the same place; what is the same is referred to, and its space taken by the last pages of the image.
 *
 * Whom to compare with need not be known for sure: only what is equal, byte by byte, is replaced.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/chain/chain.h"
#include "store/scope.h"

#define STAYS UINT64_MAX /* this page is not in the base */

void repeats_note(struct dump *dump, uint64_t at, uint64_t npages)
{
	struct repeats *repeats = &dump->repeats;
	if (dump->parent && repeats->likely)
		pages_add_span(&repeats->n, &repeats->spans, at, at + npages, NULL); /* else it is just stored */
}

uint64_t repeats_pages(const struct dump *dump)
{
	uint64_t pages = 0;
	for (u_int i = 0; i < dump->repeats.n; i++)
		pages += dump->repeats.spans[i].end - dump->repeats.spans[i].start;
	return pages;
}

/* --- whose pages of the base ------------------------------------------------------------------------ */

/* twin[]: by the number of a space in this image the one in the base; 0: none. */
static int find_ghosts(const struct dump *dump, unsigned *twin, struct fsnap_error *err)
{
	for (size_t i = 0; dump->n_ghosts && i < image_count(dump->parent, IMAGE_GHOST); i++) {
		image_ghost theirs = { 0 };
		if (image_get(dump->parent, IMAGE_GHOST, i, (xdrproc_t)xdr_image_ghost, &theirs, err) < 0)
			return -1;
		size_t ours = index_find(&dump->ghost_index[theirs.kind == GHOST_SYSV], theirs.dev, theirs.ino);
		if (ours != INDEX_NONE)
			twin[dump->ghosts[ours].id] = theirs.id;
		xdr_free((xdrproc_t)xdr_image_ghost, (char *)&theirs);
	}
	return 0;
}

static int find_others(const struct dump *dump, unsigned *twin, struct fsnap_error *err)
{
	for (size_t i = 0; i < image_count(dump->parent, IMAGE_PROCESS); i++) {
		image_process theirs = { 0 };
		if (image_get(dump->parent, IMAGE_PROCESS, i, (xdrproc_t)xdr_image_process, &theirs, err) < 0)
			return -1;
		const struct process *ours = tree_find(&dump->tree, theirs.pid);
		if (ours && ours->mm.id && !twin[ours->mm.id])
			twin[ours->mm.id] = theirs.mm;
		xdr_free((xdrproc_t)xdr_image_process, (char *)&theirs);
	}
	return 0;
}

static int find_twins(const struct dump *dump, unsigned *twin, struct fsnap_error *err)
{
	bool all = true;
	for (size_t i = 0; i < dump->tree.n_processes; i++) {
		const struct process *process = dump->tree.processes[i];
		bool based = process->chained && process->chained->based;
		if (based)
			twin[process->mm.id] = process->chained->member->space;
		all = all && (based || process->image.zombie);
	}
	return find_ghosts(dump, twin, err) < 0 ? -1 : all ? 0 : find_others(dump, twin, err);
}

/* --- comparing --------------------------------------------------------------------------------------- */

static const struct page_run *find_run(const struct page_run *runs, size_t n, uint64_t page)
{
	size_t low = 0, high = n;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (runs[middle].page + runs[middle].npages <= page)
			low = middle + 1;
		else
			high = middle;
	}
	return low < n ? &runs[low] : NULL;
}

/* Of the pages of a run that are image pages [from, to). */
static uint64_t compare(const struct dump *dump, const struct page_run *run, unsigned space, uint64_t from, uint64_t to,
			uint64_t *base)
{
	size_t n;
	uint64_t same = 0;
	const struct page_run *runs = image_runs(dump->parent, space, &n), *end = runs + n;
	const struct page_run *theirs = find_run(runs, n, run->page + (from - run->at));
	for (; theirs && from < to; from++) {
		uint64_t page = run->page + (from - run->at);
		while (theirs < end && theirs->page + theirs->npages <= page)
			theirs++;
		if (theirs == end)
			break;
		uint64_t at = theirs->at + (page - theirs->page);
		if (page < theirs->page || base[from] != STAYS)
			continue;
		const void *stored = image_page(dump->parent, at);
		if (!stored || memcmp(image_writer_page(dump->writer, from), stored, STORE_PAGE) != 0)
			continue;
		base[from] = at;
		same++;
	}
	return same;
}

/* The first that ends behind image page `at`. */
static u_int find_span(const struct repeats *repeats, uint64_t at)
{
	u_int low = 0, high = repeats->n;
	while (low < high) {
		u_int middle = (low + high) / 2;
		if (repeats->spans[middle].end <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static uint64_t compare_all(const struct dump *dump, unsigned *twin, uint64_t *base)
{
	const struct repeats *repeats = &dump->repeats;
	uint64_t same = 0;
	for (size_t i = 0; i < dump->n_runs; i++) {
		const struct page_run *run = &dump->runs[i];
		unsigned space = twin[run->space];
		if (run->at & STORE_REFERRED || !space)
			continue;
		for (u_int j = find_span(repeats, run->at); j < repeats->n; j++) {
			const image_span *span = &repeats->spans[j];
			if (span->start >= run->at + run->npages)
				break;
			uint64_t from = span->start > run->at ? span->start : run->at;
			uint64_t to = span->end < run->at + run->npages ? span->end : run->at + run->npages;
			same += compare(dump, run, space, from, to, base);
		}
	}
	return same;
}

/* --- closing the holes ----------------------------------------------------------------------------------- */

/* base[] becomes the place each page has in the end, with STORE_REFERRED if that is in the base. */
static void move(struct dump *dump, uint64_t *base, uint64_t same)
{
	uint64_t end = dump->taken, left = end - same;
	for (uint64_t at = 0; at < dump->taken; at++)
		base[at] = base[at] == STAYS ? at : base[at] | STORE_REFERRED;
	for (uint64_t hole = 0; hole < left; hole++) {
		if (!(base[hole] & STORE_REFERRED))
			continue;
		while (base[--end] & STORE_REFERRED)
			;
		memcpy(image_writer_page(dump->writer, hole), image_writer_page(dump->writer, end), STORE_PAGE);
		image_writer_changed(dump->writer, hole);
		base[end] = hole;
	}
	image_writer_shrink(dump->writer, left);
	dump->taken = left;
	dump->report->pages -= same;
	dump->report->referred_pages += same;
}

/* Pages of a run that are where they are one behind the other. */
static uint32_t together(const uint64_t *place, uint32_t n)
{
	uint32_t i = 1;
	while (i < n && place[i] == place[0] + i)
		i++;
	return i;
}

static int rewrite(struct dump *dump, const uint64_t *place, struct fsnap_error *err)
{
	cleanup_free struct page_run *old = dump->runs;
	size_t n = dump->n_runs;
	dump->runs = NULL;
	dump->n_runs = 0;
	for (size_t i = 0; i < n; i++) {
		struct page_run run = old[i];
		for (uint32_t left = old[i].npages; left; left -= run.npages) {
			run.npages = left;
			if (!(old[i].at & STORE_REFERRED)) {
				const uint64_t *from = place + old[i].at + (old[i].npages - left);
				run.npages = together(from, left);
				run.at = *from;
			}
			if (pages_add_run(dump, &run, err) < 0)
				return -1;
			run.page += run.npages;
		}
	}
	return 0;
}

int repeats_find(struct dump *dump, struct fsnap_error *err)
{
	if (!dump->repeats.n || !dump->parent)
		return 0;
	cleanup_free unsigned *twin = calloc(dump->next_space + 1, sizeof(*twin));
	cleanup_free uint64_t *base = malloc((dump->taken + 1) * sizeof(*base));
	if (!twin || !base)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "comparing with the image before");
	memset(base, 0xff, dump->taken * sizeof(*base));
	if (find_twins(dump, twin, err) < 0)
		return -1;
	uint64_t same = compare_all(dump, twin, base);
	if (!same)
		return 0;
	move(dump, base, same);
	return rewrite(dump, base, err);
}
