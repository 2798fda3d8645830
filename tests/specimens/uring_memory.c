/*
 * Rings in memory of the program's own (IORING_SETUP_NO_MMAP): a plain one whose memory takes several pages, one of a
 * thread (SINGLE_ISSUER, DEFER_TASKRUN), one that is polled, all in one mapping. The kernel goes on using that
 * memory: positions, unread completions and prepared submissions are where they were, and what is submitted is taken.
 *
 * harness: threads=1 differs=^task.(?!2\b)|Threads
 */
#include "uring_specimen.h"

#include <sys/mman.h>

enum { RINGS = 3, ENTRIES = 256, PAGE = 4096, ROOM = 16 * PAGE };

static struct io_uring rings[RINGS];

static void use(struct io_uring *ring, unsigned n)
{
	for (uint64_t i = 0; i < n; i++) {
		uring_nop(ring, i);
		io_uring_submit(ring);
		uring_expect(ring, i, 0);
	}
}

int main(void)
{
	static const unsigned flags[RINGS] = { 0, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
					       IORING_SETUP_SQPOLL };
	char *memory = mmap(NULL, 2 * RINGS * ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (unsigned i = 0; i < RINGS; i++) {
		struct io_uring_params params = { .flags = flags[i], .sq_thread_idle = 20 };
		uring_begin_in(&rings[i], ENTRIES >> i, &params, memory + 2 * i * ROOM, memory + (2 * i + 1) * ROOM);
		use(&rings[i], 301 + 17 * i);
	}
	while (specimen_round()) {
		unsigned heads[RINGS], tails[RINGS];
		for (unsigned i = 0; i < RINGS; i++) {
			struct io_uring *ring = &rings[i];
			uint64_t base = 1000 * (i + 1);
			for (unsigned j = 0; j < 5; j++)
				uring_nop(ring, base + j);
			io_uring_submit(ring);
			uring_expect(ring, base, 0);
			while (flags[i] & IORING_SETUP_SQPOLL && !(*(volatile unsigned *)ring->sq.kflags & IORING_SQ_NEED_WAKEUP))
				sleep_ms(1);
			if (!(flags[i] & IORING_SETUP_SQPOLL)) /* prepared, and not told */
				uring_nop(ring, base + 50);
			heads[i] = *ring->sq.khead;
			tails[i] = *ring->cq.ktail;
		}
		specimen_ready();
		for (unsigned i = 0; i < RINGS; i++) {
			struct io_uring *ring = &rings[i];
			uint64_t base = 1000 * (i + 1);
			expect_int("position of submissions", heads[i], *ring->sq.khead);
			expect_int("position of completions", tails[i], *ring->cq.ktail);
			for (unsigned j = 1; j < 5; j++)
				uring_expect(ring, base + j, 0);
			uring_expect_none(ring);
			if (flags[i] & IORING_SETUP_SQPOLL)
				uring_nop(ring, base + 50);
			expect_int("submitted", 1, io_uring_submit(ring));
			uring_expect(ring, base + 50, 0);
			use(ring, 3 + ENTRIES / 2);
		}
	}
	return specimen_end();
}
