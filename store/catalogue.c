/* catalogue.c - the images of a store by name: listing them, the newest, removing one. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "store/internal.h"
#include "store/scope.h"

struct listing {
	struct store *store;
	struct trust trust;
	struct store_entry *entries;
	size_t count;
	size_t room;
};

bool store_has_suffix(const char *file, const char *suffix)
{
	size_t length = strlen(file), n = strlen(suffix);
	return length > n && strcmp(file + length - n, suffix) == 0;
}

/* The image's name if the file's is one of ours. */
static bool image_of_file(const char *file, char *name, size_t size)
{
	size_t length = strlen(file) - strlen(STORE_SUFFIX);
	if (!store_has_suffix(file, STORE_SUFFIX) || length >= size)
		return false;
	memcpy(name, file, length);
	name[length] = '\0';
	return store_check_name(name, NULL) == 0;
}

static void describe(const struct store *store, const struct trust *trust, struct store_entry *entry)
{
	struct store_at at = store_image_at(entry->name);
	struct layout_slot slot;
	struct stat st = {0};
	cleanup_fd int fd = image_open_file(store->dir, at.path, entry->name, &st, &entry->damage);
	if (fd >= 0 &&
	    image_read_trusted_head(fd, (uint64_t)st.st_size, entry->name, trust, &slot, &entry->damage) == 0) {
		entry->created_ns = slot.created_ns;
		entry->file_bytes = slot.length;
		entry->page_bytes = slot.pages * STORE_PAGE;
		entry->codec = (int)slot.coding.codec;
		entry->cipher = (int)slot.coding.cipher;
		return;
	}
	if (fstatat(store->dir, at.path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	entry->created_ns =
		(uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
	entry->file_bytes = (uint64_t)st.st_size;
}

static int list_one(void *arg, const char *file, struct fsnap_error *err)
{
	struct listing *list = arg;
	struct store_entry entry = {.created_ns = 0};
	if (!image_of_file(file, entry.name, sizeof(entry.name)))
		return 0;
	describe(list->store, &list->trust, &entry);
	if (entry.damage.code == FSNAP_E_IMAGE_MISSING)
		return 0; /* removed while we looked */
	if (list->count == list->room) {
		size_t room = list->room ? 2 * list->room : 16;
		void *more = realloc(list->entries, room * sizeof(entry));
		if (!more)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "the list of images");
		list->entries = more;
		list->room = room;
	}
	list->entries[list->count++] = entry;
	return 0;
}

static int newest_first(const void *a, const void *b)
{
	const struct store_entry *one = a, *two = b;
	if (one->created_ns != two->created_ns)
		return one->created_ns > two->created_ns ? -1 : 1;
	return strcmp(one->name, two->name);
}

int store_list(struct store *store, struct store_entry **entries, size_t *count,
	       struct fsnap_error *err)
{
	struct listing list = {.store = store};
	int result = trust_load(&list.trust, err) < 0 ? -1 : store_each(store, STORE_IMAGES, list_one, &list, err);
	trust_free(&list.trust);
	if (result < 0) {
		free(list.entries);
		return -1;
	}
	if (list.count)
		qsort(list.entries, list.count, sizeof(*list.entries), newest_first);
	*entries = list.entries;
	*count = list.count;
	return 0;
}

int store_newest(struct store *store, char *name, size_t size, struct fsnap_error *err)
{
	cleanup_free struct store_entry *entries = NULL;
	size_t count;
	if (store_list(store, &entries, &count, err) < 0)
		return -1;
	for (size_t i = 0; i < count; i++) {
		if (!error_is_set(&entries[i].damage)) {
			snprintf(name, size, "%s", entries[i].name);
			return 0;
		}
	}
	fail(err, FSNAP_E_IMAGE_MISSING, 0, "store %s: holds no%s image", store->path,
	     count ? " usable" : "");
	return error_hint(err, count ? "`fsnap list` says what is wrong with those there are"
				     : "make one with `fsnap dump -t PID`");
}

/* --- removing --------------------------------------------------------------------------------- */

/* A former image must not look like one, and the next dump is to find 2 MiB folios. */
static void prepare_for_pool(const struct store *store, int fd, uint64_t length)
{
	struct medium *medium = medium_open_write(fd, length, store->in_memory, NULL);
	if (!medium)
		return; /* whoever claims the file wipes it in any case */
	if (medium_prepare(medium, 0, LAYOUT_HEAD, NULL) == 0)
		memset(medium_at(medium, STORE_PAGE), 0, LAYOUT_HEAD - STORE_PAGE);
	if (length > STORE_FILE_SMALL) /* of a small one little is used, and what is stays as it is */
		medium_make_huge(medium, 0, length);
	medium_close(medium);
}

/* Only what nobody reads, what is ours, and what has no second name may be overwritten later. */
static bool may_recycle(int fd, struct stat *st)
{
	return fd >= 0 && fstat(fd, st) == 0 && S_ISREG(st->st_mode) && st->st_uid == geteuid() &&
	       st->st_nlink == 1 && (uint64_t)st->st_size >= STORE_FILE_MIN &&
	       flock(fd, LOCK_EX | LOCK_NB) == 0;
}

int store_discard(struct store *store, const char *dir, const struct store_at *at, int fd,
		  struct fsnap_error *err)
{
	struct store_at tmp = store_tmp_at(store_new_id());
	struct stat st, moved;
	if (!may_recycle(fd, &st) || store->mode != STORE_WRITE)
		tmp.path[0] = '\0';
	int r = tmp.path[0] ? renameat(store->dir, at->path, store->dir, tmp.path)
			    : unlinkat(store->dir, at->path, 0);
	if (r < 0)
		return store_fail(err, errno, "%s: removing it", at->path);
	/* Durable before its space is written again: the name must never lead to other content. */
	if (store_sync_dir(store, dir, err) < 0)
		return -1;
	if (!tmp.path[0])
		return 0;
	if (fstatat(store->dir, tmp.path, &moved, AT_SYMLINK_NOFOLLOW) < 0 ||
	    moved.st_ino != st.st_ino) { /* replaced since we opened it: not ours to recycle */
		unlinkat(store->dir, tmp.path, 0);
		return 0;
	}
	uint64_t length = (uint64_t)st.st_size / LAYOUT_HUGE * LAYOUT_HUGE;
	prepare_for_pool(store, fd, length);
	pool_give(store, &tmp, length, NULL); /* failing, it unlinks: the image is gone either way */
	return 0;
}

/* Which pages a restore touched first (restorer/record.h): without the image it is nothing. */
static void remove_record(const struct store *store, const char *name)
{
	char path[200];
	snprintf(path, sizeof(path), STORE_IMAGES "/%s" STORE_RECORD, name);
	unlinkat(store->dir, path, 0);
}

/* Written while its image was being removed. One whose image comes back under that name is of another UUID. */
static int drop_record(void *arg, const char *file, struct fsnap_error *err)
{
	struct store *store = arg;
	char name[128];
	struct stat st;
	(void)err;
	if (!store_has_suffix(file, STORE_RECORD))
		return 0;
	if (snprintf(name, sizeof(name), "%.*s", (int)(strlen(file) - strlen(STORE_RECORD)), file) >= (int)sizeof(name) ||
	    store_check_name(name, NULL) < 0)
		return 0;
	struct store_at image = store_image_at(name);
	if (fstatat(store->dir, image.path, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
		remove_record(store, name);
	return 0;
}

void catalogue_drop_records(struct store *store)
{
	store_each(store, STORE_IMAGES, drop_record, store, NULL);
}

int store_remove_name(struct store *store, const char *name, struct fsnap_error *err)
{
	if (store_check_name(name, err) < 0)
		return -1;
	struct store_at at = store_image_at(name);
	int flags = O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK;
	cleanup_fd int fd = openat(store->dir, at.path, flags);
	struct stat st;
	if (fstatat(store->dir, at.path, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT) {
		fail(err, FSNAP_E_IMAGE_MISSING, 0, "image %s: there is none", name);
		return error_hint(err, "`fsnap list` shows the images of the store");
	}
	if (store_discard(store, STORE_IMAGES, &at, fd, err) < 0)
		return error_context(err, "image %s", name);
	files_remove(store, name);
	remove_record(store, name);
	return 0;
}

int store_remove(struct store *store, const char *name, struct fsnap_error *err)
{
	if (store_remove_name(store, name, err) < 0)
		return -1;
	/* It may be the last that others were kept for; the name is gone, whatever comes of that. */
	if (store->mode == STORE_WRITE)
		store_collect(store, NULL);
	return 0;
}

int64_t store_trim(struct store *store, struct fsnap_error *err)
{
	files_trim(store);
	return pool_empty(store, err);
}
