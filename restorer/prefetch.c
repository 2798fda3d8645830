#include "restorer/prefetch.h"

#include <fcntl.h>
#include <liburing.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/vfs.h>

#define STRETCH (4ull << 20) /* bytes asked for at a time */
#define STRETCHES 256u	     /* at most in the ring: 1 GiB ahead */
#define WORTH_IT (1ull << 20)

struct prefetch {
	struct io_uring ring;
};

static bool in_memory(int fd)
{
	struct statfs fs;
	return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* Read-ahead (posix_fadvise WILLNEED) blocks its caller while requests are queued; through the ring
 * it is the kernel's workers that wait. */
static void ask(struct prefetch *prefetch, int fd, uint64_t offset, uint64_t bytes)
{
	for (uint64_t done = 0; done < bytes; done += STRETCH) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&prefetch->ring);
		if (!sqe)
			break;
		uint64_t now = bytes - done < STRETCH ? bytes - done : STRETCH;
		io_uring_prep_fadvise(sqe, fd, offset + done, (off_t)now, POSIX_FADV_WILLNEED);
		sqe->flags |= IOSQE_ASYNC;
	}
	io_uring_submit(&prefetch->ring);
}

struct prefetch *prefetch_start(const struct image *image)
{
	if (image_page_space(image) * STORE_PAGE < WORTH_IT || in_memory(image_descriptor(image, 0)))
		return NULL;
	struct prefetch *prefetch = malloc(sizeof(*prefetch));
	if (!prefetch || io_uring_queue_init(STRETCHES, &prefetch->ring, 0) < 0) {
		free(prefetch);
		return NULL;
	}
	for (unsigned i = 0; i < image_files(image); i++) {
		struct image_extent stored = image_stored(image, i);
		ask(prefetch, stored.fd, stored.offset, stored.bytes);
	}
	return prefetch;
}

void prefetch_end(struct prefetch *prefetch)
{
	if (!prefetch)
		return;
	io_uring_queue_exit(&prefetch->ring);
	free(prefetch);
}
