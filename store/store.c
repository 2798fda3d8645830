/* store.c - the directory: opening it, names and paths below it, what errno means for it. */
#define _GNU_SOURCE
#include "store/store.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "store/internal.h"
#include "store/scope.h"

/* --- errors ------------------------------------------------------------------------ */

static const struct {
	int sys;
	int code;
	const char *hint;
} meanings[] = {
	{ENOSPC, FSNAP_E_STORE_FULL, "free space there (`fsnap rm NAME`, `fsnap rm --trim`), or use another store"},
	{EDQUOT, FSNAP_E_STORE_FULL, "the disk quota is used up: remove images, or use another store"},
	{EFBIG, FSNAP_E_STORE_FULL, "the file system or a limit (ulimit -f) forbids files this long"},
	{EROFS, FSNAP_E_STORE_READONLY, "use a store on a file system that is mounted writable"},
	{EACCES, FSNAP_E_STORE_READONLY, "use a store that you own, or run as its owner"},
	{EPERM, FSNAP_E_STORE_READONLY, "use a store that you own, or run as its owner"},
	{ENOENT, FSNAP_E_STORE_MISSING, "create the store's directory, or name another"},
	{ENOTDIR, FSNAP_E_STORE_MISSING, "the store must be a directory: name another"},
	{ENOMEM, FSNAP_E_NOMEM, "free memory, or remove images if the store is in memory"},
};

int store_fail(struct fsnap_error *err, int sys, const char *format, ...)
{
	char what[512];
	va_list args;
	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++) {
		if (meanings[i].sys != sys || error_is_set(err))
			continue;
		fail(err, meanings[i].code, sys, "%s", what);
		return error_hint(err, "%s", meanings[i].hint);
	}
	return fail(err, FSNAP_E_STORE_IO, sys, "%s", what);
}

/* --- names -------------------------------------------------------------------------- */

int store_check_name(const char *name, struct fsnap_error *err)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				      "0123456789._-";
	size_t length = strlen(name);
	if (length >= 1 && length <= 127 && strspn(name, allowed) == length && name[0] != '.' &&
	    name[0] != '-')
		return 0;
	fail(err, FSNAP_E_BAD_NAME, 0, "'%.140s' is not a usable image name", name);
	return error_hint(err, "use 1 to 127 of A-Z a-z 0-9 . _ - and begin with a letter, digit or _");
}

struct store_at store_image_at(const char *name)
{
	struct store_at at;
	snprintf(at.path, sizeof(at.path), STORE_IMAGES "/%.127s" STORE_SUFFIX, name);
	return at;
}

struct store_at store_tmp_at(uint64_t id)
{
	struct store_at at;
	snprintf(at.path, sizeof(at.path), STORE_TMP "/%016" PRIx64, id);
	return at;
}

uint64_t store_new_id(void)
{
	uint64_t id;
	if (getrandom(&id, sizeof(id), GRND_NONBLOCK) != sizeof(id)) {
		struct timespec now; /* names only: O_EXCL finds the collision */
		clock_gettime(CLOCK_MONOTONIC, &now);
		id = (uint64_t)now.tv_nsec << 32 ^ (uint64_t)now.tv_sec ^ (uint64_t)getpid() << 16;
	}
	return id;
}

/* --- the directory -------------------------------------------------------------------- */

/* Missing parents get the usual mode; the store itself is private: images hold secrets. */
static int make_directory(const char *path, struct fsnap_error *err)
{
	cleanup_free char *parent = strdup(path);
	if (!parent)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "store %s", path);
	for (char *slash = parent + 1; *parent && (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		mkdir(parent, 0755); /* what is wrong shows at the last one */
		*slash = '/';
	}
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return store_fail(err, errno, "store %s: creating the directory", path);
	return 0;
}

static const char *const parts[] = {STORE_IMAGES, STORE_POOL, STORE_TMP, STORE_ANCESTORS};
#define PARTS (sizeof(parts) / sizeof(parts[0]))

static int make_parts(const struct store *store, struct fsnap_error *err)
{
	for (size_t i = 0; i < PARTS; i++)
		if (mkdirat(store->dir, parts[i], 0700) < 0 && errno != EEXIST)
			return store_fail(err, errno, "store %s: creating %s", store->path,
					  parts[i]);
	return 0;
}

