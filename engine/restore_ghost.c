#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/restore.h"
#include "store/scope.h"

/* Shared anonymous memory is a file of the kernel's own. Getting at it as one needs
 * /proc/self/map_files; a memfd behaves the same but for its name in /proc/PID/maps. */
static int make_shared(uint64_t size)
{
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		return -1;
	char path[96];
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)map,
		 (unsigned long)map + (size + STORE_PAGE - 1) / STORE_PAGE * STORE_PAGE);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	munmap(map, size);
	return fd >= 0 ? fd : memfd_create("zero", MFD_CLOEXEC);
}

/* A file without a name where it once had one, so that it is called the same; if somebody else has
 * that name now, without any; elsewhere if the directory is gone. */
static int make_deleted(const image_ghost *ghost)
{
	cleanup_free char *path = strdup(ghost->name);
	int fd = open(ghost->name, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		unlink(ghost->name);
	else if (path)
		fd = open(dirname(path), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		fd = memfd_create("deleted", MFD_CLOEXEC);
	/* Only root may give files away; then the owner is the restoring user. */
	if (fd >= 0 && (fchown(fd, ghost->uid, ghost->gid) == 0 || geteuid() == ghost->uid))
		fchmod(fd, ghost->mode & 07777);
	return fd;
}

static int make_memfd(const image_ghost *ghost)
{
	const char *name = strncmp(ghost->name, "memfd:", 6) == 0 ? ghost->name + 6 : ghost->name;
	return memfd_create(name, MFD_CLOEXEC | (ghost->seals & F_SEAL_SEAL ? 0 : MFD_ALLOW_SEALING));
}

static int fill(struct restore *restore, const image_ghost *ghost, int fd, struct fsnap_error *err)
{
	size_t n;
	const struct page_run *runs = image_runs(restore->image, ghost->id, &n);
	for (size_t i = 0; i < n; i++) {
		const char *from = image_page(restore->image, runs[i].at);
		size_t size = (size_t)runs[i].npages * STORE_PAGE, done = 0;
		while (done < size) {
			ssize_t now = pwrite(fd, from + done, size - done,
					     (off_t)(runs[i].page * STORE_PAGE + done));
			if (now < 0)
				return fail(err, FSNAP_E_SYSTEM, errno, "%s: putting its content back",
					    ghost->name);
			done += (size_t)now;
		}
	}
	/* The last page is stored whole; a shared mapping is not resizable and already right. */
	if (ftruncate(fd, (off_t)ghost->size) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "%s: its size", ghost->name);
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

int ghost_make(struct restore *restore, unsigned id, struct fsnap_error *err)
{
	const image_ghost *ghost = model_ghost(&restore->model, id);
	if (!ghost) /* the model does not know what is in the states of files */
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "the image lacks the content of deleted file %u", id);
	if (restore->ghost_fd[id] >= 0)
		return 0;
	cleanup_fd int fd = ghost->kind == 1 ? make_shared(ghost->size) :
			    ghost->kind == 3 ? make_memfd(ghost) : make_deleted(ghost);
	if (fd < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "%s: cannot be made anew", ghost->name);
	if (fill(restore, ghost, fd, err) < 0)
		return -1;
	if (ghost->kind == 3 && ghost->seals && fcntl(fd, F_ADD_SEALS, ghost->seals) < 0 && errno != EPERM)
		return fail(err, FSNAP_E_SYSTEM, errno, "%s: seals", ghost->name);
	if (ghost->kind == 2 && reopen(&fd, err) < 0)
		return error_context(err, "%s", ghost->name);
	restore->ghost_fd[id] = workshop_keep(restore, steal_fd(&fd), err);
	return restore->ghost_fd[id] < 0 ? -1 : 0;
}
