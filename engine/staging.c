#include "engine/staging.h"

#include <fcntl.h>
#include <limits.h>
#include <liburing.h>
#include <linux/futex.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "engine/compile.h"
#include "engine/restore.h"
#include "restorer/warm_pace.h"
#include "store/scope.h"

#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

#define LARGE (256ull << 20)   /* bytes: smaller ones are restored often, and better kept in the page cache */
#define DEPTH 16u	       /* blocks under way, of 1 MiB */
#define HUGE (2ull << 20)
#define SPARE (256ull << 20)   /* bytes of memory that are left to others */

struct staging {
	int direct; /* the image, past the page cache */
	int fd;	    /* the memory */
	void *room; /* what is mapped for it */
	char *map;  /* as the file: byte for byte */
	bool small; /* there are no huge pages to be had */
	uint64_t length, blocks;
	struct io_uring ring;
	bool registered; /* buffers are known to the kernel before they are used */
	bool come[DEPTH];
	int32_t result[DEPTH];
};

/* --- is it worth it? -------------------------------------------------------------------- */

static bool in_memory(int fd)
{
	struct statfs fs;
	return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* The image is there twice until all tasks have theirs. */
static bool fits(uint64_t bytes)
{
	int64_t kib = warm_number_in("/proc/meminfo", "MemAvailable:");
	return kib > 0 && 2 * bytes + SPARE < (uint64_t)kib * 1024;
}

bool staging_wanted(const struct restore *restore)
{
	int fd = image_descriptor(restore->image, 0);
	uint64_t bytes = image_pages(restore->image) * STORE_PAGE, least = getenv("FSNAP_DIRECT") ? 1 : LARGE;
	return !restore->streaming.on && !restore->options->from && !restore->explaining && !getenv("FSNAP_NO_DIRECT") &&
	       image_files(restore->image) == 1 && !image_is_coded(restore->image) && bytes >= least && !in_memory(fd) &&
	       warm_pages_present(fd, 0, 0) * STORE_PAGE < bytes / 2 && fits(bytes);
}

/* --- having it ---------------------------------------------------------------------------- */

static int open_direct(const struct image *image)
{
	char path[40];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", image_descriptor(image, 0));
	return open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
}

/* The tasks' descriptor of the image is this memory from here on. */
static bool take_memory(struct staging *staging, int descriptor)
{
	cleanup_fd int fd = memfd_create("fsnap-image", MFD_CLOEXEC);
	staging->room = mmap(NULL, staging->length + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (fd < 0 || ftruncate(fd, (off_t)staging->length) < 0 || staging->room == MAP_FAILED)
		return false;
	/* Aligned like the file, so that huge pages can be mapped as such. */
	staging->map = (char *)(((uintptr_t)staging->room + HUGE - 1) & -HUGE);
	if (mmap(staging->map, staging->length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		return false;
	if (dup3(fd, descriptor, O_CLOEXEC) < 0)
		return false;
	staging->fd = steal_fd(&fd);
	return true;
}

/* One huge page costs less than 512 to get, to pin, to map. A hole is not collapsed as a whole: it gets one page first. */
static void make_huge(struct staging *staging, uint64_t offset)
{
	if (offset % HUGE || offset + HUGE > staging->length || staging->small)
		return;
	staging->small = fallocate(staging->fd, 0, (off_t)offset, STORE_PAGE) < 0 ||
			 madvise(staging->map + offset, HUGE, MADV_COLLAPSE) < 0;
}

static void discard(struct staging *staging)
{
	if (staging->room && staging->room != MAP_FAILED)
		munmap(staging->room, staging->length + HUGE);
	scope_close(&staging->direct);
	scope_close(&staging->fd);
	free(staging);
}

void staging_begin(struct restore *restore)
{
	const struct image *image = restore->image;
	uint64_t blocks = image_blocks(image);
	struct image_extent last = blocks ? image_block_extent(image, blocks - 1) : (struct image_extent){ 0 };
	if (!staging_wanted(restore))
		return;
	struct staging *staging = calloc(1, sizeof(*staging));
	if (!staging)
		return;
	*staging = (struct staging){ .direct = open_direct(image), .fd = -1, .length = last.offset + last.bytes, .blocks = blocks };
	if (staging->direct < 0 || io_uring_queue_init(DEPTH, &staging->ring, 0) < 0) {
		discard(staging);
		return;
	}
	if (!take_memory(staging, restore->image_fds[0])) {
		io_uring_queue_exit(&staging->ring);
		discard(staging);
		return;
	}
	/* Locked memory is limited for some: it works without. */
	staging->registered = io_uring_register_buffers_sparse(&staging->ring, DEPTH) == 0;
	restore->staging = staging;
	restore->source.staged = true;
	restore->source.staged_barrier = BARRIER_STAGED;
}

void staging_end(struct restore *restore)
{
	if (!restore->staging)
		return;
	io_uring_queue_exit(&restore->staging->ring);
	discard(restore->staging);
	restore->staging = NULL;
}

/* --- reading -------------------------------------------------------------------------------- */

static void ask(struct staging *staging, const struct image *image, uint64_t block)
{
	struct image_extent extent = image_block_extent(image, block);
	char *to = staging->map + extent.offset;
	make_huge(staging, extent.offset);
	unsigned slot = block % DEPTH;
	struct iovec buffer = { to, extent.bytes };
	struct io_uring_sqe *sqe = io_uring_get_sqe(&staging->ring); /* as many as there are slots */
	__u64 tag = 0;
	if (staging->registered && io_uring_register_buffers_update_tag(&staging->ring, slot, &buffer, &tag, 1) != 1)
		staging->registered = false;
	if (staging->registered)
		io_uring_prep_read_fixed(sqe, staging->direct, to, (unsigned)extent.bytes, extent.offset, (int)slot);
	else
		io_uring_prep_read(sqe, staging->direct, to, (unsigned)extent.bytes, extent.offset);
	io_uring_sqe_set_data64(sqe, block);
	staging->come[slot] = false;
}

static void reap(struct staging *staging)
{
	struct io_uring_cqe *cqe;
	while (io_uring_peek_cqe(&staging->ring, &cqe) == 0) {
		unsigned slot = io_uring_cqe_get_data64(cqe) % DEPTH;
		staging->result[slot] = cqe->res;
		staging->come[slot] = true;
		io_uring_cqe_seen(&staging->ring, cqe);
	}
}

/* A file system may open files for direct I/O and then not do it; or not to their last byte. */
static int read_plainly(const struct image *image, const struct image_extent *extent, char *to, struct fsnap_error *err)
{
	for (uint64_t done = 0; done < extent->bytes;) {
		ssize_t n = pread(extent->fd, to + done, extent->bytes - done, (off_t)(extent->offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return fail(err, n < 0 ? FSNAP_E_STORE_IO : FSNAP_E_IMAGE_TRUNCATED, n < 0 ? errno : 0,
				    "image %s: reading it", image_name(image));
		done += (uint64_t)n;
	}
	return 0;
}

/* The block has come: whoever waits for it may have it, if it is what was written. */
static int take(struct restore *restore, uint64_t block, struct fsnap_error *err)
{
	struct staging *staging = restore->staging;
	struct image_extent extent = image_block_extent(restore->image, block);
	char *at = staging->map + extent.offset;
	bool whole = staging->result[block % DEPTH] == (int32_t)extent.bytes;
	uint32_t *barrier = &restore_control(restore)->barrier[BARRIER_STAGED];
	if (!whole && read_plainly(restore->image, &extent, at, err) < 0)
		return -1;
	if (image_check_block(restore->image, block, at, err) < 0)
		return -1;
	restore->report->direct_bytes += whole ? extent.bytes : 0;
	__atomic_store_n(barrier, (uint32_t)block + 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, barrier, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
	return 0;
}

int staging_read(struct restore *restore, struct fsnap_error *err)
{
	struct staging *staging = restore->staging;
	uint64_t asked = 0, taken = 0;
	while (taken < staging->blocks) {
		for (; asked < staging->blocks && asked < taken + DEPTH; asked++)
			ask(staging, restore->image, asked);
		int result = io_uring_submit_and_wait(&staging->ring, 1);
		if (result < 0 && result != -EINTR)
			return fail(err, FSNAP_E_SYSTEM, -result, "io_uring");
		reap(staging);
		for (; taken < asked && staging->come[taken % DEPTH]; taken++)
			if (take(restore, taken, err) < 0)
				return -1;
	}
	return 0;
}
