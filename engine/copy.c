#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/copy.h"
#include "engine/ranges.h"
#include "store/thread.h"

/*
 * Pages are read with process_vm_readv(2) straight into the mapped image: those that copy_inside.c has not
 * copied from inside before.
 *
 * But it pins what it reads, and a frame that is shared copy-on-write is not pinned: the
 * process is given a copy of its own first (gup_must_unshare() in mm/gup.c, since Linux 5.19).
 * The tree would take more memory than before, and the copy costs frozen time.  Reading
 * /proc/PID/mem does not pin.
 */

#define PIECES 512			    /* remote ranges per system call, below IOV_MAX */
#define SUMMED_ABOVE 4096 /* pages: of so many checksums are made on the way */
#define ALONE_BELOW 768	  /* pages that lie apart: starting a thread costs as much as copying some 100 */
#define FEW_PAGES 64	  /* what a worker takes at a time where there are less than a chunk for each */

struct crew {
	struct dump *dump;
	uint64_t end;	       /* pages to copy in all */
	uint64_t chunk;	       /* what a worker takes at a time */
	_Atomic uint64_t next; /* first page of the chunk nobody took yet */
	pthread_t caller;
	atomic_flag failed;
	struct fsnap_error error; /* of the first that failed */
	copy_lost_fn lost;	  /* NULL: what cannot be read is an error */
	pthread_mutex_t losing;
	const bool *done; /* by chunk: copied and summed already; or NULL */
};

/* Memory the process itself may not read (PROT_NONE, execute-only): /proc/PID/mem may. And what it shares. */
static int read_unpinned(const struct process *process, const struct iovec *from, char *to,
			 struct fsnap_error *err)
{
	for (size_t done = 0; done < from->iov_len;) {
		ssize_t n = pread(process->mem, to + done, from->iov_len - done,
				  (off_t)((uintptr_t)from->iov_base + done));
		if (n <= 0)
			return fail(err, n < 0 ? FSNAP_E_SYSTEM : FSNAP_E_TARGET_DIED, n < 0 ? errno : 0,
				    "process %d (%s): reading its memory at %p", process->pid,
				    process->comm, from->iov_base);
		done += (size_t)n;
	}
	return 0;
}

/* Pieces of one process, and where each goes. */
struct gathering {
	const struct copy_job *job; /* whose process it is, and how it is read */
	size_t n, bytes;
	struct iovec from[PIECES], to[PIECES];
};

/* A running process gives memory back while it is read. */
static int lose(struct crew *crew, const struct gathering *pieces, size_t i, struct fsnap_error *err)
{
	if (!crew->lost)
		return -1;
	*err = (struct fsnap_error){ 0 };
	pthread_mutex_lock(&crew->losing);
	int result = crew->lost(crew->dump, pieces->job->process, (uintptr_t)pieces->from[i].iov_base / STORE_PAGE,
				pieces->from[i].iov_len / STORE_PAGE, err);
	pthread_mutex_unlock(&crew->losing);
	return result;
}

static int read_pieces(struct crew *crew, const struct gathering *pieces, struct fsnap_error *err)
{
	const struct process *process = pieces->job->process;
	if (!pieces->job->shared && process_vm_readv(process->live, pieces->to, pieces->n, pieces->from, pieces->n, 0) ==
					    (ssize_t)pieces->bytes)
		return 0;
	for (size_t i = 0; i < pieces->n; i++)
		if (read_unpinned(process, &pieces->from[i], pieces->to[i].iov_base, err) < 0 &&
		    lose(crew, pieces, i, err) < 0)
			return -1;
	return 0;
}

static uint64_t end_of(const void *job)
{
	const struct copy_job *now = job;
	return now->at + now->npages;
}

/* The first job that reaches beyond image page `at`. */
static size_t find_job(const struct dump *dump, uint64_t at)
{
	return ranges_beyond(dump->jobs, dump->n_jobs, sizeof(*dump->jobs), end_of, at);
}

/* Copies image pages [at, end), gathering pieces of one process into one call. Between jobs lie pages
 * that ghost.c filled, or that were copied before. */
static int copy_range(struct crew *crew, uint64_t at, uint64_t end, struct fsnap_error *err)
{
	struct dump *dump = crew->dump;
	for (size_t job = find_job(dump, at); job < dump->n_jobs && dump->jobs[job].at < end;) {
		struct gathering pieces;
		pieces.job = &dump->jobs[job];
		pieces.n = pieces.bytes = 0;
		for (; pieces.n < PIECES && job < dump->n_jobs && dump->jobs[job].at < end; job++) {
			const struct copy_job *now = &dump->jobs[job];
			uint64_t from = now->at > at ? now->at : at;
			uint64_t stop = now->at + now->npages < end ? now->at + now->npages : end;
			size_t bytes = (stop - from) * STORE_PAGE;
			if (now->process != pieces.job->process || now->shared != pieces.job->shared)
				break;
			pieces.from[pieces.n] = (struct iovec){ (void *)((now->page + (from - now->at)) * STORE_PAGE), bytes };
			pieces.to[pieces.n++] = (struct iovec){ image_writer_page(dump->writer, from), bytes };
			pieces.bytes += bytes;
		}
		if (read_pieces(crew, &pieces, err) < 0)
			return -1;
	}
	return 0;
}

