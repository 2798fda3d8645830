/*
 * aio.c - contexts of io_setup(2): what waits in their rings. Their rebuilding is restorer/aio.c.
 *
 * Requests under way cannot be kept: nobody tells which they are. They complete by themselves, also
 * while the process stands still, unless they wait for a descriptor to become ready.
 */
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bpf/async.h"
#include "engine/dump.h"
#include "store/scope.h"

#define PATIENCE_MS 100
#define MAGIC 0xa10a10a1u

struct ring { /* struct aio_ring, fs/aio.c: libaio looks into it, too */
	uint32_t id, nr, head, tail, magic, compatible, incompatible, header_length;
};

#define NO_MMAP (1u << 14) /* IORING_SETUP_NO_MMAP, Linux 6.5 */
#define EVENT ((size_t)32) /* sizeof(struct io_event) */

const struct other_kind kind_aio = {
	.name = "aio",
	.keeps = "contexts at their addresses, positions of their rings, events not read yet",
	.refuses = "requests under way, of which those for files are waited for",
	.shown_by = "aio_*",
};

struct async_reader *dump_async(struct dump *dump, struct fsnap_error *err)
{
	if (!dump->async)
		dump->async = async_open(err);
	return dump->async;
}

static const struct async_context *find_context(const struct async_context *contexts, size_t n,
						uint64_t start)
{
	for (size_t i = 0; i < n; i++)
		if (contexts[i].user_id == start)
			return &contexts[i];
	return NULL;
}

static int refuse(const struct process *process, const image_vma *vma, struct fsnap_error *err,
		  const char *what, const char *hint)
{
	fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): asynchronous I/O context %lx: %s",
	     process->pid, process->comm, (unsigned long)vma->start, what);
	return error_hint(err, "%s", hint);
}

static int await_idle(struct dump *dump, const struct process *process, const image_vma *vma,
		      struct fsnap_error *err)
{
	struct async_reader *reader = dump_async(dump, err);
	char what[64] = "";
	if (!reader)
		return error_context(err, "process %d (%s): asynchronous I/O", process->pid,
				     process->comm);
	for (int waited = 0; waited < PATIENCE_MS; waited++) {
		size_t n;
		const struct async_context *contexts =
			async_contexts(reader, process->pid, &n, err);
		if (!contexts)
			return -1;
		const struct async_context *context = find_context(contexts, n, vma->start);
		if (!context)
			return refuse(
				process, vma, err, "it is of another process",
				"let the process unmap what it has inherited of its parent's");
		if (context->in_flight == 0)
			return 0;
		snprintf(what, sizeof(what), "%u requests are under way", context->in_flight);
		usleep(1000);
	}
	return refuse(
		process, vma, err, what,
		"try again when they are done; IOCB_CMD_POLL is when its descriptor is ready");
}

static int read_events(const struct process *process, image_aio *aio)
{
	u_int first = aio->tail >= aio->head ? aio->tail - aio->head : aio->slots - aio->head;
	u_int wrapped = aio->tail >= aio->head ? 0 : aio->tail;
	char *events = malloc((first + wrapped + 1) * EVENT);
	aio->events.events_val = events;
	aio->events.events_len = events ? (first + wrapped) * EVENT : 0;
	uint64_t ring = aio->start + sizeof(struct ring);
	if (!events || pread(process->mem, events, first * EVENT,
			     (off_t)(ring + aio->head * EVENT)) != (ssize_t)(first * EVENT))
		return -1;
	return pread(process->mem, events + first * EVENT, wrapped * EVENT, (off_t)ring) ==
			       (ssize_t)(wrapped * EVENT)
		       ? 0
		       : -1;
}

static int collect_context(struct dump *dump, struct process *process, const image_vma *vma,
			   struct fsnap_error *err)
{
	image_mm *mm = &process->mm;
	struct ring ring;
	if (vma->offset || await_idle(dump, process, vma, err) < 0)
		return vma->offset
			       ? refuse(process, vma, err, "its ring is in pieces", "do not cut it")
			       : -1;
	if (pread(process->mem, &ring, sizeof(ring), (off_t)vma->start) != sizeof(ring) ||
	    ring.magic != MAGIC || ring.nr != (vma->end - vma->start - sizeof(ring)) / EVENT ||
	    ring.tail >= ring.nr)
		return refuse(process, vma, err, "its ring is not as the kernel makes it",
			      "do not write into it");
	image_aio *aios = grow(mm->aios.aios_val, mm->aios.aios_len, sizeof(*aios), err);
	if (!aios)
		return -1;
	mm->aios.aios_val = aios;
	image_aio *aio = &aios[mm->aios.aios_len++];
	/* The program may write the head; the kernel takes it modulo the size. */
	*aio = (image_aio){ .start = vma->start,
			    .size = vma->end - vma->start,
			    .slots = ring.nr,
			    .head = ring.head % ring.nr,
			    .tail = ring.tail };
	if (read_events(process, aio) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "process %d (%s): ring at %lx",
			    process->pid, process->comm, (unsigned long)vma->start);
	return 0;
}

