/*
 * copy_inside.c - large processes are copied from inside, by helpers that the agent starts in their memory.
 *
 * process_vm_readv(2) spends two fifths of its time on finding and pinning each page.  Who has the same memory
 * reads it as everybody does, and stores it into the image's huge pages, which it maps 8 MiB at a time: what it has
 * mapped counts as resident, and getrusage(2) tells the most there ever was.  It sums up what it copies on the way
 * (parasite/bulk.c).  As many helpers as there are processors come close to what memory can do.
 *
 * Helpers are processes, children for a moment, so that a fault in there is the end of nobody else.  Copied from inside
 * are pages of private anonymous mappings that may be read, are in memory, belong to no key, are watched by no userfaultfd
 * and shared with nobody; and only into an image in memory, all of which is there before.  And not in processes with a
 * seccomp filter, which would hold for the helpers.
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/platform/x86.h>

#include "engine/copy.h"
#include "engine/place.h"
#include "engine/ranges.h"
#include "store/hash.h"

#define WINDOW_PAGES (2 * CHUNK_PAGES)
#define WINDOW (WINDOW_PAGES * STORE_PAGE)
#define PIECES_MAX 128 /* of a window: where memory is in smaller ones, little is gained */
#define BLOCKS (WINDOW / PLAN_BULK_BLOCK)

_Static_assert(PLAN_BULK_BLOCK == STORE_BLOCK_PAGES * STORE_PAGE, "what one sum covers");
_Static_assert(PLAN_BULK_SECRET == HASH_SECRET, "the secret of the sums");

/* What of one process is copied from inside. */
struct load {
	struct dump *dump;
	struct process *process;
	struct plan_chunk *chunks;
	uint64_t *at; /* of each the image page it begins with */
	size_t n;
	struct plan_piece *pieces;
	size_t n_pieces;
	uint64_t offset; /* in the file, of image page 0 */
	unsigned vectors;
	struct plans *plans;
	uint32_t bulk, chunks_at, sums_at; /* data of the plans */
	uint32_t helpers, n_helpers;
	int fd;
	struct plan_chunk *copied; /* the chunks, as they lie in control memory */
};

enum { COPIED_INSIDE = 1, COPIED_OUTSIDE }; /* plan_chunk.copied */

/* --- who ----------------------------------------------------------------------------------------- */

static bool is_suited(const struct process *process)
{
	return !process->image.zombie && process->tasks[0]->image.seccomp == 0;
}

static unsigned find_vectors(void)
{
	return CPU_FEATURE_ACTIVE(AVX512F) ? VECTORS_AVX512 : CPU_FEATURE_ACTIVE(AVX2) ? VECTORS_AVX2 : 0;
}

/* --- what ---------------------------------------------------------------------------------------- */

static uint64_t end_of_job(const struct copy_job *job)
{
	return job->at + job->npages;
}

static uint64_t end_of_vma(const void *vma)
{
	return ((const image_vma *)vma)->end;
}

static uint64_t end_of_span(const void *span)
{
	return ((const image_span *)span)->end;
}

static bool overlaps(const image_span *spans, size_t n, uint64_t start, uint64_t end)
{
	size_t i = ranges_beyond(spans, n, sizeof(*spans), end_of_span, start);
	return i < n && spans[i].start < end;
}

static bool is_watched(const struct process *process, uint64_t start, uint64_t end)
{
	for (u_int i = 0; i < process->userfaults.n_ranges; i++) {
		const image_watch *watch = &process->userfaults.ranges[i].watch;
		if (watch->start < end && watch->end > start)
			return true;
	}
	return false;
}

static bool is_plain(const struct process *process, const image_vma *vma)
{
	return vma->kind == VMA_ANON && (vma->flags & MAP_PRIVATE) && !(vma->flags & MAP_HUGETLB) &&
	       (vma->prot & PROT_READ) && vma->pkey == 0 && !is_watched(process, vma->start, vma->end);
}

/* Neighbouring mappings may lie in one job. */
static bool is_readable(const struct process *process, uint64_t start, uint64_t end)
{
	const image_vma *vmas = process->mm.vmas.vmas_val;
	size_t n = process->mm.vmas.vmas_len;
	if (overlaps(process->swapped, process->n_swapped, start, end))
		return false;
	for (size_t i = ranges_beyond(vmas, n, sizeof(*vmas), end_of_vma, start); start < end; start = vmas[i++].end)
		if (i == n || vmas[i].start > start || !is_plain(process, &vmas[i]))
			return false;
	return true;
}

