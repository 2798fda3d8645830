#include "restorer/warm.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define CHUNK (256u << 10) /* bytes read at a time */
#define SLOTS 8u	   /* at most on their way at once: enough for one disk or network connection */
#define HUGE (2u << 20)	   /* bytes that become one folio of the page cache */
#define HUGE_SLOTS 2u	   /* ... on their way at once */
#define LOOK_US 20000	   /* between two looks at what the tree does */
#define QUIET_US 300000	   /* so long without a byte from the disk, and the tree reads no more: the disk may be slow */
#define FAIR_SHARE 12	   /* less than a tenth, for what is on its way before the first look */
#define SCARCE_SHARE 10	   /* of all memory, available */
#define MIB (1ull << 20)

struct slot {
	char *buffer; /* of HUGE bytes: where it cannot be mapped */
	uint64_t bytes; /* being read; 0: free */
	void *map;	/* what a huge one is read through, NULL */
};

struct warm {
	const struct warm_order *order;
	struct warm_progress *progress;
	struct io_uring ring;
	char *buffers;
	struct slot slots[SLOTS];
	unsigned busy, huge; /* slots in use; those of them with a huge one */
	size_t stretch; /* next to be read, and from where in it */
	uint64_t at;
	uint64_t began_us, looked_us;

	/* What the tree does. */
	uint64_t tree_read;	/* bytes it had from the disk when we looked last */
	uint64_t tree_before;	/* ... and when we first saw it */
	uint64_t tree_since_us; /* when that was; 0: not yet */
	uint64_t tree_read_us;	/* when it last had some */
	bool tree_reads;
	double expected, seen;	/* pages of ours that it would have read, were all it reads on our list; that it has */
	uint64_t allowed_us;	/* nothing more is begun before */
};

static uint64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* --- small files of /proc -------------------------------------------------------- */

/* The number behind `key` in a file, -1 where there is none. */
static int64_t number_in(const char *path, const char *key)
{
	char text[2048];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (fd >= 0)
		close(fd);
	if (length < 0)
		return -1;
	text[length] = '\0';
	const char *at = strstr(text, key);
	if (!at)
		return -1;
	at += strlen(key);
	while (*at == ' ')
		at++;
	int64_t number = 0;
	for (; *at >= '0' && *at <= '9'; at++)
		number = 10 * number + *at - '0';
	return number;
}

static void io_path(char *path, pid_t pid)
{
	char digits[12];
	int n = 0;
	for (unsigned left = (unsigned)pid; left || n == 0; left /= 10)
		digits[n++] = (char)('0' + left % 10);
	path = stpcpy(path, "/proc/");
	while (n)
		*path++ = digits[--n];
	stpcpy(path, "/io");
}

/* Bytes the tree has had from the disk; -1: it has ended, or may not be asked. */
static int64_t tree_bytes(const struct warm_order *order)
{
	int64_t sum = -1;
	for (size_t i = 0; i < order->n_tree; i++) {
		char path[32];
		io_path(path, order->tree[i]);
		int64_t bytes = number_in(path, "\nread_bytes:");
		if (bytes >= 0)
			sum = (sum < 0 ? 0 : sum) + bytes;
	}
	return sum;
}

static bool memory_scarce(void)
{
	int64_t total = number_in("/proc/meminfo", "MemTotal:");
	int64_t available = number_in("/proc/meminfo", "MemAvailable:");
	return available >= 0 && available < total / SCARCE_SHARE;
}

/* --- what is there already ------------------------------------------------------------ */

/* cachestat(2), Linux 6.5: pages of a range that are in the page cache. */
static uint64_t pages_present(int fd, uint64_t offset, uint64_t bytes)
{
	struct {
		uint64_t offset, length;
	} range = { offset, bytes };
	struct {
		uint64_t cached, dirty, writeback, evicted, recently_evicted;
	} stat;
	return syscall(451, fd, &range, &stat, 0) == 0 ? stat.cached : 0;
}

bool warm_present(const struct warm_stretch *stretch)
{
	return pages_present(stretch->fd, stretch->offset, stretch->bytes) >= stretch->bytes / PAGE;
}

/* Pages of ours that are there before we came, somebody else has read: most likely the tree. Were everything
 * it reads on our list, it would have read of each part of it about the same share. What is there as a whole
 * tells nothing: a prefetch before us may have brought it. */
