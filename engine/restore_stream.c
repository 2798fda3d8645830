/*
 * restore_stream.c - memory that comes when the tree runs already.
 */
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <time.h>
#include <unistd.h>

#include "engine/heat/apart.h"
#include "engine/laps.h"
#include "engine/restore.h"
#include "engine/youth.h"
#include "engine/sized.h"
#include "restorer/record.h"
#include "store/parallel.h"
#include "store/scope.h"

#define LARGE (256ull << 20) /* bytes of private memory that make `auto` stream */
#define TOUCHED 8	     /* addresses per thread */

/* --- is it worth it? -------------------------------------------------------------------------- */

static uint64_t private_bytes(const struct restore *restore)
{
	uint64_t pages = 0;
	for (size_t i = 0; i < restore->model.n_mms; i++) {
		size_t n;
		const struct page_run *runs = image_runs(restore->image, restore->model.mms[i].id, &n);
		for (size_t j = 0; j < n; j++)
			pages += runs[j].npages;
	}
	return pages * STORE_PAGE;
}

int streaming_decide(struct restore *restore, struct fsnap_error *err)
{
	struct streaming *streaming = &restore->streaming;
	struct fsnap_error why = { 0 };
	int wanted = restore->options->memory;
	if (wanted < FSNAP_MEMORY_AUTO || wanted > FSNAP_MEMORY_STREAM)
		return fail(err, FSNAP_E_USAGE, 0, "%d says nothing about memory", wanted);
	if (restore->options->record_ms && wanted == FSNAP_MEMORY_AUTO)
		wanted = FSNAP_MEMORY_STREAM;
	if (restore->options->from || wanted == FSNAP_MEMORY_EAGER ||
	    (wanted == FSNAP_MEMORY_AUTO && private_bytes(restore) <= LARGE))
		return 0;
	if (restore->options->user_ns)
		fail(&why, FSNAP_E_PERMISSION, 0, "in a user namespace, a userfaultfd cannot follow forks");
	if (error_is_set(&why) || !pager_possible(&why)) {
		if (wanted == FSNAP_MEMORY_STREAM)
			restore_note(restore, "memory is not streamed: %s", why.message);
		return 0;
	}
	streaming->of = calloc(restore->model.n_processes, sizeof(*streaming->of));
	if (!streaming->of)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "streaming memory");
	streaming->on = true;
	return 0;
}

void streaming_free(struct restore *restore)
{
	struct streaming *streaming = &restore->streaming;
	for (size_t i = 0; streaming->of && i < restore->model.n_processes; i++)
		stream_free(&streaming->of[i]);
	free(streaming->of);
	if (streaming->seat > 0)
		close(streaming->seat);
	if (streaming->ready > 0)
		close(streaming->ready);
	if (streaming->progress)
		munmap(streaming->progress, sizeof(*streaming->progress));
}

/* --- plans ---------------------------------------------------------------------------------------- */

/* Where the kernel looks when a thread ends, when it is moved to another CPU; where it stands. */
static size_t touched_by(const image_thread *thread, uint64_t *addresses)
{
	const struct user_regs_struct *regs = (const struct user_regs_struct *)thread->regs.regs_val;
	if (thread->regs.regs_len < sizeof(*regs))
		return 0; /* a leader that has ended */
	const uint64_t all[TOUCHED] = { regs->rsp, regs->rsp - 128, regs->rip, regs->fs_base, regs->gs_base,
					thread->rseq, thread->robust_list, thread->clear_child_tid };
	memcpy(addresses, all, sizeof(all));
	return TOUCHED;
}

/* Who handles faults of its own memory itself has them as they were. */
static bool handles_faults(const struct restore *restore, const image_process *process)
{
	for (u_int i = 0; i < process->fds.fds_len; i++)
		if (strcmp(restore->model.files[process->fds.fds_val[i].file - 1].kind, "userfaultfd") == 0)
			return true;
	return false;
}

/* /dev/null is in the number until the userfaultfd is. */
static int take_seat(struct restore *restore, struct fsnap_error *err)
{
	if (restore->streaming.seat > 0)
		return 0;
	int fd = workshop_bench(restore, open("/dev/null", O_RDWR | O_CLOEXEC), err);
	if (fd < 0)
		return error_is_set(err) ? -1 : fail(err, FSNAP_E_SYSTEM, errno, "/dev/null");
	restore->streaming.seat = fd;
	return 0;
}

