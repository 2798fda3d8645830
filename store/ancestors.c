/*
 * ancestors.c - images that others build on: kept under their UUID, whatever becomes of their names.
 *
 * An ancestor has a second name in ancestors/, given before the first image that builds on it is committed.
 * Removing the image takes the first name only. A file there may go if
 *
 *	1. nobody has it open (we get its lock): who writes an image holds all that it builds on, and
 *	2. no image in images/ has it in its lineage, asked while we have that lock: one that was committed
 *	   before is seen, and one that is still to be cannot have opened it.
 *
 * Lineages are flat (reader.h), so that images without a name need not be asked.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#include "store/internal.h"
#include "store/scope.h"

int ancestor_link(struct store *store, int fd, const uint8_t *uuid, struct fsnap_error *err)
{
	struct store_at at = store_ancestor_at(uuid);
	char self[32];
	struct stat st, there;
	if (fstat(fd, &st) < 0)
		return store_fail(err, errno, "store %s", store->path);
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, self, store->dir, at.path, AT_SYMLINK_FOLLOW) == 0)
		return store_sync_dir(store, STORE_ANCESTORS, err);
	if (errno == ENOENT && mkdirat(store->dir, STORE_ANCESTORS, 0700) == 0 && /* a store of an older fsnap */
	    linkat(AT_FDCWD, self, store->dir, at.path, AT_SYMLINK_FOLLOW) == 0)
		return store_sync_dir(store, STORE_ANCESTORS, err);
	int sys = errno;
	if (sys == EEXIST && fstatat(store->dir, at.path, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
	    there.st_ino == st.st_ino && there.st_dev == st.st_dev)
		return 0;
	return store_fail(err, sys, "store %s: keeping an image that others build on", store->path);
}

/* --- which are needed -------------------------------------------------------------------------- */

struct need {
	struct store *store;
	uint8_t (*uuids)[16];
	size_t n, room;
};

static int add_needed(struct need *need, const uint8_t *uuid, struct fsnap_error *err)
{
	if (need->n == need->room) {
		size_t room = need->room ? 2 * need->room : 256;
		void *more = realloc(need->uuids, room * sizeof(*need->uuids));
		if (!more)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "store %s: its images", need->store->path);
		need->uuids = more;
		need->room = room;
	}
	memcpy(need->uuids[need->n++], uuid, sizeof(*need->uuids));
	return 0;
}

static bool is_still(int dir, const char *path, int fd)
{
	struct stat st, now;
	return fstat(fd, &st) == 0 && fstatat(dir, path, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
	       st.st_ino == now.st_ino && st.st_dev == now.st_dev;
}

/* Not by image_open_file(): we hold locks that it would wait for. What is removed while we read it does not
 * count; what cannot be read might need anything, and so nothing goes until it is removed. */
static int ask_image(void *arg, const char *name, struct fsnap_error *err)
{
	struct need *need = arg;
	struct store_at at;
	struct layout_slot slot;
	struct stat st;
	struct fsnap_error why = {0};
	snprintf(at.path, sizeof(at.path), STORE_IMAGES "/%.140s", name);
	if (!store_has_suffix(name, STORE_SUFFIX))
		return 0; /* what goes with an image, a .record: unreadable as an image, and in nobody's way */
	cleanup_fd int fd = openat(need->store->dir, at.path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	cleanup_free struct layout_ancestor *lineage = NULL;
	unsigned n = 0;
	int read = image_read_head(fd, (uint64_t)st.st_size, name, &slot, &why);
	if (read == 0 && slot.lineage.length)
		read = (lineage = lineage_read(fd, &slot, name, &n, &why)) ? 0 : -1;
	if (read < 0 && why.code != FSNAP_E_IMAGE_FORMAT && why.code != FSNAP_E_IMAGE_CORRUPT &&
	    why.code != FSNAP_E_IMAGE_TRUNCATED)
		return 0;
	if (read < 0 && !is_still(need->store->dir, at.path, fd))
		return 0;
	if (read < 0)
		return fail(err, why.code, 0, "%s", why.message);
	for (unsigned i = 0; i < n; i++)
		if (add_needed(need, lineage[i].uuid, err) < 0)
			return -1;
	return 0;
}

static int by_uuid(const void *a, const void *b)
{
	return memcmp(a, b, 16);
}

static int ask_all(struct need *need, struct fsnap_error *err)
{
	need->n = 0;
	if (store_each(need->store, STORE_IMAGES, ask_image, need, err) < 0)
		return -1;
	if (need->n)
		qsort(need->uuids, need->n, sizeof(*need->uuids), by_uuid);
	return 0;
}

static bool is_needed(const struct need *need, const uint8_t *uuid)
{
	return need->n && bsearch(uuid, need->uuids, need->n, sizeof(*need->uuids), by_uuid);
}

/* --- which are not -------------------------------------------------------------------------------- */

#define BATCH 64

struct unneeded {
	struct need *need;
	struct candidate {
		uint8_t uuid[16];
		int fd;
	} found[BATCH];
	unsigned n;
};

static bool parse_uuid(const char *name, uint8_t *uuid)
{
	for (int i = 0; i < 16; i++) {
		unsigned byte;
		if (sscanf(name + 2 * i, "%2x", &byte) != 1)
			return false;
		uuid[i] = (uint8_t)byte;
	}
	return strcmp(name + 32, STORE_SUFFIX) == 0;
}

static int note_unneeded(void *arg, const char *name, struct fsnap_error *err)
{
	struct unneeded *unneeded = arg;
	struct candidate *found = &unneeded->found[unneeded->n];
	(void)err;
	if (unneeded->n == BATCH || strlen(name) < 32 || !parse_uuid(name, found->uuid) ||
	    is_needed(unneeded->need, found->uuid))
		return 0;
	struct store_at at = store_ancestor_at(found->uuid);
	int dir = unneeded->need->store->dir;
	found->fd = openat(dir, at.path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (found->fd < 0)
		return 0;
	if (flock(found->fd, LOCK_EX | LOCK_NB) == 0 && is_still(dir, at.path, found->fd))
		unneeded->n++;
	else
		close(found->fd);
	return 0;
}

static int discard_unneeded(struct unneeded *unneeded, struct fsnap_error *err)
{
	struct need *need = unneeded->need;
	int result = ask_all(need, err);
	for (unsigned i = 0; i < unneeded->n; i++) {
		struct candidate *found = &unneeded->found[i];
		struct store_at at = store_ancestor_at(found->uuid);
		if (result == 0 && !is_needed(need, found->uuid))
			result = store_discard(need->store, STORE_ANCESTORS, &at, found->fd, err);
		close(found->fd);
	}
	return result;
}

int store_collect(struct store *store, struct fsnap_error *err)
{
	struct need need = {.store = store};
	struct unneeded unneeded;
	struct fsnap_error unreadable = {0};
	int result = 0;
	if (store->mode != STORE_WRITE)
		return fail(err, FSNAP_E_USAGE, 0, "store %s was opened for reading", store->path);
	do {
		unneeded.need = &need;
		unneeded.n = 0;
		/* An image that cannot be read keeps what it may need: no failure of whoever removes another. */
		if (ask_all(&need, &unreadable) < 0)
			break;
		result = store_each(store, STORE_ANCESTORS, note_unneeded, &unneeded, err);
		if (result == 0 && unneeded.n)
			result = discard_unneeded(&unneeded, err);
	} while (result == 0 && unneeded.n == BATCH);
	free(need.uuids);
	catalogue_drop_records(store);
	return result;
}
