/*
 * page_file.c - the file of an image: whose it is, what its head says, its page area as memory.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>

#include "store/reader.h"
#include "store/scope.h"

static int refuse_owner(struct fsnap_error *err, const char *image, const char *why)
{
	fail(err, FSNAP_E_IMAGE_OWNER, 0, "image %s: %s", image, why);
	return error_hint(err, "restoring runs what the image says: copy it to a file of your own "
			       "with mode 0600 if you trust it");
}

static int check_owner(const struct stat *st, const char *image, struct fsnap_error *err)
{
	if (!S_ISREG(st->st_mode))
		return refuse_owner(err, image, "not a regular file");
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return refuse_owner(err, image, "it belongs to another user");
	if (st->st_mode & 022)
		return refuse_owner(err, image, "others than its owner may write to it");
	return 0;
}

static int open_failed(struct fsnap_error *err, const char *image, int sys)
{
	if (sys == ELOOP)
		return refuse_owner(err, image, "it is a symbolic link");
	if (sys == ENOENT || sys == ENOTDIR) {
		fail(err, FSNAP_E_IMAGE_MISSING, 0, "image %s: there is none", image);
		return error_hint(err, "`fsnap list` shows the images of the store");
	}
	if (sys == EACCES || sys == EPERM) {
		fail(err, FSNAP_E_IMAGE_OWNER, sys, "image %s", image);
		return error_hint(err, "run as the user who made it");
	}
	return store_fail(err, sys, "image %s", image);
}

int image_open_file(int dir, const char *path, const char *image, struct stat *st,
		    struct fsnap_error *err)
{
	int flags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
	for (;;) {
		cleanup_fd int fd = openat(dir, path, flags);
		if (fd < 0) {
			open_failed(err, image, errno);
			return -1;
		}
		/* Type and owner first: flock(2) on a stranger's file may wait for ever. */
		if (fstat(fd, st) < 0)
			return store_fail(err, errno, "image %s", image);
		if (check_owner(st, image, err) < 0)
			return -1;
		while (flock(fd, LOCK_SH) < 0)
			if (errno != EINTR)
				return store_fail(err, errno, "image %s: locking it", image);
		/* While we waited it may have been removed, and its space recycled. */
		struct stat now;
		if (fstatat(dir, path, &now, AT_SYMLINK_NOFOLLOW) < 0) {
			open_failed(err, image, errno);
			return -1;
		}
		if (now.st_ino == st->st_ino && now.st_dev == st->st_dev) {
			*st = now;
			return steal_fd(&fd);
		}
	}
}

int read_exactly(int fd, void *buffer, uint64_t length, uint64_t offset, const char *image,
		 struct fsnap_error *err)
{
	char *to = buffer;
	while (length) {
		ssize_t n = pread(fd, to, length < INT_MAX ? length : INT_MAX, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return store_fail(err, errno, "image %s: reading it", image);
		if (n == 0)
			return fail(err, FSNAP_E_IMAGE_TRUNCATED, 0,
				    "image %s: became shorter while it was read", image);
		to += n;
		offset += (uint64_t)n;
		length -= (uint64_t)n;
	}
	return 0;
}

int image_read_head(int fd, uint64_t file_size, const char *image, struct layout_slot *slot,
		    struct fsnap_error *err)
{
	struct layout_head head;
	uint64_t have = file_size < sizeof(head) ? file_size : sizeof(head);
	if (read_exactly(fd, &head, have, 0, image, err) < 0)
		return -1;
	return layout_check_head(&head, have, file_size, image, slot, err);
}

void *read_section(int fd, const struct layout_section *section, const char *image, const char *what,
		   struct fsnap_error *err)
{
	cleanup_free char *bytes = malloc(section->length + 1);
	if (!bytes) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its %s", image, what);
		return NULL;
	}
	if (read_exactly(fd, bytes, section->length, section->offset, image, err) < 0)
		return NULL;
	if (layout_checksum(bytes, section->length) != section->checksum) {
		layout_corrupt(err, image, "the checksum of its %s is wrong", what);
		return NULL;
	}
	return steal(&bytes);
}

/* Where images must be signed, everything but the pages is held against the signature before it is looked at. */
static int read_signed_head(int fd, uint64_t file_size, const char *image, const struct trust *trust,
			    struct layout_slot *slot, struct signature **signature, struct fsnap_error *err)
{
	if (signature_open(signature, fd, file_size, image, trust, err) < 0 ||
	    signature_check(*signature, 0, LAYOUT_HEAD, err) < 0 ||
	    image_read_head(fd, file_size, image, slot, err) < 0)
		return -1;
	uint64_t behind = slot->pages_offset + layout_area(slot);
	uint64_t before = slot->pages_offset < slot->length ? slot->pages_offset : slot->length;
	if (signature_check(*signature, 0, before, err) < 0)
		return -1;
	return behind < slot->length ? signature_check(*signature, behind, slot->length - behind, err) : 0;
}

int image_read_trusted_head(int fd, uint64_t file_size, const char *image, const struct trust *trust,
			    struct layout_slot *slot, struct fsnap_error *err)
{
	struct signature *signature = NULL;
	int result = read_signed_head(fd, file_size, image, trust, slot, &signature, err);
	signature_close(signature);
	return result;
}

static int open_pages(struct page_file *file, uint64_t file_size, const char *image, const struct trust *trust,
		      struct keyring *ring, struct fsnap_error *err)
{
	struct layout_slot *slot = &file->slot;
	if (read_signed_head(file->fd, file_size, image, trust, slot, &file->signature, err) < 0)
		return -1;
	void *blocks = read_section(file->fd, &slot->blocks, image, "block checksums", err);
	if (blocks && layout_coded(slot))
		return coded_open(file, blocks, ring, image, err);
	file->sums = blocks;
	file->pages_at = slot->pages_offset;
	if (!file->sums || slot->pages == 0)
		return file->sums ? 0 : -1;
	file->medium = medium_open_read(file->fd, slot->pages_offset, slot->pages * STORE_PAGE, err);
	return file->medium ? 0 : -1;
}

struct page_file *page_file_open(int fd, uint64_t file_size, const char *image, const struct trust *trust,
				 struct keyring *ring, struct fsnap_error *err)
{
	struct page_file *file = calloc(1, sizeof(*file));
	if (!file) {
		close(fd);
		fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s", image);
		return NULL;
	}
	file->users = 1;
	file->fd = fd;
	if (open_pages(file, file_size, image, trust, ring, err) < 0) {
		page_file_close(file);
		return NULL;
	}
	return file;
}

struct page_file *page_file_share(struct page_file *file)
{
	__atomic_add_fetch(&file->users, 1, __ATOMIC_RELAXED);
	return file;
}

void page_file_close(struct page_file *file)
{
	if (!file || __atomic_sub_fetch(&file->users, 1, __ATOMIC_ACQ_REL))
		return;
	medium_close(file->medium);
	signature_close(file->signature);
	coded_close(file->coded);
	scope_close(&file->fd);
	free(file->sums);
	free(file);
}