static void compare(struct warm *warm, uint64_t pages, uint64_t present)
{
	if (present >= pages)
		return;
	double share = (double)(warm->tree_read - warm->tree_before) / (double)(warm->progress->total + 1);
	warm->expected += (double)pages * (share < 1 ? share : 1);
	warm->seen += (double)present;
}

static bool reads_our_list(const struct warm *warm)
{
	return warm->seen >= warm->expected / 2;
}

/* --- pace ------------------------------------------------------------------------------ */

static void look(struct warm *warm, uint64_t now)
{
	struct warm_progress *progress = warm->progress;
	int64_t bytes = tree_bytes(warm->order);
	if (warm->order->n_tree && bytes < 0 && warm->tree_since_us)
		progress->stop = 1; /* it has ended */
	if (bytes >= 0) {
		if (!warm->tree_since_us) {
			warm->tree_before = warm->tree_read = (uint64_t)bytes;
			warm->tree_since_us = now;
		}
		if ((uint64_t)bytes > warm->tree_read)
			warm->tree_read_us = now;
		warm->tree_read = (uint64_t)bytes;
	}
	warm->tree_reads = warm->tree_read_us && now - warm->tree_read_us < QUIET_US;
	warm->looked_us = now;
	if (warm->order->tell)
		warm->order->tell(warm->order->tell_arg, "prefetching",
				  progress->read + progress->present + progress->failed, progress->total);
	progress->us = now - warm->began_us;
	if (memory_scarce() || (warm->order->ceiling && progress->read >= warm->order->ceiling))
		progress->stop = progress->scarce = 1;
}

static bool must_yield(const struct warm *warm)
{
	return warm->tree_reads && !reads_our_list(warm);
}

/* When the next chunk may begin, this one having been so large. */
static void pace(struct warm *warm, uint64_t now, uint64_t bytes)
{
	uint64_t rate = warm->order->rate;
	if (!rate && must_yield(warm)) {
		uint64_t elapsed = now - warm->tree_since_us + 1;
		uint64_t theirs = (warm->tree_read - warm->tree_before) * 1000000 / elapsed;
		rate = theirs / FAIR_SHARE + MIB;
		warm->progress->yielded++;
	}
	uint64_t from = warm->allowed_us > now ? warm->allowed_us : now;
	warm->allowed_us = rate ? from + bytes * 1000000 / rate : now;
}

/* --- reading ------------------------------------------------------------------------------- */

/*
 * From single pages, which is what reading without read-ahead makes, the tree would later read at a third of the
 * speed. A fault in a mapping with MADV_HUGEPAGE makes one large folio where the file system can, and reads
 * exactly its 2 MiB if there is MADV_RANDOM, too (mm/filemap.c, do_sync_mmap_readahead()).
 */
static bool goes_huge(const struct warm *warm, const struct warm_stretch *rest)
{
	return rest->offset % HUGE == 0 && rest->bytes >= HUGE && !warm->order->rate && !must_yield(warm) &&
	       pages_present(rest->fd, rest->offset, HUGE) == 0;
}

static bool next_chunk(struct warm *warm, struct warm_stretch *chunk)
{
	while (warm->stretch < warm->order->n) {
		const struct warm_stretch *stretch = &warm->order->stretches[warm->stretch];
		if (warm->at >= stretch->bytes) {
			warm->stretch++;
			warm->at = 0;
			continue;
		}
		*chunk = (struct warm_stretch){ stretch->fd, stretch->offset + warm->at,
						stretch->bytes - warm->at };
		uint64_t to_huge = HUGE - chunk->offset % HUGE;
		uint64_t most = goes_huge(warm, chunk) ? HUGE : to_huge < CHUNK ? to_huge : CHUNK;
		if (chunk->bytes > most)
			chunk->bytes = most;
		warm->at += chunk->bytes;
		uint64_t pages = (chunk->bytes + PAGE - 1) / PAGE;
		uint64_t present = pages_present(chunk->fd, chunk->offset, chunk->bytes);
		compare(warm, pages, present);
		if (present < pages)
			return true;
		warm->progress->present += chunk->bytes;
	}
	return false;
}

static struct slot *free_slot(struct warm *warm)
{
	for (unsigned i = 0; i < SLOTS; i++)
		if (!warm->slots[i].bytes)
			return &warm->slots[i];
	return NULL;
}

