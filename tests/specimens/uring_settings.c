/*
 * What is registered with a ring of io_uring besides: tags of files and buffers, told when they go; the range for slots
 * that the kernel chooses; limits of worker threads; credentials, their numbers and the next one; busy polling.
 */
#include "uring_specimen.h"

#include <fcntl.h>
#include <sys/uio.h>

enum { FILES = 8, FIRST = 4, WORKERS = 3 };
enum { REGISTER_ALLOC_RANGE = 25, REGISTER_NAPI = 27, UNREGISTER_NAPI = 28 };

static struct io_uring ring;
static int file;
static char memory[4096] __attribute__((aligned(4096)));

struct napi {
	uint32_t us;
	uint8_t prefer, operation, pad[2];
	uint32_t mode, reserved;
};

static int begin(void)
{
	struct {
		uint32_t first, n;
		uint64_t reserved;
	} range = { FIRST, FILES - FIRST, 0 };
	struct napi napi = { .us = 70, .prefer = 1 };
	unsigned workers[2] = { WORKERS, WORKERS + 1 };
	struct io_uring_params params = { 0 };
	uring_begin(&ring, 8, &params);
	MUST(io_uring_register_iowq_max_workers(&ring, workers) < 0 ? -1 : 0);
	int files[FILES] = { file, -1, file, -1, -1, file, -1, -1 };
	__u64 tags[FILES] = { 100, 0, 102, 0, 0, 105, 0, 0 };
	MUST(io_uring_register_files_tags(&ring, files, tags, FILES) < 0 ? -1 : 0);
	MUST((int)uring_register(&ring, REGISTER_ALLOC_RANGE, &range, 0));
	struct iovec vector = { memory, sizeof(memory) };
	__u64 tag = 200;
	MUST(io_uring_register_buffers_tags(&ring, &vector, &tag, 1) < 0 ? -1 : 0);
	for (int i = 1; i <= 3; i++)
		expect_int("credentials, set up", i, io_uring_register_personality(&ring));
	MUST(io_uring_unregister_personality(&ring, 2) < 0 ? -1 : 0);
	return uring_register(&ring, REGISTER_NAPI, &napi, 1) == 0;
}

static int open_as(int personality, unsigned slot)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	struct io_uring_cqe *cqe = NULL;
	struct __kernel_timespec patience = { .tv_sec = 5 };
	io_uring_prep_openat(sqe, AT_FDCWD, specimen_path("file"), O_RDONLY, 0);
	sqe->file_index = slot;
	sqe->personality = (uint16_t)personality;
	io_uring_submit(&ring);
	if (!expect_int("a completion", 0, io_uring_wait_cqe_timeout(&ring, &cqe, &patience)))
		return -1;
	int result = cqe->res;
	io_uring_cqe_seen(&ring, cqe);
	return result;
}

static void check_napi(bool there)
{
	struct napi napi = { 0 };
	if (!there)
		return;
	expect_ok("busy polling", uring_register(&ring, UNREGISTER_NAPI, &napi, 1));
	expect_int("  for (us)", 70, napi.us);
	expect_int("  preferred", 1, napi.prefer);
	napi = (struct napi){ .us = 70, .prefer = 1 };
	expect_ok("  again", uring_register(&ring, REGISTER_NAPI, &napi, 1));
}

int main(void)
{
	file = MUST(open(specimen_path("file"), O_RDWR | O_CREAT, 0600));
	bool napi = begin();
	int next = 4, none = -1;
	while (specimen_round()) {
		specimen_ready();
		unsigned workers[2] = { 0, 0 };
		expect_int("limits of workers", 0, io_uring_register_iowq_max_workers(&ring, workers));
		expect_int("  bounded", WORKERS, workers[0]);
		expect_int("  unbounded", WORKERS + 1, workers[1]);
		expect_int("credentials 1", FIRST, open_as(1, IORING_FILE_INDEX_ALLOC));
		expect_int("slots from the range", FIRST + 2, open_as(3, IORING_FILE_INDEX_ALLOC));
		expect_int("credentials that went", -EINVAL, open_as(2, 0));
		expect_int("the next credentials", next, io_uring_register_personality(&ring));
		next++;
		check_napi(napi);
		/* Those that were chosen have no tag, so that nobody is told. */
		expect_int("a slot given up", 1, io_uring_register_files_update(&ring, FIRST, &none, 1));
		expect_int("another", 1, io_uring_register_files_update(&ring, FIRST + 2, &none, 1));
		uring_expect_none(&ring);
		unsigned slot = specimen_number() == 1 ? 0 : specimen_number() == 2 ? 2 : 5;
		expect_int("a file with a tag", 1, io_uring_register_files_update(&ring, slot, &none, 1));
		uring_expect(&ring, 100 + slot, 0);
	}
	expect_int("no buffers any more", 0, io_uring_unregister_buffers(&ring));
	uring_expect(&ring, 200, 0);
	return specimen_end();
}
