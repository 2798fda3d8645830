/*
 * Rings that a thread of the kernel's polls (IORING_SETUP_SQPOLL): it is there again, with the credentials, the idle time
 * and the CPU it had; two rings that have one thread in common have one again. What was prepared while nobody looked is
 * taken afterwards, unread completions are there in order, positions are as they were; one ring belongs to one thread.
 *
 * harness: threads=1 differs=^task.(?!2\b)|Threads|eventfd
 */
#include "uring_specimen.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

enum { ENTRIES = 64, IDLE_MS = 300, SOON_MS = 20 };

struct poller {
	int number; /* of thread */
	int uid;
	char cpus[64];
};

static void read_status(int tid, struct poller *poller)
{
	char path[64], line[256];
	snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
	FILE *file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		sscanf(line, "Uid: %d", &poller->uid);
		sscanf(line, "Cpus_allowed_list: %63s", poller->cpus);
	}
	if (file)
		fclose(file);
}

/* Which thread polls, fdinfo says. */
static struct poller find_poller(const struct io_uring *ring)
{
	struct poller poller = { -1, -1, "" };
	char path[64], line[256];
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", ring->ring_fd);
	FILE *file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "SqThread: %d", &poller.number);
	if (file)
		fclose(file);
	if (poller.number > 0)
		read_status(poller.number, &poller);
	return poller;
}

static int count_pollers(void)
{
	int n = 0;
	DIR *dir = opendir("/proc/self/task");
	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		char path[300], name[64] = "";
		snprintf(path, sizeof(path), "/proc/self/task/%s/comm", entry->d_name);
		FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "re");
		if (file && fgets(name, sizeof(name), file))
			n += strncmp(name, "iou-sqp-", 8) == 0;
		if (file)
			fclose(file);
	}
	closedir(dir);
	return n;
}

static bool sleeps(struct io_uring *ring)
{
	return __atomic_load_n(ring->sq.kflags, __ATOMIC_ACQUIRE) & IORING_SQ_NEED_WAKEUP;
}

static long long until_asleep_ms(struct io_uring *ring)
{
	long long began = now_ms();
	while (!sleeps(ring) && now_ms() - began < 5000)
		sleep_ms(1);
	return now_ms() - began;
}

static void use(struct io_uring *ring, unsigned n)
{
	for (uint64_t i = 0; i < n; i++) {
		uring_nop(ring, i);
		io_uring_submit(ring);
		uring_expect(ring, i, 0);
	}
}

/* Prepared: the tail says so, nobody is told. */
static void prepare(struct io_uring *ring, uint64_t base)
{
	for (uint64_t i = 0; i < 3; i++)
		uring_nop(ring, base + i);
	io_uring_submit(ring);
	uring_expect(ring, base, 0); /* it is awake by now */
	until_asleep_ms(ring);
	for (uint64_t i = 3; i < 5; i++)
		uring_nop(ring, base + i);
	__atomic_store_n(ring->sq.ktail, *ring->sq.ktail + 2, __ATOMIC_RELEASE);
	ring->sq.sqe_head = ring->sq.sqe_tail;
}

static void find(struct io_uring *ring, uint64_t base)
{
	for (uint64_t i = 1; i < 3; i++)
		uring_expect(ring, base + i, 0);
	syscall(__NR_io_uring_enter, ring->ring_fd, 0, 0, IORING_ENTER_SQ_WAKEUP, NULL, 0);
	for (uint64_t i = 3; i < 5; i++)
		uring_expect(ring, base + i, 0);
	uring_expect_none(ring);
}

static void check_poller(const char *what, struct io_uring *ring, const struct poller *before)
{
	struct poller now = find_poller(ring);
	expect_between(what, 1, 1 << 30, now.number);
	expect_int("  its user", before->uid, now.uid);
	expect_bytes("  its CPUs", before->cpus, now.cpus, sizeof(now.cpus));
}

int main(void)
{
	struct io_uring_params long_idle = { .flags = IORING_SETUP_SQPOLL, .sq_thread_idle = IDLE_MS },
			       bound = { .flags = IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF | IORING_SETUP_SINGLE_ISSUER,
					 .sq_thread_idle = SOON_MS, .sq_thread_cpu = 0 },
			       shared = { .flags = IORING_SETUP_SQPOLL | IORING_SETUP_ATTACH_WQ, .sq_thread_idle = SOON_MS };
	struct io_uring first, second, third;
	uring_begin(&first, ENTRIES, &long_idle);
	shared.wq_fd = (unsigned)first.ring_fd;
	uring_begin(&second, 2 * ENTRIES, &shared);
	uring_begin(&third, ENTRIES, &bound);
	int file = MUST(open(specimen_path("file"), O_RDWR | O_CREAT, 0600)), event = MUST(eventfd(0, EFD_NONBLOCK));
	MUST(write(file, "what the file has", 17));
	MUST(io_uring_register_files(&first, &file, 1) < 0 ? -1 : 0);
	MUST(io_uring_register_eventfd(&first, event) < 0 ? -1 : 0);
	use(&first, 103);
	use(&second, 31);
	use(&third, 47);
	struct poller one = find_poller(&first), three = find_poller(&third);
	while (specimen_round()) {
		uint64_t told;
		prepare(&second, 700);
		prepare(&third, 800);
		prepare(&first, 600);
		(void)!read(event, &told, sizeof(told));
		unsigned head = *first.sq.khead, tail = *first.cq.ktail;
		specimen_ready();
		expect_int("polling threads", 2, count_pollers());
		check_poller("the first", &first, &one);
		check_poller("the third", &third, &three);
		expect_int("the second is polled by the first's", find_poller(&first).number,
			   find_poller(&second).number);
		expect_between("position of submissions", head, head + 2, *first.sq.khead);
		expect_between("position of completions", tail, tail + 2, *first.cq.ktail);
		find(&first, 600);
		find(&second, 700);
		find(&third, 800);
		struct pollfd telling = { .fd = event, .events = POLLIN };
		poll(&telling, 1, 5000); /* completions are there before it is told */
		expect_int("the eventfd was told", sizeof(told), read(event, &told, sizeof(told)));
		expect_between("how often", 1, 2, (long long)told);
		use(&first, 1);
		expect_between("it falls asleep after (ms)", IDLE_MS / 3, IDLE_MS + 1500, until_asleep_ms(&first));
		char buffer[17];
		struct io_uring_sqe *sqe = io_uring_get_sqe(&first);
		io_uring_prep_read(sqe, 0, buffer, sizeof(buffer), 0);
		sqe->flags |= IOSQE_FIXED_FILE;
		io_uring_sqe_set_data64(sqe, 9);
		io_uring_submit(&first);
		uring_expect(&first, 9, sizeof(buffer));
		expect_bytes("the registered file", "what the file has", buffer, sizeof(buffer));
	}
	return specimen_end();
}