static int add_piece(struct load *load, uint64_t page, uint64_t npages, struct fsnap_error *err)
{
	struct plan_piece *pieces = grow(load->pieces, load->n_pieces, sizeof(*pieces), err);
	if (!pieces)
		return -1;
	load->pieces = pieces;
	pieces[load->n_pieces++] = (struct plan_piece){ page * STORE_PAGE, npages * STORE_PAGE };
	return 0;
}

static int add_chunk(struct load *load, uint64_t at, size_t first, struct fsnap_error *err)
{
	struct plan_chunk *chunks = grow(load->chunks, load->n, sizeof(*chunks), err);
	load->chunks = chunks ? chunks : load->chunks;
	uint64_t *places = chunks ? grow(load->at, load->n, sizeof(*places), err) : NULL;
	if (!places)
		return -1;
	load->at = places;
	places[load->n] = at;
	chunks[load->n++] = (struct plan_chunk){ .offset = load->offset + at * STORE_PAGE, .first = (uint32_t)first };
	return 0;
}

/* A window that jobs of this process fill without a gap. *job: the first that reaches into it. */
static int try_window(struct load *load, uint64_t at, size_t *job, struct fsnap_error *err)
{
	const struct dump *dump = load->dump;
	size_t first = load->n_pieces;
	uint64_t page = at, end = at + WINDOW_PAGES;
	while (*job < dump->n_jobs && end_of_job(&dump->jobs[*job]) <= at)
		++*job;
	for (size_t i = *job; page < end; i++) {
		const struct copy_job *now = i < dump->n_jobs ? &dump->jobs[i] : NULL;
		if (!now || now->process != load->process || now->shared || now->at > page ||
		    load->n_pieces - first == PIECES_MAX)
			break;
		uint64_t from = now->page + (page - now->at), stop = end_of_job(now) < end ? end_of_job(now) : end;
		uint64_t n = stop - page;
		if (!is_readable(load->process, from * STORE_PAGE, (from + n) * STORE_PAGE))
			break;
		if (add_piece(load, from, n, err) < 0)
			return -1;
		page = stop;
	}
	if (page == end)
		return add_chunk(load, at, first, err);
	load->n_pieces = first;
	return 0;
}

/* Jobs are sorted by their place, and so are those of one process, which lie together but in live dumps. */
static int choose(struct load *load, struct fsnap_error *err)
{
	const struct dump *dump = load->dump;
	size_t job = 0;
	while (job < dump->n_jobs && dump->jobs[job].process != load->process)
		job++;
	if (job == dump->n_jobs)
		return 0;
	for (uint64_t at = dump->jobs[job].at / WINDOW_PAGES * WINDOW_PAGES; at + WINDOW_PAGES <= dump->taken;
	     at += WINDOW_PAGES) {
		if (try_window(load, at, &job, err) < 0)
			return -1;
		if (!dump->live && job < dump->n_jobs && dump->jobs[job].at > at &&
		    dump->jobs[job].process != load->process)
			break;
	}
	return 0;
}

/* --- how ----------------------------------------------------------------------------------------- */

static void lay_bulk(struct load *load)
{
	struct plans *plans = load->plans;
	struct plan_bulk bulk = { .n = (uint32_t)load->n, .vectors = load->vectors, .window = WINDOW };
	memcpy(bulk.secret, hash_secret(), sizeof(bulk.secret));
	load->bulk = plans_data(plans, &bulk, sizeof(bulk), 64);
	load->chunks_at = plans_data(plans, load->chunks, load->n * sizeof(*load->chunks), 8);
	uint32_t pieces = plans_data(plans, load->pieces, load->n_pieces * sizeof(*load->pieces), 8);
	load->sums_at = plans_data(plans, NULL, load->n * BLOCKS * sizeof(uint64_t), 8);
	plans_pointer(plans, load->bulk + (uint32_t)offsetof(struct plan_bulk, chunks), load->chunks_at);
	plans_pointer(plans, load->bulk + (uint32_t)offsetof(struct plan_bulk, pieces), pieces);
	plans_pointer(plans, load->bulk + (uint32_t)offsetof(struct plan_bulk, sums), load->sums_at);
}