/* Populating is done by a worker of the ring; a file that has been cut meanwhile gives EFAULT, no signal. */
static void prepare_read(struct slot *slot, struct io_uring_sqe *sqe, const struct warm_stretch *chunk)
{
	slot->map = NULL;
	if (chunk->bytes == HUGE) {
		void *map = mmap(NULL, HUGE, PROT_READ, MAP_SHARED, chunk->fd, (off_t)chunk->offset);
		if (map != MAP_FAILED && madvise(map, HUGE, MADV_HUGEPAGE) == 0 &&
		    madvise(map, HUGE, MADV_RANDOM) == 0) {
			slot->map = map;
			io_uring_prep_madvise(sqe, map, HUGE, MADV_POPULATE_READ);
			return;
		}
		if (map != MAP_FAILED)
			munmap(map, HUGE);
	}
	io_uring_prep_read(sqe, chunk->fd, slot->buffer, (unsigned)chunk->bytes, chunk->offset);
}

static bool begin(struct warm *warm, uint64_t now)
{
	struct warm_stretch chunk;
	if (!next_chunk(warm, &chunk))
		return false;
	struct slot *slot = free_slot(warm);
	struct io_uring_sqe *sqe = io_uring_get_sqe(&warm->ring);
	slot->bytes = chunk.bytes;
	warm->busy++;
	warm->huge += chunk.bytes == HUGE;
	prepare_read(slot, sqe, &chunk);
	io_uring_sqe_set_data(sqe, slot);
	io_uring_submit(&warm->ring);
	pace(warm, now, chunk.bytes);
	return true;
}

static void finish(struct warm *warm, const struct io_uring_cqe *cqe)
{
	struct slot *slot = io_uring_cqe_get_data(cqe);
	if (cqe->res >= 0)
		warm->progress->read += slot->bytes;
	else
		warm->progress->failed += slot->bytes;
	if (slot->map)
		munmap(slot->map, HUGE);
	warm->huge -= slot->bytes == HUGE;
	slot->bytes = 0;
	warm->busy--;
}

static void await(struct warm *warm, uint64_t now)
{
	struct io_uring_cqe *cqe;
	if (!warm->busy) {
		uint64_t us = warm->allowed_us > now ? warm->allowed_us - now : 1;
		struct timespec pause = { .tv_nsec = (long)(us < LOOK_US ? us : LOOK_US) * 1000 };
		nanosleep(&pause, NULL);
		return;
	}
	struct __kernel_timespec patience = { .tv_nsec = LOOK_US * 1000 };
	if (io_uring_wait_cqe_timeout(&warm->ring, &cqe, &patience) < 0)
		return;
	do {
		finish(warm, cqe);
		io_uring_cqe_seen(&warm->ring, cqe);
	} while (io_uring_peek_cqe(&warm->ring, &cqe) == 0);
}

/* Held back for somebody, one at a time: what is queued cannot be called back. */
static unsigned most(const struct warm *warm, uint64_t now)
{
	return warm->allowed_us > now || must_yield(warm) ? 1 : warm->huge ? HUGE_SLOTS : SLOTS;
}

static void read_all(struct warm *warm)
{
	bool more = true;
	while ((more && !__atomic_load_n(&warm->progress->stop, __ATOMIC_RELAXED)) || warm->busy) {
		uint64_t now = now_us();
		if (now - warm->looked_us >= LOOK_US)
			look(warm, now);
		while (more && !warm->progress->stop && warm->busy < most(warm, now) && warm->allowed_us <= now)
			more = begin(warm, now);
		if (more || warm->busy)
			await(warm, now);
	}
}

void warm_run(const struct warm_order *order, struct warm_progress *progress)
{
	struct warm warm = { .order = order, .progress = progress, .began_us = now_us() };
	for (size_t i = 0; i < order->n; i++)
		progress->total += order->stretches[i].bytes;
	warm.buffers = mmap(NULL, SLOTS * HUGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (warm.buffers != MAP_FAILED && io_uring_queue_init(2 * SLOTS, &warm.ring, 0) == 0) {
		for (unsigned i = 0; i < SLOTS; i++)
			warm.slots[i].buffer = warm.buffers + i * HUGE;
		look(&warm, now_us());
		read_all(&warm);
		io_uring_queue_exit(&warm.ring);
	} else {
		progress->failed = progress->total;
	}
	if (warm.buffers != MAP_FAILED)
		munmap(warm.buffers, SLOTS * HUGE);
	progress->us = now_us() - warm.began_us;
	__atomic_store_n(&progress->done, 1, __ATOMIC_RELEASE);
}