int streaming_choose(struct restore *restore, size_t number, const image_mm *mm, struct memory_part *part,
		     struct fsnap_error *err)
{
	const image_process *process = &restore->model.processes[number];
	part->stream = NULL;
	if (!restore->streaming.on || handles_faults(restore, process))
		return 0;
	struct stream *stream = &restore->streaming.of[number];
	u_int n_threads = process->threads.threads_len;
	cleanup_free uint64_t *touched = malloc((n_threads * TOUCHED + 1) * sizeof(*touched));
	size_t n = 0, n_runs = part->n_runs;
	if (!touched)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "streaming memory");
	for (u_int i = 0; i < n_threads; i++)
		n += touched_by(&process->threads.threads_val[i], &touched[n]);
	const struct page_run *runs = part->inherited ? part->runs : image_runs(restore->image, mm->id, &n_runs);
	bool all = restore->options->memory == FSNAP_MEMORY_STREAM;
	if (stream_choose(stream, mm, runs, n_runs, part->inherited, all, touched, n, err) < 0)
		return -1;
	if (!stream->pages)
		return 0;
	part->stream = stream;
	restore->report->stream_bytes += stream->pages * STORE_PAGE;
	if (take_seat(restore, err) < 0)
		return -1;
	part->seat = restore->streaming.seat;
	return 0;
}

int streaming_seat(const struct restore *restore, const image_process *process)
{
	const struct stream *of = restore->streaming.of;
	return of && of[process - restore->model.processes].pages ? restore->streaming.seat : -1;
}

void streaming_leave(struct restore *restore, const image_process *process, uint32_t task)
{
	int seat = streaming_seat(restore, process);
	if (seat < 0)
		return;
	plan_note(restore->plans, "the pager has it now");
	plan_call(restore->plans, task, SYS_close, IMM(seat));
}

/* --- checksums ------------------------------------------------------------------------------------- */

static void mark(const struct image *image, bool *marks, const struct page_run *run, uint64_t page, uint64_t end)
{
	if (page >= end)
		return;
	uint32_t in;
	uint64_t block = image_block_of(image, run->at + page - run->page, &in);
	uint64_t last = image_block_of(image, run->at + end - 1 - run->page, &in);
	for (; block <= last; block++)
		marks[block] = true;
}

/* Blocks of all pages of a space but those that come later. */
static void mark_space(const struct restore *restore, unsigned space, const struct stream *stream, bool *marks)
{
	size_t n, later = 0;
	const struct page_run *runs = image_runs(restore->image, space, &n);
	for (size_t i = 0; i < n; i++) {
		uint64_t at = runs[i].page, end = runs[i].page + runs[i].npages;
		for (; stream && later < stream->n_later && stream->later[later].page < end; later++) {
			const struct page_run *gap = &stream->later[later];
			mark(restore->image, marks, &runs[i], at, gap->page > at ? gap->page : at);
			at = gap->page + gap->npages > at ? gap->page + gap->npages : at;
			if (at > end) /* it goes on in the next */
				break;
		}
		mark(restore->image, marks, &runs[i], at, end);
	}
}

static const struct stream *stream_of_space(const struct restore *restore, unsigned space)
{
	for (size_t i = 0; i < restore->model.n_processes; i++)
		if (!restore->model.processes[i].zombie && restore->model.processes[i].mm == space)
			return &restore->streaming.of[i];
	return NULL;
}

/* Which blocks come before the program runs; NULL with *err: no memory. The caller frees it. */
static bool *blocks_of_now(const struct restore *restore, struct fsnap_error *err)
{
	uint64_t n = image_blocks(restore->image);
	bool *marks = calloc(n + 1, sizeof(*marks));
	if (!marks)
		fail(err, FSNAP_E_NOMEM, ENOMEM, "checksums");
	else if (!restore->report->stream_bytes)
		memset(marks, true, n);
	for (unsigned space = 0; marks && restore->report->stream_bytes && space <= restore->model.max_space; space++)
		mark_space(restore, space, stream_of_space(restore, space), marks);
	return marks;
}

