/*
 * Buffers provided to rings of io_uring for requests to choose from: by IORING_OP_PROVIDE_BUFFERS in several pieces, some
 * of them chosen already; rings of them in the program's memory and in the kernel's, the kernel's positions moved on,
 * buffers used bit by bit. What is chosen next is what would have been, and where it was.
 * Three rings have some: a plain one, one of a thread, a polled one.
 *
 * harness: threads=1 differs=^task.(?!2\b)|Threads
 */
#include "uring_specimen.h"

#include <fcntl.h>
#include <sys/mman.h>

enum { RINGS = 3, BUFFERS = 16, SIZE = 64, LEGACY = 7, OWN = 8, KERNELS = 9, BITS = 70 };

static struct io_uring rings[RINGS];
static char memory[RINGS][4][BUFFERS][SIZE];
static struct io_uring_buf_ring *groups[RINGS][3]; /* OWN, KERNELS, BITS */
static int file;
static const unsigned used[RINGS] = { 700, 80, 300 };
static const unsigned flags[RINGS] = { 0, IORING_SETUP_SINGLE_ISSUER, IORING_SETUP_SQPOLL };

static void add(unsigned ring, unsigned group, unsigned number)
{
	struct io_uring_buf_ring *to = groups[ring][group];
	struct io_uring_buf *entry = &to->bufs[to->tail & (BUFFERS - 1)];
	entry->addr = (uintptr_t)memory[ring][group + 1][number % BUFFERS];
	entry->len = SIZE;
	entry->bid = (uint16_t)(number % BUFFERS);
	__atomic_store_n(&to->tail, (uint16_t)(to->tail + 1), __ATOMIC_RELEASE);
}

static void begin_group(unsigned ring, unsigned group, unsigned id, unsigned how)
{
	void *own = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	struct io_uring_buf_reg order = { .ring_addr = how & URING_BUFFERS_OF_KERNEL ? 0 : (uintptr_t)own,
					  .ring_entries = BUFFERS, .bgid = (uint16_t)id, .pad = (uint16_t)how };
	if (uring_register(&rings[ring], URING_REGISTER_PBUF_RING, &order, 1) < 0)
		specimen_skip("this kernel has no such buffers (flags %u)", how);
	if (how & URING_BUFFERS_OF_KERNEL)
		own = mmap(NULL, BUFFERS * 16, PROT_READ | PROT_WRITE, MAP_SHARED, rings[ring].ring_fd,
			   (off_t)(0x80000000ull | (uint64_t)id << 16));
	MUST(own == MAP_FAILED ? -1 : 0);
	groups[ring][group] = own;
}

/* Reads a few bytes into whichever buffer is next; which that was. */
static int choose(unsigned of, unsigned id, unsigned bytes)
{
	struct io_uring *ring = &rings[of];
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe = NULL;
	struct __kernel_timespec patience = { .tv_sec = 5 };
	io_uring_prep_read(sqe, file, NULL, bytes, 0);
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = (uint16_t)id;
	io_uring_submit(ring);
	if (!expect_int("a completion", 0, io_uring_wait_cqe_timeout(ring, &cqe, &patience)))
		return -1;
	int number = cqe->res < 0 ? cqe->res : cqe->res != (int)bytes ? -1000 : (int)(cqe->flags >> 16);
	io_uring_cqe_seen(ring, cqe);
	return number;
}

static void provide(unsigned of, unsigned first, unsigned n)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&rings[of]);
	io_uring_prep_provide_buffers(sqe, memory[of][0][first], SIZE, (int)n, LEGACY, (int)first);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	io_uring_submit(&rings[of]);
}

static uint32_t position(unsigned of, unsigned id)
{
	struct {
		uint32_t id, head, reserved[8];
	} status = { .id = id };
	return uring_register(&rings[of], URING_PBUF_STATUS, &status, 1) < 0 ? ~0u : status.head;
}

static void begin(unsigned i)
{
	struct io_uring_params params = { .flags = flags[i], .sq_thread_idle = 20 };
	uring_begin(&rings[i], 16, &params);
	begin_group(i, 0, OWN, 0);
	begin_group(i, 1, KERNELS, URING_BUFFERS_OF_KERNEL);
	begin_group(i, 2, BITS, URING_BUFFERS_INCREMENTAL);
	for (unsigned turn = 0; turn < used[i]; turn++) {
		add(i, 0, turn);
		add(i, 1, turn);
		expect_int("the program's, set up", turn % BUFFERS, choose(i, OWN, 3));
		expect_int("the kernel's, set up", turn % BUFFERS, choose(i, KERNELS, 3));
	}
}

static void check(unsigned i, unsigned turn)
{
	expect_int("position of the kernel's", turn & 0xffff, position(i, KERNELS));
	expect_int("the legacy one", 6, choose(i, LEGACY, 5));
	expect_bytes("  what is in it", "what ", memory[i][0][6], 5);
	expect_int("the next legacy one", 1, choose(i, LEGACY, 5));
	expect_int("the last legacy one", 12, choose(i, LEGACY, 5));
	expect_int("there is no other", -ENOBUFS, choose(i, LEGACY, 5));
	expect_int("the program's", turn % BUFFERS, choose(i, OWN, 8));
	expect_bytes("  what is in it", "what the", memory[i][1][turn % BUFFERS], 8);
	expect_int("the kernel's", turn % BUFFERS, choose(i, KERNELS, 8));
	expect_bytes("  what is in it", "what the", memory[i][2][turn % BUFFERS], 8);
	expect_int("the kernel's, again", (turn + 1) % BUFFERS, choose(i, KERNELS, 8));
	expect_int("there is no other", -ENOBUFS, choose(i, KERNELS, 1));
	expect_int("bit by bit", 0, choose(i, BITS, 4));
	expect_bytes("  what is in it", "whatwhat", memory[i][3][0], 8);
}

int main(void)
{
	file = MUST(open(specimen_path("file"), O_RDWR | O_CREAT, 0600));
	MUST(write(file, "what the file has and has again, and so on and on, and on and on and on", 70));
	for (unsigned i = 0; i < RINGS; i++)
		begin(i);
	unsigned turns[RINGS] = { used[0], used[1], used[2] };
	while (specimen_round()) {
		for (unsigned i = 0; i < RINGS; i++) {
			memset(memory[i], 0, sizeof(memory[i]));
			provide(i, 5, 2); /* 5, 6 */
			provide(i, 1, 1);
			provide(i, 12, 1);
			expect_int("the first legacy one", 5, choose(i, LEGACY, 1));
			add(i, 0, turns[i]);
			add(i, 1, turns[i]);
			add(i, 1, turns[i] + 1);
			add(i, 2, 0);
			expect_int("a bit", 0, choose(i, BITS, 4));
		}
		specimen_ready();
		for (unsigned i = 0; i < RINGS; i++) {
			check(i, turns[i]);
			expect_int("the rest of it", 0, choose(i, BITS, SIZE - 8));
			turns[i] += 2;
			add(i, 0, turns[i] - 1);
			expect_int("the program's, once more", (turns[i] - 1) % BUFFERS, choose(i, OWN, 3));
		}
	}
	return specimen_end();
}
