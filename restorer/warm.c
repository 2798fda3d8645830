#include "restorer/warm.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/ioprio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "restorer/warm_pace.h"

#define PAGE WARM_PAGE
#define CHUNK (256u << 10) /* bytes read at a time */
#define SLOTS 8u	   /* at most on their way at once: enough for one disk or network connection */
#define HUGE (2u << 20)	   /* bytes that become one folio of the page cache */
#define HUGE_SLOTS 2u	   /* ... on their way at once */
#define LOOK_US 20000	   /* between two looks at what the tree does */
#define SCARCE_SHARE 10	   /* of all memory, available */

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
	struct warm_pace pace;
};

static uint64_t now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static bool memory_scarce(void)
{
	int64_t total = warm_number_in("/proc/meminfo", "MemTotal:");
	int64_t available = warm_number_in("/proc/meminfo", "MemAvailable:");
	return available >= 0 && available < total / SCARCE_SHARE;
}

/* --- what is there already ------------------------------------------------------------ */

bool warm_present(const struct warm_stretch *stretch, uint64_t but)
{
	return warm_pages_present(stretch->fd, stretch->offset, stretch->bytes) + but >= stretch->bytes / PAGE;
}

/* --- now and then ---------------------------------------------------------------------- */

static void look(struct warm *warm, uint64_t now)
{
	struct warm_progress *progress = warm->progress;
	warm_pace_look(&warm->pace, now);
	warm->looked_us = now;
	if (warm->order->tell)
		warm->order->tell(warm->order->tell_arg, "prefetching",
				  progress->read + progress->present + progress->failed, progress->total);
	progress->us = now - warm->began_us;
	if (warm->pace.ended)
		progress->stop = 1;
	if (memory_scarce() || (warm->order->ceiling && progress->read >= warm->order->ceiling))
		progress->stop = progress->scarce = 1;
}

/* --- reading ------------------------------------------------------------------------------- */

/*
 * From single pages, which is what reading without read-ahead makes, the tree would later read at a third of the
 * speed. A fault in a mapping with MADV_HUGEPAGE makes one large folio where the file system can, and reads
 * exactly its 2 MiB if there is MADV_RANDOM, too (mm/filemap.c, do_sync_mmap_readahead()).
 */
static bool goes_huge(const struct warm *warm, const struct warm_stretch *rest, uint64_t now)
{
	return rest->offset % HUGE == 0 && rest->bytes >= HUGE && !warm->order->rate && !warm_pace_slow(&warm->pace, now) &&
	       warm_pages_present(rest->fd, rest->offset, HUGE) == 0;
}

/* *pages: those of it that are not there yet. */
static bool next_chunk(struct warm *warm, struct warm_stretch *chunk, uint64_t *pages, uint64_t now)
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
		uint64_t most = goes_huge(warm, chunk, now) ? HUGE : to_huge < CHUNK ? to_huge : CHUNK;
		if (chunk->bytes > most)
			chunk->bytes = most;
		warm->at += chunk->bytes;
		uint64_t all = (chunk->bytes + PAGE - 1) / PAGE;
		uint64_t present = warm_pages_present(chunk->fd, chunk->offset, chunk->bytes);
		*pages = all - present;
		if (present < all)
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
static void prepare_read(struct slot *slot, struct io_uring_sqe *sqe, const struct warm_stretch *chunk, bool yields)
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
	/* Schedulers that know it (bfq, mq-deadline) let everybody else go first. */
	if (yields)
		sqe->ioprio = IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0);
}

static bool begin(struct warm *warm, uint64_t now)
{
	struct warm_stretch chunk;
	uint64_t pages;
	if (!next_chunk(warm, &chunk, &pages, now))
		return false;
	struct slot *slot = free_slot(warm);
	struct io_uring_sqe *sqe = io_uring_get_sqe(&warm->ring);
	slot->bytes = chunk.bytes;
	warm->busy++;
	warm->huge += chunk.bytes == HUGE;
	prepare_read(slot, sqe, &chunk, warm->pace.yields);
	io_uring_sqe_set_data(sqe, slot);
	warm->progress->yielded += warm->pace.yields;
	/* Before it is submitted: then its pages are in the cache, and ours. */
	warm_pace_next(&warm->pace, now, pages, chunk.bytes);
	io_uring_submit(&warm->ring);
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
		uint64_t us = warm->pace.allowed_us > now ? warm->pace.allowed_us - now : 1;
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

static unsigned most(const struct warm *warm, uint64_t now)
{
	return warm_pace_slow(&warm->pace, now) ? 1 : warm->huge ? HUGE_SLOTS : SLOTS;
}

static void read_all(struct warm *warm)
{
	bool more = true;
	while ((more && !__atomic_load_n(&warm->progress->stop, __ATOMIC_RELAXED)) || warm->busy) {
		uint64_t now = now_us();
		if (now - warm->looked_us >= LOOK_US)
			look(warm, now);
		while (more && !warm->progress->stop && warm->busy < most(warm, now) && warm->pace.allowed_us <= now)
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
		warm_pace_begin(&warm.pace, order, warm.began_us);
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
