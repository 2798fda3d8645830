/*
 * aio.c - contexts of io_setup(2) come back: at their addresses, their rings at the positions they had.
 *
 * io_setup makes the ring where it likes; moving it renames the context (aio_ring_mremap(), fs/aio.c).
 * The kernel's own position in the ring moves only when requests complete: reads of no bytes do, at once.
 */
#include <linux/aio_abi.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "restorer/memory.h"

#define AT_ONCE 64
#define HEADER 32
#define EVENT 32

static const image_aio *find_aio(const image_mm *mm, uint64_t start)
{
	for (u_int i = 0; i < mm->aios.aios_len; i++)
		if (mm->aios.aios_val[i].start == start)
			return &mm->aios.aios_val[i];
	return NULL;
}

/* ioctx_alloc() and aio_setup_ring(): n requests, at least four per processor, take 2 n + 2 events. */
static uint64_t ring_size(uint64_t requests)
{
	uint64_t least = 4 * (uint64_t)sysconf(_SC_NPROCESSORS_CONF);
	uint64_t events = 2 * (requests > least ? requests : least) + 2;
	return (HEADER + events * EVENT + STORE_PAGE - 1) / STORE_PAGE * STORE_PAGE;
}

/* The fewest requests whose ring is so large: they count against fs.aio-max-nr. */
static uint64_t requests_for(uint64_t size)
{
	uint64_t events = (size - STORE_PAGE) / EVENT;
	return events < 4 ? 1 : (events - 3) / 2 + 1;
}

static void make_context(struct plans *plans, uint32_t task, const struct memory_source *source,
			 const image_aio *aio)
{
	uint32_t id = plans_data(plans, NULL, sizeof(uint64_t), 8);
	uint64_t transit = source->parked.start;
	plan_note(plans, "asynchronous I/O context %#lx", (unsigned long)aio->start);
	plan_call(plans, task, SYS_io_setup, IMM(requests_for(aio->size)), DATA(id));
	uint32_t made = plan_load(plans, task, DATA(id));
	/* By way of transit: where the kernel has put it may overlap where it belongs. */
	plan_call(plans, task, SYS_mremap, SLOT(made), IMM(aio->size), IMM(aio->size),
		  IMM(MREMAP_MAYMOVE | MREMAP_FIXED), IMM(transit));
	plan_accept_equal(plans, (int64_t)transit);
	plan_call(plans, task, SYS_mremap, IMM(transit), IMM(aio->size), IMM(aio->size),
		  IMM(MREMAP_MAYMOVE | MREMAP_FIXED), IMM(aio->start));
	plan_accept_equal(plans, (int64_t)aio->start);
}

struct idle {		   /* what is asked for, again and again */
	uint32_t requests; /* struct iocb *[AT_ONCE], all the same */
	uint32_t events;   /* room for what comes of it */
};

static struct idle idle_requests(struct plans *plans, int fd)
{
	struct iocb read = { .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)fd };
	struct idle idle = { plans_data(plans, NULL, AT_ONCE * sizeof(uint64_t), 8),
			     plans_data(plans, NULL, AT_ONCE * EVENT, 8) };
	uint32_t iocb = plans_data(plans, &read, sizeof(read), 8);
	for (uint32_t i = 0; i < AT_ONCE; i++)
		plans_pointer(plans, idle.requests + i * 8, iocb);
	return idle;
}

/* So many requests complete; `read`: and their events are taken out. */
static void advance(struct plans *plans, uint32_t task, const image_aio *aio,
		    const struct idle *idle, uint32_t n, bool read)
{
	while (n) {
		uint32_t now = n < AT_ONCE ? n : AT_ONCE;
		plan_call(plans, task, SYS_io_submit, IMM(aio->start), IMM(now),
			  DATA(idle->requests));
		plan_accept_equal(plans, now);
		if (read) {
			plan_call(plans, task, SYS_io_getevents, IMM(aio->start), IMM(now),
				  IMM(now), DATA(idle->events), IMM(0));
			plan_accept_equal(plans, now);
		}
		n -= now;
	}
}

static void put_events(struct plans *plans, uint32_t task, const image_aio *aio)
{
	uint32_t n = aio->events.events_len / EVENT, first = aio->slots - aio->head;
	uint64_t slots = aio->start + HEADER;
	first = n < first ? n : first;
	if (n == 0)
		return;
	uint32_t events = plans_data(plans, aio->events.events_val, aio->events.events_len, 8);
	plan_copy(plans, task, IMM(slots + aio->head * EVENT), DATA(events), first * EVENT);
	if (n > first)
		plan_copy(plans, task, IMM(slots), DATA(events + first * EVENT),
			  (n - first) * EVENT);
}

int memory_aio(struct plans *plans, uint32_t task, const struct memory_source *source,
	       const image_mm *mm, const image_vma *vma, struct fsnap_error *err)
{
	const image_aio *aio = find_aio(mm, vma->start);
	if (!aio || aio->size != vma->end - vma->start)
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0,
			    "the image lacks the context of mapping %lx",
			    (unsigned long)vma->start);
	if (ring_size(requests_for(aio->size)) != aio->size) {
		fail(err, FSNAP_E_KERNEL_LACKS, 0,
		     "asynchronous I/O context %lx: this machine has more processors "
		     "than its ring has room for",
		     (unsigned long)vma->start);
		return error_hint(
			err, "restore on a machine with as many processors as it was saved on");
	}
	struct idle idle = idle_requests(plans, source->image_fds[0]);
	make_context(plans, task, source, aio);
	advance(plans, task, aio, &idle, aio->head, true);
	advance(plans, task, aio, &idle, aio->events.events_len / EVENT, false);
	put_events(plans, task, aio);
	return 0;
}