/* Of large dumps, while the pages are still in the cache: twice as fast as later. Small ones are better
 * let go first; and the last block, where it is not full, is the writer's business. In a live dump pages are
 * copied again. */
static void checksum(struct crew *crew, uint64_t at, uint64_t end)
{
	if (crew->end >= SUMMED_ABOVE && !crew->dump->live && !crew->dump->snapshot)
		image_writer_checksum(crew->dump->writer, at / STORE_BLOCK_PAGES,
				      (end - at) / STORE_BLOCK_PAGES);
}

/* Callers are told from their own thread, which is one of the crew. */
static void report(const struct crew *crew, uint64_t done)
{
	const struct fsnap_dump_options *options = crew->dump->options;
	if (options->progress && pthread_equal(pthread_self(), crew->caller))
		options->progress(options->progress_arg, "copying", done * STORE_PAGE, crew->end * STORE_PAGE);
}

static void *work(void *argument)
{
	struct crew *crew = argument;
	for (;;) {
		uint64_t at = atomic_fetch_add(&crew->next, crew->chunk);
		if (at >= crew->end)
			return NULL;
		if (crew->done && crew->done[at / CHUNK_PAGES])
			continue;
		uint64_t end = at + crew->chunk < crew->end ? at + crew->chunk : crew->end;
		struct fsnap_error error = { 0 };
		if (copy_range(crew, at, end, &error) < 0) {
			atomic_store(&crew->next, crew->end);
			if (!atomic_flag_test_and_set(&crew->failed))
				crew->error = error;
			return NULL;
		}
		checksum(crew, at, end);
		report(crew, end);
	}
}

unsigned copy_crew_size(void)
{
	cpu_set_t cpus;
	if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
		return 1;
	unsigned n = (unsigned)CPU_COUNT(&cpus);
	return n < WORKERS_MAX ? n : WORKERS_MAX;
}

static int by_place(const void *a, const void *b)
{
	const struct copy_job *x = a, *y = b;
	return x->at < y->at ? -1 : x->at > y->at;
}

int copy_chunk(struct dump *dump, uint64_t at, uint64_t end, struct fsnap_error *err)
{
	struct crew crew = { .dump = dump };
	if (copy_range(&crew, at, end, err) < 0)
		return -1;
	image_writer_checksum(dump->writer, at / STORE_BLOCK_PAGES, (end - at) / STORE_BLOCK_PAGES);
	return 0;
}

static int copy_by_crew(struct crew *crew, unsigned size, struct fsnap_error *err)
{
	pthread_t threads[WORKERS_MAX];
	unsigned started = 0;
	/* A worker that cannot be started only makes it slower. */
	while (started + 1 < size && thread_start(&threads[started], work, crew))
		started++;
	work(crew);
	for (unsigned i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	if (!error_is_set(&crew->error))
		return 0;
	if (err && !error_is_set(err))
		*err = crew->error;
	return -1;
}

int copy_pages(struct dump *dump, copy_lost_fn lost, struct fsnap_error *err)
{
	struct crew crew = { .dump = dump, .end = dump->taken, .chunk = CHUNK_PAGES, .caller = pthread_self(), .failed = ATOMIC_FLAG_INIT,
			     .lost = lost, .losing = PTHREAD_MUTEX_INITIALIZER };
	uint64_t left = 0;
	if (dump->live) /* places that were given before */
		qsort(dump->jobs, dump->n_jobs, sizeof(*dump->jobs), by_place);
	for (size_t i = 0; i < dump->n_jobs; i++)
		left += dump->jobs[i].npages;
	cleanup_free bool *done = calloc(dump->taken / CHUNK_PAGES + 1, sizeof(*done));
	if (!done)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "copying");
	/* From the children of a snapshot, pages are read when their parents run again. */
	if (dump->still && !dump->snapshot && left >= INSIDE_ABOVE) {
		uint64_t pages = 0;
		if (copy_inside(dump, done, &pages, err) < 0)
			return -1;
		crew.done = done;
		left -= pages;
	}
	if (dump->taken < SUMMED_ABOVE)
		crew.chunk = FEW_PAGES;
	return copy_by_crew(&crew, left < ALONE_BELOW ? 1 : copy_crew_size(), err);
}
