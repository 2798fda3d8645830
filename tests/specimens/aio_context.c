/*
 * Contexts of io_setup(2): known by the same addresses afterwards; events that were complete and
 * not read are there, in order, also where the ring has wrapped around, and where the program itself has taken
 * some out of it; a thread that waited for events goes on waiting; new requests complete.
 */
#include "specimen.h"

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <sys/syscall.h>

enum { BLOCK = 512, BLOCKS = 64 };

struct ring { /* as libaio looks at it */
	unsigned id, nr, head, tail, magic, compatible, incompatible, header_length;
	struct io_event events[];
};

static int file;
static char blocks[BLOCKS][BLOCK];

static void submit(aio_context_t context, uint64_t first, int n)
{
	for (int i = 0; i < n; i++) {
		struct iocb iocb = { .aio_data = first + (uint64_t)i,
				     .aio_lio_opcode = IOCB_CMD_PREAD,
				     .aio_fildes = (uint32_t)file,
				     .aio_buf = (uintptr_t)blocks[i % BLOCKS],
				     .aio_nbytes = BLOCK - (first + (uint64_t)i) % 100 };
		struct iocb *list = &iocb;
		expect_int("io_submit", 1, syscall(SYS_io_submit, context, 1, &list));
	}
	/* They read what is in the page cache: they are complete. */
}

static void expect_events(aio_context_t context, uint64_t first, int n)
{
	for (int i = 0; i < n; i++) {
		struct io_event event = { 0 };
		struct timespec none = { 0, 0 };
		if (!expect_int("an event", 1,
				syscall(SYS_io_getevents, context, 0, 1, &event, &none)))
			return;
		expect_int("whose", (long long)first + i, (long long)event.data);
		expect_int("what came of it", BLOCK - ((long long)first + i) % 100, event.res);
	}
}

static void expect_none(aio_context_t context)
{
	struct io_event event;
	struct timespec none = { 0, 0 };
	expect_int("no more events", 0, syscall(SYS_io_getevents, context, 0, 1, &event, &none));
}

static void *wait_for_event(void *context)
{
	struct io_event event = { 0 };
	expect_int("the waiter's event", 1,
		   syscall(SYS_io_getevents, *(aio_context_t *)context, 1, 1, &event, NULL));
	expect_int("which", 7000, (long long)event.data);
	return NULL;
}

int main(void)
{
	file = MUST(open(specimen_path("blocks"), O_RDWR | O_CREAT, 0600));
	MUST(ftruncate(file, BLOCK * BLOCKS));
	aio_context_t small = 0, large = 0, awaited = 0;
	MUST(syscall(SYS_io_setup, 8, &small));
	MUST(syscall(SYS_io_setup, 1000, &large));
	MUST(syscall(SYS_io_setup, 1, &awaited));
	struct ring *ring = (struct ring *)large;
	submit(small, 1, 30);
	expect_events(small, 1, 30);
	/* Near the end of the ring, so that what waits wraps around. */
	for (unsigned done = 0; ring->tail < ring->nr - 5; done++) {
		submit(large, done, 1);
		expect_events(large, done, 1);
	}
	while (specimen_round()) {
		uint64_t base = 1000 * (uint64_t)specimen_number();
		submit(small, base, 10);
		expect_events(small, base, 4);
		submit(large, base, 20);
		ring->head = (ring->head + 3) % ring->nr; /* as libaio does it */
		unsigned head = ring->head, tail = ring->tail;
		pthread_t waiter = start_blocked(wait_for_event, &awaited);
		specimen_ready();
		expect_hex("mark of the ring", 0xa10a10a1, ring->magic);
		expect_int("position of the reader", head, ring->head);
		expect_int("position of the writer", tail, ring->tail);
		expect_int("next to be taken", (long long)base + 3,
			   (long long)ring->events[head].data);
		expect_events(large, base + 3, 17);
		expect_none(large);
		expect_events(small, base + 4, 6);
		expect_none(small);
		submit(large, base + 50, 10);
		expect_events(large, base + 50, 10);
		submit(awaited, 7000, 1);
		MUST_ZERO(pthread_join(waiter, NULL));
		/* No slot was lost. Half of them may wait for another CPU (fs/aio.c, ioctx_alloc()). */
		submit(small, base, 60);
		expect_events(small, base, 60);
	}
	expect_ok("io_destroy", syscall(SYS_io_destroy, small));
	expect_ok("io_destroy", syscall(SYS_io_destroy, large));
	return specimen_end();
}
