#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/restore.h"
#include "engine/steadfast.h"
#include "store/scope.h"

/* Shared anonymous memory is a file of the kernel's own. Getting at it as one needs
 * /proc/self/map_files; a memfd behaves the same but for its name in /proc/PID/maps. */
static int make_shared(const image_ghost *ghost)
{
	unsigned huge = ghost->huge ? MAP_HUGETLB | MAP_NORESERVE | (ghost_huge_flags(ghost) & ~MFD_HUGETLB) : 0;
	void *map = mmap(NULL, ghost->size, PROT_READ | PROT_WRITE, (int)(MAP_SHARED | MAP_ANONYMOUS | huge), -1, 0);
	if (map == MAP_FAILED)
		return -1;
	char path[96];
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)map,
		 (unsigned long)map + (ghost->size + STORE_PAGE - 1) / STORE_PAGE * STORE_PAGE);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	munmap(map, ghost->size);
	return fd >= 0 ? fd : memfd_create("zero", MFD_CLOEXEC | ghost_huge_flags(ghost));
}

/* A name beside the one it had, which somebody else has now; the caller frees it. */
static char *name_beside(const char *name)
{
	char *path = malloc(strlen(name) + sizeof(".XXXXXX"));
	if (path)
		strcat(strcpy(path, name), ".XXXXXX");
	return path;
}

/* A file without a name where it once had one, so that it is called the same; if somebody else has
 * that name now, beside it; elsewhere if the directory is gone. */
