/*
 * files.c - directory trees that belong to an image: a directory beside it, images/NAME.files.
 *
 * It is written as tmp/ID.files, locked as the writer's other file is, made durable with the image, and gets its
 * name just before the image gets its own. A directory without an image is what a crash between these two steps
 * leaves: whoever wants the name, or trims the store, removes it. The image says by an ID which trees are its own.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>

#include "store/scope.h"
#include "store/writer.h"

#define FILES_SUFFIX ".files"

static struct store_at files_at(const char *name)
{
	struct store_at at;
	snprintf(at.path, sizeof(at.path), STORE_IMAGES "/%.127s" FILES_SUFFIX, name);
	return at;
}

/* --- removing ------------------------------------------------------------------------------- */

static int open_to_empty(int dir, const char *name)
{
	int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(dir, name, flags);

	/* A copy of somebody's read-only directory is as closed to its owner. */
	if (fd < 0 && errno == EACCES && fchmodat(dir, name, 0700, 0) == 0)
		fd = openat(dir, name, flags);
	if (fd >= 0)
		fchmod(fd, 0700);
	return fd;
}

int store_remove_tree(int dir, const char *name)
{
	if (unlinkat(dir, name, 0) == 0)
		return 0;
	if (errno != EISDIR && errno != EPERM && errno != ENOTEMPTY)
		return -1;
	int fd = open_to_empty(dir, name);
	cleanup_dir DIR *list = fd >= 0 ? fdopendir(fd) : NULL;
	if (!list)
		return -1;
	for (struct dirent *entry; (entry = readdir(list));)
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			store_remove_tree(fd, entry->d_name); /* what stays shows at the end */
	return unlinkat(dir, name, AT_REMOVEDIR);
}

/* Out of the way first, in one step: a name in images/ never leads to half a tree. */
static void remove_named(struct store *store, const struct store_at *at)
{
	struct store_at tmp = store_tmp_at(store_new_id());

	if (renameat(store->dir, at->path, store->dir, tmp.path) == 0)
		store_remove_tree(store->dir, tmp.path);
}

void files_remove(struct store *store, const char *image)
{
	struct store_at at = files_at(image);

	remove_named(store, &at);
}

/* Left by a writer that died: nobody holds its lock, and no image has its name. */
static int remove_orphan(void *arg, const char *name, struct fsnap_error *err)
{
	struct store *store = arg;
	size_t length = strlen(name), suffix = strlen(FILES_SUFFIX);
	char image[128];
	struct stat st;
	(void)err;

	if (length <= suffix || strcmp(name + length - suffix, FILES_SUFFIX) != 0 || length - suffix >= sizeof(image))
		return 0;
	snprintf(image, sizeof(image), "%.*s", (int)(length - suffix), name);
	struct store_at at = files_at(image), owner = store_image_at(image);
	cleanup_fd int fd = openat(store->dir, at.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 &&
	    fstatat(store->dir, owner.path, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
		remove_named(store, &at);
	return 0;
}

void files_trim(struct store *store)
{
	store_each(store, STORE_IMAGES, remove_orphan, store, NULL);
}

bool files_adopt(struct store *store, const struct store_at *at)
{
	cleanup_fd int fd = openat(store->dir, at->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return errno == EACCES;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		store_remove_tree(store->dir, at->path);
	return true;
}

/* --- writing --------------------------------------------------------------------------------- */

/* Makes and locks it. Until it is locked, another process may think it left over, and remove it: then -1. */
static int claim_files(struct image_writer *writer, const char *id)
{
	struct store *store = writer->store;

	if (mkdirat(store->dir, writer->files_at.path, 0700) < 0)
		return -1;
	cleanup_fd int fd = openat(store->dir, writer->files_at.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || mkdirat(fd, id, 0700) < 0)
		return -1;
	writer->files = steal_fd(&fd);
	return 0;
}

int image_writer_trees(struct image_writer *writer, char id[STORE_FILES_ID], struct fsnap_error *err)
{
	struct store *store = writer->store;

	for (int tries = 0; writer->files < 0; tries++) {
		uint64_t number = store_new_id();
		snprintf(id, STORE_FILES_ID, "%016" PRIx64, number);
		writer->files_at = store_tmp_at(number);
		if (claim_files(writer, id) < 0 && tries == 10)
			return store_fail(err, errno, "store %s: creating a directory", store->path);
	}
	int inner = openat(writer->files, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return inner >= 0 ? inner : store_fail(err, errno, "store %s: creating a directory", store->path);
}

int files_seal(struct image_writer *writer, struct fsnap_error *err)
{
	if (writer->files < 0 || writer->store->in_memory)
		return 0;
	return syncfs(writer->files) == 0 ? 0 : store_fail(err, errno, "image %s: its files", writer->name);
}

int files_publish(struct image_writer *writer, struct fsnap_error *err)
{
	struct store *store = writer->store;
	struct store_at at = files_at(writer->name);

	if (writer->files < 0)
		return 0;
	for (int tries = 0; tries < 2; tries++) {
		if (renameat2(store->dir, writer->files_at.path, store->dir, at.path, RENAME_NOREPLACE) == 0) {
			writer->files_at = at;
			return 0;
		}
		if (errno != EEXIST)
			break;
		if (writer_name_is_free(writer, err) < 0)
			return -1;
		files_trim(store);
		errno = EEXIST;
	}
	return store_fail(err, errno, "image %s: naming its files", writer->name);
}

void files_abort(struct image_writer *writer)
{
	if (writer->files >= 0)
		remove_named(writer->store, &writer->files_at);
}

/* --- reading --------------------------------------------------------------------------------- */

static int refuse(struct fsnap_error *err, const char *image, const char *why)
{
	fail(err, FSNAP_E_IMAGE_OWNER, 0, "image %s: the directory of its files %s", image, why);
	return error_hint(err, "copy it as your own, with mode 0700, if you trust it");
}

int image_trees(const struct store *store, const struct image *image, const char *id, struct fsnap_error *err)
{
	const char *name = image_name(image);
	struct store_at in_store = files_at(name);
	char beside[4096];
	int dir = store ? store->dir : AT_FDCWD;
	const char *path = in_store.path;
	struct stat st;

	if (strchr(name, '/')) {
		size_t length = strlen(name), suffix = strlen(STORE_SUFFIX);
		if (length > suffix && strcmp(name + length - suffix, STORE_SUFFIX) == 0)
			length -= suffix;
		snprintf(beside, sizeof(beside), "%.*s" FILES_SUFFIX, (int)length, name);
		dir = AT_FDCWD;
		path = beside;
	}
	cleanup_fd int outer = openat(dir, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (outer < 0) {
		fail(err, FSNAP_E_IMAGE_MISSING, errno, "image %s: the files that belong to it, %s", name, path);
		return error_hint(err, "the directory %s goes with the image: copy both", path);
	}
	if (fstat(outer, &st) < 0)
		return store_fail(err, errno, "image %s: its files", name);
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return refuse(err, name, "belongs to somebody else");
	if (st.st_mode & 022)
		return refuse(err, name, "can be written by others");
	int inner = openat(outer, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (inner < 0)
		return fail(err, FSNAP_E_IMAGE_MISSING, errno, "image %s: %s has not the files that belong to it", name,
			    path);
	return inner;
}