int streaming_verify(const struct restore *restore, struct fsnap_error *err)
{
	uint64_t n = image_blocks(restore->image);
	if (restore->options->from) /* it was, then */
		return 0;
	if (!restore->report->stream_bytes)
		return image_verify_blocks(restore->image, 0, n, err);
	cleanup_free bool *marks = blocks_of_now(restore, err);
	for (uint64_t block = 0; marks && block < n; block++)
		if (marks[block] && image_verify_blocks(restore->image, block, 1, err) < 0)
			return -1;
	return marks ? 0 : -1;
}

/* --- what is compressed or encrypted ---------------------------------------------------------------- */

struct decoding {
	const struct image *image;
	const bool *marks;
	pthread_mutex_t lock; /* of *err */
	struct fsnap_error *err;
	atomic_bool failed;
};

static void decode_some(void *arg, uint64_t first, uint64_t n)
{
	struct decoding *decoding = arg;
	for (uint64_t block = first; block < first + n && !decoding->failed; block++) {
		struct fsnap_error err = { 0 };
		if (!decoding->marks[block] || image_prepare(decoding->image, block, 1, &err) == 0)
			continue;
		pthread_mutex_lock(&decoding->lock);
		decoding->failed = true;
		if (decoding->err && !error_is_set(decoding->err))
			*decoding->err = err;
		pthread_mutex_unlock(&decoding->lock);
	}
}

int streaming_decode(const struct restore *restore, struct fsnap_error *err)
{
	if (!image_is_coded(restore->image) || restore->explaining || restore->options->from)
		return 0;
	cleanup_free bool *marks = blocks_of_now(restore, err);
	struct decoding decoding = { .image = restore->image, .marks = marks, .lock = PTHREAD_MUTEX_INITIALIZER,
				     .err = err };
	if (!marks)
		return -1;
	parallel_for(image_blocks(restore->image), 4, decode_some, &decoding);
	return decoding.failed ? -1 : 0;
}

/* --- handing over --------------------------------------------------------------------------------------- */

/* Takes the userfaultfd of a process, if it has one: all of the tree is named, so that it can be ended. */
static int take(struct restore *restore, const struct process *process, struct pager_space *space,
		struct fsnap_error *err)
{
	size_t number = (size_t)(process->becomes - restore->model.processes);
	const struct stream *stream = &restore->streaming.of[number];
	*space = (struct pager_space){ .uffd = -1, .pidfd = (int)syscall(SYS_pidfd_open, process->live, 0),
				       .pid = process->live, .runs = stream->later, .n = stream->n_later,
				       .huge = stream->huge, .n_huge = stream->n_huge };
	if (space->pidfd >= 0 && stream->pages)
		space->uffd = (int)syscall(SYS_pidfd_getfd, space->pidfd, restore->streaming.seat, 0);
	if (space->pidfd < 0 || (stream->pages && space->uffd < 0))
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "process %d: its userfaultfd", process->live);
	return 0;
}

/* Where a message about the tree's end can be seen without a pipe of the caller being held open for it. */
static int where_to_tell(const struct restore *restore)
{
	return !restore->options->detach || isatty(STDERR_FILENO) ? STDERR_FILENO : -1;
}

static int start_pager(struct restore *restore, struct pager_order *order, struct fsnap_error *err)
{
	int ready[2];
	cleanup_free int *fds = malloc((2 * order->n + image_files(restore->image) + 2) * sizeof(*fds));
	if (!fds || pipe2(ready, O_CLOEXEC) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "streaming memory");
	size_t n = 0;
	for (size_t i = 0; i < order->n; i++) {
		if (order->spaces[i].uffd >= 0)
			fds[n++] = order->spaces[i].uffd;
		fds[n++] = order->spaces[i].pidfd;
	}
	for (unsigned i = 0; i < image_files(restore->image); i++)
		fds[n++] = image_descriptor(restore->image, i);
	fds[n++] = order->ready = ready[1];
	if (order->tell >= 0)
		fds[n++] = order->tell;
	int result = apart_run(pager_run, order, fds, n, NULL, "brings memory", err);
	close(ready[1]);
	restore->streaming.ready = ready[0];
	return result;
}

