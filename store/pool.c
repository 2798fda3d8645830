/*
 * pool.c - space of removed images, kept for the next dump.
 *
 * A pool file's name is "SIZE-ID", both in hexadecimal, so that choosing one needs no stat(2) per
 * file. An ID is never used twice: a name stands for one inode for as long as it exists, and the
 * inode that was opened and locked under a name is the one that rename(2) moves.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "store/internal.h"
#include "store/scope.h"

struct pooled {
	uint64_t size;
	uint64_t id;
};

struct pool {
	struct pooled file[64]; /* more than STORE_POOL_FILES: racing writers may overfill it */
	unsigned count;
};

static struct store_at pooled_at(const struct pooled *file)
{
	struct store_at at;
	snprintf(at.path, sizeof(at.path), STORE_POOL "/%012" PRIx64 "-%016" PRIx64, file->size,
		 file->id);
	return at;
}

static int note_file(void *arg, const char *name, struct fsnap_error *err)
{
	struct pool *pool = arg;
	struct pooled file;
	(void)err;
	if (pool->count < sizeof(pool->file) / sizeof(pool->file[0]) &&
	    sscanf(name, "%" SCNx64 "-%" SCNx64, &file.size, &file.id) == 2)
		pool->file[pool->count++] = file;
	return 0;
}

/* Recycling overwrites: only a plain file that is ours alone and has no other name. */
static bool is_ours(int fd, struct stat *st)
{
	return fstat(fd, st) == 0 && S_ISREG(st->st_mode) && st->st_uid == geteuid() &&
	       st->st_nlink == 1 && !(st->st_mode & 077);
}

/* Takes a file out of the pool; -1 without an error: somebody else did, or it is not usable. */
static int take(struct store *store, const struct pooled *file, struct claim *claim)
{
	struct store_at from = pooled_at(file);
	cleanup_fd int fd = openat(store->dir, from.path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || !is_ours(fd, &st) ||
	    (uint64_t)st.st_size < STORE_FILE_MIN)
		return -1;
	claim->at = store_tmp_at(file->id);
	if (renameat(store->dir, from.path, store->dir, claim->at.path) < 0)
		return -1;
	claim->length = (uint64_t)st.st_size / LAYOUT_HUGE * LAYOUT_HUGE;
	claim->recycled = true;
	claim->fd = steal_fd(&fd);
	return 0;
}

/* Best fit; else, for a large image, the largest, to be grown or cut. A small image never takes
 * a file many times its size: the next large dump is the one that gains by it. */
static int choose(const struct pool *pool, uint64_t bytes)
{
	int fit = -1, largest = -1;
	for (int i = 0; i < (int)pool->count; i++) {
		uint64_t size = pool->file[i].size;
		if (size && (largest < 0 || size > pool->file[largest].size))
			largest = i;
		if (size >= bytes && (fit < 0 || size < pool->file[fit].size))
			fit = i;
	}
	if (fit >= 0 && pool->file[fit].size / 4 <= bytes)
		return fit;
	return fit >= 0 && bytes <= 4 * STORE_FILE_MIN ? -1 : largest;
}

static int claim_pooled(struct store *store, uint64_t bytes, struct claim *claim)
{
	struct pool pool = {.count = 0};
	if (store_each(store, STORE_POOL, note_file, &pool, NULL) < 0)
		return -1;
	for (int i; (i = choose(&pool, bytes)) >= 0; pool.file[i].size = 0)
		if (take(store, &pool.file[i], claim) == 0)
			return 0;
	return -1;
}

/* Between creating and locking, pool_adopt() of another process may think the file left over and
 * unlink it, because it is empty: st_nlink tells, and another one is made. */
static int claim_fresh(struct store *store, struct claim *claim, struct fsnap_error *err)
{
	for (int tries = 0; tries < 100; tries++) {
		claim->at = store_tmp_at(store_new_id());
		cleanup_fd int fd = openat(store->dir, claim->at.path,
					   O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0 && errno == EEXIST)
			continue;
		if (fd < 0)
			return store_fail(err, errno, "store %s: creating a file", store->path);
		struct stat st;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &st) < 0 || st.st_nlink == 0)
			continue;
		if (ftruncate(fd, STORE_FILE_MIN) < 0) {
			store_fail(err, errno, "store %s: creating a file", store->path);
			unlinkat(store->dir, claim->at.path, 0);
			return -1;
		}
		claim->length = STORE_FILE_MIN;
		claim->recycled = false;
		claim->fd = steal_fd(&fd);
		return 0;
	}
	return fail(err, FSNAP_E_STORE_IO, EAGAIN, "store %s: creating a file", store->path);
}