static int refuse_directory(const struct store *store, const char *part, const char *why, struct fsnap_error *err)
{
	fail(err, FSNAP_E_IMAGE_OWNER, 0, "store %s%s%s: %s", store->path, *part ? "/" : "", part, why);
	return error_hint(err, "images hold secrets, and restoring them runs them: keep them in a directory of your own, "
			       "with mode 0700");
}

/* Who may change a directory decides what is in it. In one that is sticky, as /tmp is, everybody has his own. */
static int check_directory(const struct store *store, const char *part, const struct stat *st, struct fsnap_error *err)
{
	if (!S_ISDIR(st->st_mode))
		return refuse_directory(store, part, "not a directory", err);
	if (st->st_uid != geteuid() && st->st_uid != 0)
		return refuse_directory(store, part, "it belongs to another user", err);
	if (st->st_mode & 022 && (*part || !(st->st_mode & S_ISVTX)))
		return refuse_directory(store, part, "others than its owner may write to it", err);
	return 0;
}

static int check_owners(const struct store *store, struct fsnap_error *err)
{
	struct stat st;
	if (fstat(store->dir, &st) < 0)
		return store_fail(err, errno, "store %s", store->path);
	if (check_directory(store, "", &st, err) < 0)
		return -1;
	for (size_t i = 0; i < PARTS; i++)
		if (fstatat(store->dir, parts[i], &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    check_directory(store, parts[i], &st, err) < 0)
			return -1;
	return 0;
}

static int open_directory(struct store *store, struct fsnap_error *err)
{
	int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
	store->dir = open(store->path, flags);
	if (store->dir < 0 && errno == ENOENT && store->mode == STORE_WRITE) {
		if (make_directory(store->path, err) < 0)
			return -1;
		store->dir = open(store->path, flags);
	}
	if (store->dir < 0)
		return store_fail(err, errno, "store %s", store->path);

	struct statfs fs;
	if (fstatfs(store->dir, &fs) < 0)
		return store_fail(err, errno, "store %s", store->path);
	store->in_memory = fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
	if (store->mode == STORE_READ)
		return 0;
	if (check_owners(store, err) < 0)
		return -1;
	if (faccessat(store->dir, STORE_TMP, W_OK, AT_EACCESS) == 0)
		return 0;
	if (errno == ENOENT)
		return make_parts(store, err);
	return store_fail(err, errno, "store %s", store->path);
}

struct store *store_open(const char *dir, enum store_mode mode, struct fsnap_error *err)
{
	struct store *store = calloc(1, sizeof(*store));
	if (store)
		store->path = strdup(dir);
	if (!store || !store->path) {
		free(store);
		fail(err, FSNAP_E_NOMEM, ENOMEM, "store %s", dir);
		return NULL;
	}
	store->mode = mode;
	store->dir = -1;
	if (open_directory(store, err) < 0) {
		store_close(store);
		return NULL;
	}
	if (mode == STORE_WRITE)
		pool_adopt(store);
	return store;
}

void store_close(struct store *store)
{
	if (!store)
		return;
	scope_close(&store->dir);
	keyring_free(&store->keys);
	free(store->path);
	free(store);
}

int store_set_key(struct store *store, const char *source, struct fsnap_error *err)
{
	keyring_free(&store->keys);
	if (source && !(store->keys.source = strdup(source)))
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "store %s", store->path);
	return 0;
}

void store_borrow_key(struct store *store, struct store *from)
{
	keyring_free(&store->keys);
	store->keys.lender = &from->keys;
}

const char *store_path(const struct store *store)
{
	return store->path;
}

int store_sync_dir(const struct store *store, const char *dir, struct fsnap_error *err)
{
	if (store->in_memory)
		return 0;
	cleanup_fd int fd = openat(store->dir, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return store_fail(err, errno, "store %s: %s", store->path, dir);
	return 0;
}

int store_each(const struct store *store, const char *dir,
	       int (*fn)(void *arg, const char *name, struct fsnap_error *err), void *arg,
	       struct fsnap_error *err)
{
	int fd = openat(store->dir, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return 0;
	cleanup_dir DIR *list = fd < 0 ? NULL : fdopendir(fd);
	if (!list) {
		int sys = errno;
		scope_close(&fd);
		return store_fail(err, sys, "store %s: %s", store->path, dir);
	}
	struct dirent *entry;
	while ((errno = 0, entry = readdir(list))) {
		if (entry->d_name[0] != '.' && fn(arg, entry->d_name, err) < 0)
			return -1;
	}
	return errno ? store_fail(err, errno, "store %s: %s", store->path, dir) : 0;
}
