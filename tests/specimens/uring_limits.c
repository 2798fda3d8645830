/*
 * Restrictions of a ring of io_uring (IORING_REGISTER_RESTRICTIONS) after it was enabled, of a polled one, too, and of one
 * that is not enabled yet: what was allowed still is, what was forbidden fails as it did, and flags that a request must
 * have are asked for.
 *
 * harness: threads=1 differs=^task.(?!2\b)|Threads
 */
#include "uring_specimen.h"

#include <fcntl.h>

enum { RINGS = 3, LATER = 2 };

static struct io_uring rings[RINGS];
static int file;
static char buffer[16];

static void begin(unsigned i, unsigned flags)
{
	struct io_uring_params params = { .flags = flags | IORING_SETUP_R_DISABLED, .sq_thread_idle = 20 };
	struct io_uring_restriction limits[] = {
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ },
		{ .opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC },
		{ .opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED, .sqe_flags = IOSQE_FIXED_FILE },
		{ .opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = IOSQE_IO_LINK },
		{ .opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_REGISTER_FILES_UPDATE },
	};
	uring_begin(&rings[i], 8, &params);
	MUST(io_uring_register_files(&rings[i], &file, 1) < 0 ? -1 : 0);
	MUST((int)uring_register(&rings[i], IORING_REGISTER_RESTRICTIONS, limits, 5));
	if (i != LATER)
		MUST((int)uring_register(&rings[i], IORING_REGISTER_ENABLE_RINGS, NULL, 0));
}

static int ask(struct io_uring *ring, int operation, unsigned flags)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe = NULL;
	struct __kernel_timespec patience = { .tv_sec = 5 };
	io_uring_prep_rw(operation, sqe, 0, operation == IORING_OP_READ ? buffer : NULL,
			 operation == IORING_OP_READ ? sizeof(buffer) : 0, 0);
	sqe->flags = (uint8_t)flags;
	io_uring_submit(ring);
	if (!expect_int("a completion", 0, io_uring_wait_cqe_timeout(ring, &cqe, &patience)))
		return -1;
	int result = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return result;
}

static void check(struct io_uring *ring)
{
	memset(buffer, 0, sizeof(buffer));
	expect_int("a read of the registered file", 16, ask(ring, IORING_OP_READ, IOSQE_FIXED_FILE));
	expect_bytes("  what was read", "what the file has", buffer, sizeof(buffer));
	expect_int("without a flag that it must have", -EACCES, ask(ring, IORING_OP_READ, 0));
	expect_int("with one that is not allowed", -EACCES, ask(ring, IORING_OP_READ, IOSQE_FIXED_FILE | IOSQE_ASYNC));
	expect_int("another operation", -EACCES, ask(ring, IORING_OP_NOP, IOSQE_FIXED_FILE));
	expect_int("the other one allowed", 0, ask(ring, IORING_OP_FSYNC, IOSQE_FIXED_FILE));
	expect_errno("registering", EACCES, uring_register(ring, IORING_UNREGISTER_FILES, NULL, 0));
	expect_int("updating the files", 1, io_uring_register_files_update(ring, 0, &file, 1));
}

int main(void)
{
	file = MUST(open(specimen_path("file"), O_RDWR | O_CREAT, 0600));
	MUST(write(file, "what the file has", 17));
	begin(0, 0);
	begin(1, IORING_SETUP_SQPOLL);
	begin(2, 0);
	for (unsigned i = 0; i < 50; i++) {
		check(&rings[0]);
		check(&rings[1]);
	}
	while (specimen_round()) {
		unsigned head = *rings[0].sq.khead, tail = *rings[1].cq.ktail;
		specimen_ready();
		expect_int("position of submissions", head, *rings[0].sq.khead);
		expect_int("position of completions", tail, *rings[1].cq.ktail);
		check(&rings[0]);
		check(&rings[1]);
		if (specimen_number() == 1) {
			expect_errno("a second time", EBUSY,
				     uring_register(&rings[LATER], IORING_REGISTER_RESTRICTIONS,
						    &(struct io_uring_restriction){ .opcode = 0 }, 1));
			MUST((int)uring_register(&rings[LATER], IORING_REGISTER_ENABLE_RINGS, NULL, 0));
		}
		check(&rings[LATER]);
	}
	return specimen_end();
}
