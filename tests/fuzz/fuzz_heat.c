/*
 * fuzz_heat.c - any bytes as the hints of an image whose checksums are right.
 *
 * Shown: what they say of a file is read from it only where it is there; what is impossible is left out. Seeds are
 * about a file that the target makes, sparse, with the size and time they expect; /etc/passwd would be told it
 * has changed. The input is how many records there are said to be (one byte), and they.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/heat/fetch.h"
#include "fuzz.h"
#include "store/scope.h"

#define WARM_FILE "/dev/shm/fsnap-fuzz.warm"
#define WARM_SIZE (64ll << 20)

static void make_file(void)
{
	static bool made;
	if (made)
		return;
	made = true;
	cleanup_fd int fd = open(WARM_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct timespec times[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	if (fd < 0 || ftruncate(fd, WARM_SIZE) < 0 || futimens(fd, times) < 0)
		abort();
}

/* What is to be read lies within files that are open. */
static void check(const struct fetch *fetch)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < fetch->n; i++) {
		const struct warm_stretch *stretch = &fetch->stretches[i];
		struct stat st;
		uint64_t end = stretch->offset + stretch->bytes;
		if (fstat(stretch->fd, &st) < 0 || stretch->bytes == 0 || end < stretch->offset ||
		    end > (uint64_t)st.st_size + STORE_PAGE)
			abort();
		bytes += stretch->bytes;
	}
	if (bytes != fetch->bytes)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
	struct fsnap_error err = { 0 };
	make_file();
	if (length < 1)
		return 0;
	struct fuzz_image given = { .hints = { bytes + 1, length - 1 }, .hint_records = bytes[0] };
	struct image *image = image_open(NULL, fuzz_image_file(&given), &err);
	if (fuzz_refused(image ? 0 : -1, &err))
		return 0;
	struct fetch fetch;
	if (!fuzz_refused(fetch_plan(&fetch, image, FSNAP_PREFETCH_ALL, NULL, true, NULL, NULL, &err), &err))
		check(&fetch);
	fetch_free(&fetch);
	image_close(image);
	return 0;
}
