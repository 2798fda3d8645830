#define _GNU_SOURCE
#include "restorer/record.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "store/hash.h"
#include "store/scope.h"

#define MAGIC "FSNAPREC"
#define SUFFIX ".fsnap"

struct head {
	char magic[8];
	uint8_t uuid[16];
	uint64_t n;
	uint64_t checksum;
};

uint64_t record_checksum(const void *page)
{
	return hash_bytes(page, STORE_PAGE);
}

/* NAME.fsnap: NAME.record, in the same directory. */
int record_path(const struct image *image, char *path, size_t size)
{
	char link[40];
	snprintf(link, sizeof(link), "/proc/self/fd/%d", image_descriptor(image, 0));
	ssize_t n = readlink(link, path, size - sizeof(".record"));
	if (n < 0)
		return -1;
	path[n] = '\0';
	if ((size_t)n > strlen(SUFFIX) && strcmp(path + n - strlen(SUFFIX), SUFFIX) == 0)
		n -= (ssize_t)strlen(SUFFIX);
	strcpy(path + n, ".record");
	return 0;
}

static int by_page(const void *a, const void *b)
{
	const struct record_entry *one = a, *other = b;
	return one->page < other->page ? -1 : one->page > other->page;
}

static bool is_good(const struct image *image, const struct head *head, const struct record_entry *entries)
{
	uint8_t uuid[16];
	image_uuid(image, uuid);
	if (memcmp(head->magic, MAGIC, 8) != 0 || memcmp(head->uuid, uuid, 16) != 0 ||
	    hash_bytes(entries, head->n * sizeof(*entries)) != head->checksum)
		return false;
	for (uint64_t i = 0; i < head->n; i++)
		if (entries[i].page / STORE_BLOCK_PAGES >= image_blocks(image))
			return false;
	return true;
}

struct record_entry *record_read(const struct image *image, const char *path, size_t *n)
{
	struct head head;
	struct stat st;
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	*n = 0;
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (st.st_uid != geteuid() && st.st_uid != 0) ||
	    read(fd, &head, sizeof(head)) != sizeof(head) ||
	    head.n != ((uint64_t)st.st_size - sizeof(head)) / sizeof(struct record_entry))
		return NULL;
	cleanup_free struct record_entry *entries = malloc((head.n + 1) * sizeof(*entries));
	size_t bytes = head.n * sizeof(*entries);
	if (!entries || read(fd, entries, bytes) != (ssize_t)bytes || !is_good(image, &head, entries))
		return NULL;
	qsort(entries, head.n, sizeof(*entries), by_page);
	for (uint64_t i = 0; i < head.n; i++)
		if (i == 0 || entries[i].page != entries[*n - 1].page)
			entries[(*n)++] = entries[i];
	return steal(&entries);
}

/* Is the image still where it was? /proc/PID/fd (proc(5)) says of one that was removed or renamed that it is not. */
static bool is_there(const struct image *image, const char *path)
{
	char now[4096];
	return record_path(image, now, sizeof(now)) == 0 && strcmp(now, path) == 0;
}

int record_write(const struct image *image, const char *path, const struct record_entry *entries, size_t n)
{
	char tmp[4200];
	struct head head = { .magic = MAGIC, .n = n, .checksum = hash_bytes(entries, n * sizeof(*entries)) };
	size_t bytes = n * sizeof(*entries);
	image_uuid(image, head.uuid);
	snprintf(tmp, sizeof(tmp), "%s.new", path);
	cleanup_fd int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -1;
	if (write(fd, &head, sizeof(head)) == sizeof(head) && write(fd, entries, bytes) == (ssize_t)bytes &&
	    fdatasync(fd) == 0 && rename(tmp, path) == 0) {
		/* Afterwards: whoever removes the image from now on removes the record, too. */
		if (is_there(image, path))
			return 0;
		unlink(path);
		return -1;
	}
	unlink(tmp);
	return -1;
}