int pool_claim(struct store *store, uint64_t bytes, struct claim *claim, struct fsnap_error *err)
{
	if (store->mode != STORE_WRITE)
		return fail(err, FSNAP_E_USAGE, 0, "store %s was opened for reading", store->path);
	if (claim_pooled(store, bytes, claim) == 0)
		return 0;
	return claim_fresh(store, claim, err);
}

static int forget(const struct store *store, const struct pooled *file)
{
	struct store_at at = pooled_at(file);
	return unlinkat(store->dir, at.path, 0);
}

static void keep_bounds(const struct store *store)
{
	struct pool pool = {.count = 0};
	store_each(store, STORE_POOL, note_file, &pool, NULL);
	unsigned small = 0, large;
	for (unsigned i = 0; i < pool.count; i++) {
		if (pool.file[i].size > STORE_FILE_SMALL)
			continue;
		if (++small > STORE_POOL_SMALL)
			forget(store, &pool.file[i]);
		pool.file[i].size = UINT64_MAX;
	}
	for (large = pool.count - small; large > STORE_POOL_FILES; large--) {
		unsigned smallest = 0;
		for (unsigned i = 1; i < pool.count; i++)
			if (pool.file[i].size < pool.file[smallest].size)
				smallest = i;
		forget(store, &pool.file[smallest]);
		pool.file[smallest].size = UINT64_MAX;
	}
}

int pool_give(struct store *store, const struct store_at *at, uint64_t length,
	      struct fsnap_error *err)
{
	struct pooled file = {.size = length, .id = store_new_id()};
	struct store_at to = pooled_at(&file);
	if (renameat(store->dir, at->path, store->dir, to.path) < 0) {
		int sys = errno;
		unlinkat(store->dir, at->path, 0);
		return store_fail(err, sys, "store %s: keeping space for the next dump",
				  store->path);
	}
	keep_bounds(store);
	return 0;
}

/* A writer holds the lock of its file as long as it lives. */
static int adopt(void *arg, const char *name, struct fsnap_error *err)
{
	struct store *store = arg;
	struct store_at at;
	(void)err;
	snprintf(at.path, sizeof(at.path), STORE_TMP "/%.128s", name);
	if (files_adopt(store, &at))
		return 0;
	cleanup_fd int fd = openat(store->dir, at.path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return 0;
	/* One with a second name was about to be replaced (commit.c), and others build on it. */
	bool ours = is_ours(fd, &st), named = !ours && S_ISREG(st.st_mode) && st.st_nlink > 1;
	if (!ours && !named)
		return 0;
	if (named || (uint64_t)st.st_size < STORE_FILE_MIN)
		unlinkat(store->dir, at.path, 0);
	else
		pool_give(store, &at, (uint64_t)st.st_size, NULL);
	return 0;
}

void pool_adopt(struct store *store)
{
	store_each(store, STORE_TMP, adopt, store, NULL);
}

int64_t pool_empty(struct store *store, struct fsnap_error *err)
{
	struct pool pool = {.count = 0};
	int64_t bytes = 0;
	if (store_each(store, STORE_POOL, note_file, &pool, err) < 0)
		return -1;
	for (unsigned i = 0; i < pool.count; i++) {
		struct store_at at = pooled_at(&pool.file[i]);
		struct stat st;
		if (fstatat(store->dir, at.path, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue; /* claimed meanwhile */
		if (forget(store, &pool.file[i]) == 0)
			bytes += (int64_t)st.st_blocks * 512;
		else if (errno != ENOENT) /* what was freed stays freed; the caller hears of the rest */
			return store_fail(err, errno, "store %s: emptying the pool", store->path);
	}
	return bytes;
}
