/*
 * Buffers registered with a ring of io_uring are still the memory of the program: what is read into one is
 * seen there, an empty slot is empty; a ring with large entries; the ring's descriptor registered
 * with two threads, each at its own place.
 */
#include "uring_specimen.h"

#include <fcntl.h>
#include <sys/uio.h>

enum { ENTRIES = 4, SIZE = 8192 };

static struct io_uring ring;
static char first[SIZE] __attribute__((aligned(4096))), third[SIZE] __attribute__((aligned(4096)));
static int file;

static void read_fixed(char *at, unsigned index, uint64_t data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	io_uring_prep_read_fixed(sqe, file, at, 1000, 0, (int)index);
	io_uring_sqe_set_data64(sqe, data);
	expect_int("submitted", 1, io_uring_submit(&ring));
}

/* The place among this thread's registered descriptors leads to the ring. */
static long enter_registered(unsigned index)
{
	return syscall(__NR_io_uring_enter, index, 0, 0, IORING_ENTER_GETEVENTS | (1u << 4), NULL,
		       0);
}

static pthread_barrier_t meet;

static void *with_its_own(void *unused)
{
	struct io_uring_rsrc_update update = { .offset = 5, .data = (unsigned)ring.ring_fd };
	MUST(syscall(__NR_io_uring_register, ring.ring_fd, 20 /* REGISTER_RING_FDS */, &update,
		     1) == 1
		     ? 0
		     : -1);
	pthread_barrier_wait(&meet);
	pthread_barrier_wait(&meet); /* restored meanwhile */
	expect_ok("the thread's registered descriptor", enter_registered(5));
	expect_errno("another place of the thread's", EBADF, enter_registered(2));
	return unused;
}

int main(void)
{
	struct io_uring_params params = { .flags = IORING_SETUP_SQE128 | IORING_SETUP_CQE32 |
						   IORING_SETUP_CQSIZE,
					  .cq_entries = 32 };
	uring_begin(&ring, ENTRIES, &params);
	file = MUST(open(specimen_path("file"), O_RDWR | O_CREAT, 0600));
	struct iovec vectors[3] = { { first, SIZE }, { NULL, 0 }, { third, SIZE } };
	__u64 tags[3] = { 0, 0, 0 };
	MUST(io_uring_register_buffers_tags(&ring, vectors, tags, 3) < 0 ? -1 : 0);
	struct io_uring_rsrc_update update = { .offset = 2, .data = (unsigned)ring.ring_fd };
	MUST(syscall(__NR_io_uring_register, ring.ring_fd, 20, &update, 1) == 1 ? 0 : -1);
	MUST_ZERO(pthread_barrier_init(&meet, NULL, 2));
	char text[1000];
	pattern_fill(text, sizeof(text), 5);
	MUST(pwrite(file, text, sizeof(text), 0));
	while (specimen_round()) {
		pthread_t thread;
		MUST_ZERO(pthread_create(&thread, NULL, with_its_own, NULL));
		pthread_barrier_wait(&meet);
		memset(first, 0, SIZE);
		memset(third, 0, SIZE);
		specimen_ready();
		read_fixed(first + 100, 0, 1);
		uring_expect(&ring, 1, 1000);
		expect_pattern("first buffer", first + 100, 1000, 5);
		read_fixed(third, 2, 2);
		uring_expect(&ring, 2, 1000);
		expect_pattern("third buffer", third, 1000, 5);
		read_fixed(first, 1, 3);
		uring_expect(&ring, 3, -EFAULT);
		expect_ok("the registered descriptor", enter_registered(2));
		pthread_barrier_wait(&meet);
		MUST_ZERO(pthread_join(thread, NULL));
	}
	return specimen_end();
}