int streaming_hand_over(struct restore *restore, struct fsnap_error *err)
{
	const struct tree *tree = &restore->tracees;
	if (!restore->report->stream_bytes)
		return 0;
	cleanup_free struct pager_space *spaces = calloc(tree->n_processes, sizeof(*spaces));
	void *progress = mmap(NULL, sizeof(struct pager_progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			      -1, 0);
	if (!spaces || progress == MAP_FAILED)
		return fail(err, FSNAP_E_NOMEM, errno, "streaming memory");
	restore->streaming.progress = progress;
	char who[96];
	const image_process *root = &restore->model.processes[0];
	snprintf(who, sizeof(who), "process %d (%s)", restore_number(restore, root->pid),
		 root->threads.threads_val[0].comm);
	struct pager_order order = { .image = restore->image, .spaces = spaces, .progress = progress, .who = who,
				     .tell = where_to_tell(restore), .began_ns = restore->began_ns,
				     .record_ns = restore->options->record_ms * 1000000ull };
	char path[4096] = "";
	if (record_path(restore->image, path, sizeof(path)) < 0)
		order.record_ns = 0;
	order.record_path = path;
	if (image_is_coded(restore->image) && !(order.decoder = image_decoder_new(err)))
		return -1;
	cleanup_free struct record_entry *played = order.record_ns ? NULL :
						   record_read(restore->image, path, &order.n_played);
	restore->report->record_bytes = order.n_played * STORE_PAGE;
	if (!played && !order.record_ns) {
		played = youth_read(restore->image, &order.n_played);
		restore->report->young_bytes = order.n_played * STORE_PAGE;
	}
	order.played = played;
	int result = 0;
	for (size_t i = 0; i < tree->n_processes && result == 0; i++)
		result = take(restore, tree->processes[i], &spaces[order.n++], err);
	if (result == 0)
		result = start_pager(restore, &order, err);
	image_decoder_free(order.decoder); /* the pager has its own copy of the memory */
	/* From here on they are the pager's alone. */
	for (size_t i = 0; i < order.n; i++) {
		scope_close(&spaces[i].uffd);
		scope_close(&spaces[i].pidfd);
	}
	return result;
}

int streaming_begin(struct restore *restore, struct fsnap_error *err)
{
	struct streaming *streaming = &restore->streaming;
	char byte;
	ssize_t got;
	if (!streaming->progress)
		return 0;
	while ((got = read(streaming->ready, &byte, 1)) < 0 && errno == EINTR)
		;
	if (got != 1)
		return fail(err, FSNAP_E_SYSTEM, 0, "the process that is to bring memory did not start");
	__atomic_store_n(&streaming->progress->released, 1, __ATOMIC_RELEASE);
	return 0;
}

void streaming_report(struct restore *restore)
{
	restore->report->resident_us = restore->streaming.progress ? 0 : restore->report->first_instruction_us;
	restore->report->streaming = (struct fsnap_streaming *)restore->streaming.progress;
	restore->streaming.progress = NULL;
}

/* --- for the caller ------------------------------------------------------------------------------------- */

static bool has_died(pid_t pid)
{
	return pid && kill(pid, 0) < 0 && errno == ESRCH;
}

int fsnap_streaming_wait(struct fsnap_streaming *streaming, struct fsnap_streaming_stats *stats,
			 struct fsnap_error *err)
{
	struct pager_progress *progress = (struct pager_progress *)streaming;
	const struct timespec patience = { .tv_nsec = 100000000 };
	unsigned lost = 0;
	/* Its guardian needs a moment to say that the pager is dead. */
	while (!__atomic_load_n(&progress->done, __ATOMIC_ACQUIRE) && lost < 50) {
		syscall(SYS_futex, &progress->done, FUTEX_WAIT, 0, &patience, NULL, 0);
		lost = has_died(progress->pager) ? lost + 1 : 0;
	}
	struct fsnap_streaming_stats own = {
		.resident_us = progress->resident_us, .bytes = progress->pages * STORE_PAGE,
		.streamed_bytes = progress->streamed * STORE_PAGE, .zeroed_bytes = progress->zeroed * STORE_PAGE,
		.forgotten_bytes = progress->forgotten * STORE_PAGE, .faults = progress->faults,
	};
	sized_tell(stats, &own, sizeof(own));
	if (!progress->failed && progress->done)
		return 0;
	return fail(err, FSNAP_E_RESTORE_STEP, 0, "%.*s", (int)strcspn(progress->message, "\n"), progress->message);
}

void fsnap_streaming_free(struct fsnap_streaming *streaming)
{
	if (streaming)
		munmap(streaming, sizeof(struct pager_progress));
}