static int link_ring(struct dump *dump, const struct process *process, image_vma *vma,
		     struct fsnap_error *err)
{
	image_file *file;
	const image_file_io_uring *ring;
	for (size_t i = 0; (ring = dump_file_state(dump, "io_uring", i, &file)); i++)
		if (ring->ino == vma->object) {
			vma->object = file->id;
			return 0;
		}
	fail(err, FSNAP_E_UNSUPPORTED, 0,
	     "process %d (%s): mapping %lx of an io_uring of which no process of the "
	     "tree has a descriptor",
	     process->pid, process->comm, (unsigned long)vma->start);
	return error_hint(err, "keep it open: no call leads to a ring without one");
}

/* A ring that belongs to a thread is brought to its position through its mappings there. */
static int check_issuer(const struct process *process, const image_file *file,
			const image_file_io_uring *ring, struct fsnap_error *err)
{
	bool mapped[2] = { false, false };
	bool is_there = false;
	if (ring->flags & (IORING_SETUP_SQPOLL | NO_MMAP)) /* it is brought there by others, or in its own memory */
		return 0;
	for (size_t i = 0; i < process->n_tasks; i++)
		is_there |= process->tasks[i]->tid == ring->submitter;
	if (!is_there || ring->sq_head == 0)
		return 0;
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++) {
		const image_vma *vma = &process->mm.vmas.vmas_val[i];
		uint64_t size = vma->end - vma->start;
		if (vma->kind != VMA_RING || vma->object != file->id || !(vma->prot & PROT_WRITE))
			continue;
		mapped[0] |= vma->offset == IORING_OFF_SQ_RING;
		mapped[1] |= vma->offset == IORING_OFF_SQES && size >= ring->sqes.sqes_len;
	}
	if (mapped[0] && mapped[1])
		return 0;
	fail(err, FSNAP_E_UNSUPPORTED, 0,
	     "process %d (%s): an io_uring of thread %d that it has not mapped", process->pid,
	     process->comm, ring->submitter);
	return error_hint(err,
			  "let it keep the mappings: they are needed to reach the position it had");
}

int rings_link(struct dump *dump, struct fsnap_error *err)
{
	for (size_t i = 0; i < dump->tree.n_processes; i++) {
		const struct process *process = dump->tree.processes[i];
		for (u_int j = 0; j < process->mm.vmas.vmas_len; j++)
			if (process->mm.vmas.vmas_val[j].kind == VMA_RING &&
			    link_ring(dump, process, &process->mm.vmas.vmas_val[j], err) < 0)
				return -1;
		image_file *file;
		const image_file_io_uring *ring;
		for (size_t j = 0; (ring = dump_file_state(dump, "io_uring", j, &file)); j++)
			if (check_issuer(process, file, ring, err) < 0)
				return -1;
	}
	return 0;
}

/* --- rings without a descriptor --------------------------------------------------------- */

#define ENTER_REGISTERED_RING (1u << 4) /* IORING_ENTER_REGISTERED_RING, Linux 5.18 */

/* A call that does nothing with the ring registered first, if there is one; its errors tell who knows of rings at all.
 * Not where a filter might answer it with death: it is suspended for root alone (trace_seize()). */
static bool may_ask_rings(void)
{
	return geteuid() == 0;
}

/* The plans of a process' threads have the first numbers, in their order. */
uint32_t rings_ask(const struct process *process, struct plans *plans)
{
	uint32_t first = 0;
	plan_note(plans, "registered rings");
	for (size_t i = 0; i < process->n_tasks && may_ask_rings(); i++) {
		plan_call(plans, (uint32_t)i, SYS_io_uring_enter, IMM(0), IMM(0), IMM(0), IMM(ENTER_REGISTERED_RING),
			  IMM(0), IMM(0));
		plan_accept_any(plans);
		uint32_t slot = plan_result(plans);
		first = i ? first : slot;
	}
	return first;
}

void rings_answer(struct process *process, const struct plans *plans, struct ctl *ctl, uint32_t first)
{
	process->knows_rings = false;
	for (size_t i = 0; i < process->n_tasks && may_ask_rings(); i++) {
		int64_t result = plans_slot(plans, ctl, first + (uint32_t)i);
		process->knows_rings |= result >= 0 || result == -EBADF || result == -EBADFD;
	}
}

int rings_check(struct dump *dump, const struct process *process, struct fsnap_error *err)
{
	struct async_reader *reader = process->knows_rings ? dump_async(dump, err) : NULL;
	size_t n = 0;
	if (!process->knows_rings)
		return 0;
	const struct async_thread *threads = reader ? async_threads(reader, process->pid, &n, err) : NULL;
	if (!threads)
		return -1;
	for (size_t i = 0; i < n; i++)
		for (unsigned j = 0; j < ASYNC_RINGS; j++) {
			if (!threads[i].rings[j] || uring_is_known(dump, threads[i].rings[j]))
				continue;
			fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): thread %u has an io_uring registered (%u) "
			     "that no descriptor of the tree leads to", process->pid, process->comm, threads[i].tid, j);
			return error_hint(err, "keep a descriptor of it open (without IORING_SETUP_REGISTERED_FD_ONLY): "
					  "no call gives one to anybody else");
		}
	return 0;
}

int aio_collect(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	for (u_int i = 0; i < process->mm.vmas.vmas_len; i++)
		if (process->mm.vmas.vmas_val[i].kind == VMA_AIO &&
		    collect_context(dump, process, &process->mm.vmas.vmas_val[i], err) < 0)
			return -1;
	return 0;
}