static int make_deleted(const image_ghost *ghost)
{
	int fd = open(ghost->name, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		unlink(ghost->name);
	cleanup_free char *path = fd < 0 ? name_beside(ghost->name) : NULL;
	if (path && (fd = mkostemp(path, O_CLOEXEC)) >= 0)
		unlink(path);
	/* Huge pages are to be had on hugetlbfs only. */
	if (fd >= 0 && ghost->huge && !ghost_is_huge(ghost, fd)) {
		close(fd);
		fd = -1;
	}
	if (fd < 0 && !ghost->huge)
		fd = open("/tmp", O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	return fd < 0 ? memfd_create("deleted", MFD_CLOEXEC | ghost_huge_flags(ghost)) : fd;
}

/* Never had a name, and can be given one. What open() returns here is the program's own description;
 * how it writes is set later. */
static int make_linkable(const image_ghost *ghost)
{
	cleanup_free char *path = strdup(ghost->name);
	int flags = (int)(ghost->open_flags & ~(unsigned)(O_DIRECT | O_APPEND | O_ASYNC)) | O_TMPFILE | O_CLOEXEC;
	return path ? open(dirname(path), flags, 0600) : -1;
}

/* A removed directory is in the one it was in, or, if that is gone, too, in the nearest there is. */
static int make_directory(struct restore *restore, const image_ghost *ghost)
{
	char path[IMAGE_NAME + 16];
	cleanup_free char *copy = strdup(ghost->name);
	snprintf(path, sizeof(path), "%s", ghost->name);
	bool made = copy && mkdir(path, 0700) == 0;
	const char *name = strrchr(path, '/');
	cleanup_free char *base = strdup(name ? name : path);
	for (char *above = copy; !made && above && base;) {
		bool top = strcmp(above = dirname(above), "/") == 0;
		if (above == copy && above[0] != '/')
			return -1;
		snprintf(path, sizeof(path), "%s%s.XXXXXX", top ? "" : above, base);
		made = mkdtemp(path);
		if (made || top || (errno != ENOENT && errno != ENOTDIR))
			break;
	}
	if (!made)
		return -1;
	if (strncmp(path, ghost->name, strlen(ghost->name)) != 0)
		restore_note(restore, "%s, which had been removed, is now a removed directory %s", ghost->name, path);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	rmdir(path);
	return fd;
}

/* Only root may give files away; then the owner is the restoring user. */
static void own(const image_ghost *ghost, int fd)
{
	if (fchown(fd, ghost->uid, ghost->gid) == 0 || geteuid() == ghost->uid)
		fchmod(fd, ghost->mode & 07777);
}

static int cannot_fill(const image_ghost *ghost, const char *what, struct fsnap_error *err)
{
	int sys = errno;
	fail(err, FSNAP_E_SYSTEM, sys, "%s: %s", ghost->name, what);
	return sys == EFBIG ? error_hint(err, "raise the limit on the size of files: ulimit -f") : -1;
}

static int fill(struct restore *restore, const image_ghost *ghost, int fd, struct fsnap_error *err)
{
	size_t n;
	const struct page_run *runs = image_runs(restore->image, ghost->id, &n);
	for (size_t i = 0; i < n; i++) {
		const char *from = image_bytes(restore->image, runs[i].at, runs[i].npages, err);
		if (!from)
			return -1;
		size_t size = (size_t)runs[i].npages * STORE_PAGE, done = 0;
		while (done < size) {
			ssize_t now = pwrite(fd, from + done, size - done,
					     (off_t)(runs[i].page * STORE_PAGE + done));
			if (now < 0)
				return cannot_fill(ghost, "putting its content back", err);
			done += (size_t)now;
		}
	}
	/* The last page is stored whole; a shared mapping is not resizable and already right. */
	if (ftruncate(fd, (off_t)ghost->size) < 0)
		return cannot_fill(ghost, "its size", err);
	return 0;
}

/* A program's own file (PR_SET_MM_MAP) must not be open for writing anywhere. */
static int reopen(int *fd, struct fsnap_error *err)
{
	char path[32];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", *fd);
	int again = open(path, O_RDONLY | O_CLOEXEC);
	if (again < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "opening a deleted file again");
	close(*fd);
	*fd = again;
	return 0;
}

struct making {
	struct restore *restore;
	const image_ghost *ghost;
};

/* Steadfast: if we were killed between giving a name and taking it back, it would stay. */
static int make_named(void *arg)
{
	const struct making *making = arg;
	return making->ghost->kind == GHOST_DIRECTORY ? make_directory(making->restore, making->ghost) :
							make_deleted(making->ghost);
}

static int make(struct restore *restore, const image_ghost *ghost)
{
	struct making making = { restore, ghost };
	switch (ghost->kind) {
	case GHOST_SHARED:
		return make_shared(ghost);
	case GHOST_MEMFD:
		return ghost_make_memfd(ghost);
	}
	int fd = ghost->open_flags && ghost->kind != GHOST_DIRECTORY ? make_linkable(ghost) : -1;
	return fd < 0 ? steadfast(make_named, &making, NULL) : fd;
}

/* Not of memory: there nobody looks, and shared memory is not a file to its program. */
static void set_times(const image_ghost *ghost, int fd)
{
	struct timespec times[2] = {
		{ .tv_nsec = UTIME_OMIT },
		{ .tv_sec = ghost->mtime_ns / 1000000000, .tv_nsec = ghost->mtime_ns % 1000000000 },
	};
	if (ghost->kind != GHOST_SHARED && ghost->mtime_ns >= 0)
		futimens(fd, times);
}

int ghost_make(struct restore *restore, unsigned id, struct fsnap_error *err)
{
	const image_ghost *ghost = model_ghost(&restore->model, id);
	if (!ghost) /* the model does not know what is in the states of files */
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "the image lacks the content of deleted file %u", id);
	if (restore->ghost_fd[id] >= 0 || restore->ghost_place[id].shelf)
		return 0;
	if (restore->explaining) {
		restore->ghost_fd[id] = workshop_pretend(restore);
		return 0;
	}
	cleanup_fd int fd = make(restore, ghost);
	if (fd < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "%s: cannot be made anew", ghost->name);
	if (ghost->kind == GHOST_DELETED || ghost->kind == GHOST_DIRECTORY)
		own(ghost, fd);
	if (ghost->kind != GHOST_DIRECTORY &&
	    (ghost->huge ? ghost_fill_huge(restore, ghost, fd, err) : fill(restore, ghost, fd, err)) < 0)
		return -1;
	set_times(ghost, fd);
	if (ghost_seal_early(ghost, fd, err) < 0)
		return -1;
	if (ghost->open_flags && (fcntl(fd, F_GETFL) & O_TMPFILE) == O_TMPFILE)
		restore->linkable_fd[id] = fcntl(fd, F_DUPFD_CLOEXEC, restore->shelves.needed ? 3 : restore->bench);
	if (ghost->kind == GHOST_DELETED && reopen(&fd, err) < 0)
		return error_context(err, "%s", ghost->name);
	/* Only what tasks inherit must be on the bench. */
	bool passing = ghost->kind == GHOST_DELETED || ghost->kind == GHOST_DIRECTORY;
	restore->ghost_fd[id] = passing ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : workshop_keep(restore, steal_fd(&fd), err);
	if (restore->ghost_fd[id] < 0)
		return error_is_set(err) ? -1 : fail(err, FSNAP_E_SYSTEM, errno, "%s", ghost->name);
	restore->shelves.loose += passing;
	return 0;
}