static void build(struct load *load)
{
	struct plans *plans = load->plans = plans_new();
	uint32_t leader = plans_task(plans, load->process->tasks[0]->tid, load->process->comm);
	lay_bulk(load);
	load->n_helpers = copy_crew_size();
	plan_note(plans, "copy from inside");
	plan_borrow(plans, leader, PLACE_READY, PLACE_LENT);
	for (uint32_t i = 0; i < load->n_helpers; i++) {
		uint32_t helper = plans_task(plans, 0, "process that helps to copy");
		load->helpers = i ? load->helpers : helper;
		plan_bulk(plans, helper, load->bulk);
		plan_call(plans, helper, SYS_exit_group, IMM(0));
		plan_helper_apart(plans, leader, helper);
	}
	plan_post(plans, leader, PLACE_STARTED, 1);
	plan_wait(plans, leader, PLACE_DONE, 1);
	plan_accept_any(plans); /* should we be dead, what follows is wanted all the more */
	for (uint32_t i = 0; i < load->n_helpers; i++)
		plan_join_apart(plans, leader, load->helpers + i);
	plan_give_back(plans, leader);
}

static int copy_from_outside(void *arg, uint32_t chunk, struct fsnap_error *err)
{
	struct load *load = arg;
	if (copy_chunk(load->dump, load->at[chunk], load->at[chunk] + WINDOW_PAGES, err) < 0)
		return -1;
	load->copied[chunk].copied = COPIED_OUTSIDE;
	return 0;
}

static int meanwhile(struct placement *placement, struct fsnap_error *err)
{
	struct load *load = placement->arg;
	load->copied = plans_data_at(load->plans, placed_ctl(placement->placed), load->chunks_at);
	struct place_bulk bulk = {
		.fd = load->fd,
		.bulk = plans_data_at(load->plans, placed_ctl(placement->placed), load->bulk),
		.first = load->helpers,
		.n = load->n_helpers,
		.help = copy_from_outside,
		.arg = load,
	};
	return place_bulk(placement, &bulk, err);
}

static void take_over(const struct load *load, struct ctl *ctl, bool *done, uint64_t *pages)
{
	const uint64_t *sums = plans_data_at(load->plans, ctl, load->sums_at);
	for (size_t i = 0; i < load->n; i++) {
		if (!load->copied[i].copied)
			continue;
		if (load->copied[i].copied == COPIED_INSIDE) {
			image_writer_summed(load->dump->writer, load->at[i] / STORE_BLOCK_PAGES, BLOCKS, sums + i * BLOCKS);
			load->dump->report->inside_pages += WINDOW_PAGES;
		}
		for (uint64_t j = 0; j < WINDOW_PAGES / CHUNK_PAGES; j++)
			done[load->at[i] / CHUNK_PAGES + j] = true;
		*pages += WINDOW_PAGES;
	}
}

static int copy_process(struct load *load, bool *done, uint64_t *pages, struct fsnap_error *err)
{
	struct fsnap_error why = { 0 };
	build(load);
	struct placement placement = { .process = load->process, .plans = load->plans, .alone = true,
				       .meanwhile = meanwhile, .arg = load };
	int result = place_run(&placement, 1, &why);
	if (result == 0)
		take_over(load, placed_ctl(placement.placed), done, pages);
	placed_free(placement.placed);
	plans_free(load->plans);
	/* The process' own limits: it has no room for so much of ours. */
	if (result < 0 && why.code == FSNAP_E_UNSUPPORTED)
		return 0;
	if (result < 0 && err && !error_is_set(err))
		*err = why;
	return result;
}

int copy_inside(struct dump *dump, bool *done, uint64_t *pages, struct fsnap_error *err)
{
	struct load load = { .dump = dump, .vectors = find_vectors() };
	int result = 0;
	load.fd = image_writer_lend(dump->writer, &load.offset);
	if (load.fd < 0 || !load.vectors || getenv("FSNAP_NO_COPY_INSIDE"))
		return 0;
	for (size_t i = 0; i < dump->tree.n_processes && result == 0; i++) {
		load.process = dump->tree.processes[i];
		load.n = load.n_pieces = 0;
		if (!is_suited(load.process))
			continue;
		result = choose(&load, err);
		if (result == 0 && load.n * WINDOW_PAGES >= INSIDE_ABOVE)
			result = copy_process(&load, done, pages, err);
	}
	free(load.chunks);
	free(load.at);
	free(load.pieces);
	return result;
}
