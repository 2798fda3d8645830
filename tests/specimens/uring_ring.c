/*
 * A ring of io_uring that is idle: completions not read are there in order, submissions that were
 * prepared but not taken are taken afterwards, positions go on where they were (liburing keeps copies
 * of them), files that were registered (one of them closed since, one slot empty), the eventfd that is told.
 * Threads that the kernel had made for it are no threads of the program. Where a restore would lay memory of its own
 * otherwise (restorer/memory.c, HOLE_FROM), the program has some, which ends where no huge page begins.
 *
 * harness: threads=1 differs=^task.(?!2\b)|Threads
 */
#include "uring_specimen.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

enum { ENTRIES = 8 };

static char buffer[64];

static void read_at(struct io_uring *ring, int file, bool fixed, uint64_t data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	io_uring_prep_read(sqe, file, buffer, 16, 0);
	sqe->flags |= (fixed ? IOSQE_FIXED_FILE : 0) | IOSQE_ASYNC;
	io_uring_sqe_set_data64(sqe, data);
}

int main(void)
{
	struct io_uring_params params = { 0 };
	struct io_uring ring;
	uring_begin(&ring, ENTRIES, &params);
	char *low = mmap((void *)0x200000000, 0x1f8000, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	MUST(low == MAP_FAILED ? -1 : 0);
	int one = MUST(open(specimen_path("one"), O_RDWR | O_CREAT, 0600));
	int two = MUST(open(specimen_path("two"), O_RDWR | O_CREAT, 0600));
	MUST(write(one, "this is file one", 16));
	MUST(write(two, "this is file two", 16));
	int event = MUST(eventfd(0, EFD_NONBLOCK));
	int files[4] = { one, -1, two, one };
	MUST(io_uring_register_files(&ring, files, 4) < 0 ? -1 : 0);
	MUST(io_uring_register_eventfd(&ring, event) < 0 ? -1 : 0);
	for (uint64_t i = 0; i < 1003; i++) {
		uring_nop(&ring, i);
		expect_int("submitted", 1, io_uring_submit(&ring));
		uring_expect(&ring, i, 0);
	}
	/* By a worker thread, which stays for a while. */
	read_at(&ring, one, false, 5);
	expect_int("submitted", 1, io_uring_submit(&ring));
	uring_expect(&ring, 5, 16);

	while (specimen_round()) {
		uint64_t base = 10000 * (uint64_t)specimen_number(), told;
		for (uint64_t i = 0; i < 6; i++)
			uring_nop(&ring, base + i);
		expect_int("submitted", 6, io_uring_submit(&ring));
		uring_expect(&ring, base, 0);
		/* Prepared, and told to the kernel by the tail alone. */
		uring_nop(&ring, base + 100);
		uring_nop(&ring, base + 101);
		io_uring_smp_store_release(ring.sq.ktail, *ring.sq.ktail);
		unsigned sq_head = *ring.sq.khead, cq_tail = *ring.cq.ktail;
		(void)!read(event, &told, sizeof(told));
		specimen_ready();
		expect_int("position of submissions", sq_head, *ring.sq.khead);
		expect_int("position of completions", cq_tail, *ring.cq.ktail);
		for (uint64_t i = 1; i < 6; i++)
			uring_expect(&ring, base + i, 0);
		uring_expect_none(&ring);
		expect_int("what was prepared", 2, io_uring_submit(&ring));
		uring_expect(&ring, base + 100, 0);
		uring_expect(&ring, base + 101, 0);
		expect_int("the eventfd was told", sizeof(told), read(event, &told, sizeof(told)));
		expect_between("how often", 1, 2, (long long)told);

		read_at(&ring, 2, true, 7);
		expect_int("submitted", 1, io_uring_submit(&ring));
		uring_expect(&ring, 7, 16);
		expect_bytes("the third registered file", "this is file two", buffer, 16);
		read_at(&ring, 3, true, 8);
		expect_int("submitted", 1, io_uring_submit(&ring));
		uring_expect(&ring, 8, 16);
		expect_bytes("the fourth registered file", "this is file one", buffer, 16);
		read_at(&ring, 1, true, 9);
		expect_int("submitted", 1, io_uring_submit(&ring));
		uring_expect(&ring, 9, -EBADF);
	}
	io_uring_queue_exit(&ring);
	return specimen_end();
}
