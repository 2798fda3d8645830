#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "engine/dump.h"
#include "engine/procfs.h"
#include "store/scope.h"

#ifndef F_GET_SEALS
#define F_GET_SEALS 1034
#endif

#define RUN_MAX (1u << 31) /* pages: a run counts them in 32 bits */

void *grow(void *array, size_t count, size_t size, struct fsnap_error *err)
{
	if (count & (count - 1))
		return array;
	void *more = realloc(array, (count ? 2 * count : 1) * size);
	if (!more)
		fail(err, FSNAP_E_NOMEM, ENOMEM, "collecting state");
	return more;
}

/* Inode numbers of System V segments are their own (ipc/shm.c, newseg() names them by id), on the file
 * system that holds other nameless memory too. */
static size_t look_up(const struct dump *dump, uint64_t dev, uint64_t ino, unsigned kind)
{
	return index_find(&dump->ghost_index[kind == GHOST_SYSV], dev, ino);
}

unsigned ghost_find(const struct dump *dump, uint64_t dev, uint64_t ino)
{
	size_t known = look_up(dump, dev, ino, GHOST_SHARED);
	return known == INDEX_NONE ? 0 : dump->ghosts[known].id;
}

static int note_range(struct dump *dump, unsigned space, int fd, off_t start, off_t end,
		      struct fsnap_error *err)
{
	uint64_t page = (uint64_t)start / STORE_PAGE;
	uint64_t n = ((uint64_t)end + STORE_PAGE - 1) / STORE_PAGE - page;
	struct ghost_copy *copies = grow(dump->ghost_copies, dump->n_ghost_copies, sizeof(*copies), err);
	if (!copies)
		return -1;
	dump->ghost_copies = copies;
	dump->repeats.likely = true;
	uint64_t at = pages_take(dump, n);
	dump->repeats.likely = false;
	copies[dump->n_ghost_copies++] = (struct ghost_copy){ fd, page, at, n };
	for (uint64_t done = 0, now; done < n; done += now) {
		now = n - done < RUN_MAX ? n - done : RUN_MAX;
		struct page_run run = { .page = page + done, .at = at + done, .npages = (uint32_t)now,
					.space = space };
		if (pages_add_run(dump, &run, err) < 0)
			return -1;
	}
	return 0;
}

/* Only what is not a hole; a file system that knows no holes says it is all data. */
static int note_content(struct dump *dump, const image_ghost *ghost, int fd, struct fsnap_error *err)
{
	for (off_t at = 0; at < (off_t)ghost->size;) {
		off_t data = lseek(fd, at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			return 0;
		if (data < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "%s: looking for its content", ghost->name);
		off_t hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "%s: looking for its content", ghost->name);
		if (note_range(dump, ghost->id, fd, data, hole, err) < 0)
			return -1;
		at = hole;
	}
	return 0;
}

static bool is_zero(const char *bytes, size_t n)
{
	return n == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0);
}

/* hugetlbfs tells holes by nothing but their number. Where there are any, pages of zeroes are taken for some:
 * a program cannot tell, for it finds zeroes in both. */
static int note_huge_content(struct dump *dump, const image_ghost *ghost, int fd, uint64_t blocks,
			     struct fsnap_error *err)
{
	if (blocks * 512 >= ghost->size)
		return ghost->size ? note_range(dump, ghost->id, fd, 0, (off_t)ghost->size, err) : 0;
	cleanup_free char *page = blocks ? malloc(ghost->huge) : NULL;
	if (blocks && !page)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "%s: looking for its content", ghost->name);
	for (uint64_t at = 0; blocks && at < ghost->size; at += ghost->huge) {
		ssize_t n = pread(fd, page, ghost->huge, (off_t)at);
		if (n < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "%s: looking for its content", ghost->name);
		if (!is_zero(page, (size_t)n) &&
		    note_range(dump, ghost->id, fd, (off_t)at, (off_t)(at + ghost->huge), err) < 0)
			return -1;
	}
	return 0;
}

/* Its pages are of the size that their file system calls that of its blocks; 0: of the usual size. */
static uint64_t huge_page_size(int fd)
{
	struct statfs fs;
	return fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : 0;
}

unsigned ghost_save(struct dump *dump, int fd, unsigned kind, const char *name, struct fsnap_error *err)
{
	struct stat stat;
	if (fstat(fd, &stat) < 0) {
		fail(err, FSNAP_E_SYSTEM, errno, "%s", name);
		return 0;
	}
	size_t known = look_up(dump, stat.st_dev, stat.st_ino, kind);
	if (known != INDEX_NONE)
		return dump->ghosts[known].id;
	/* A description of our own: the offset of the target's must not move, and O_PATH cannot read. */
	char path[32];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	cleanup_fd int own = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (own < 0) {
		fail(err, procfs_code(errno), errno, "%s: its content cannot be read", name);
		return 0;
	}
	image_ghost *ghosts = grow(dump->ghosts, dump->n_ghosts, sizeof(*ghosts), err);
	int *fds = ghosts ? grow(dump->ghost_fds, dump->n_ghost_fds, sizeof(*fds), err) : NULL;
	if (ghosts)
		dump->ghosts = ghosts;
	if (!fds)
		return 0;
	dump->ghost_fds = fds;
	int seals = fcntl(own, F_GET_SEALS);
	image_ghost *ghost = &ghosts[dump->n_ghosts];
	*ghost = (image_ghost){
		.id = ++dump->next_space, .name = strdup(name), .kind = kind,
		.size = (uint64_t)stat.st_size, .mode = stat.st_mode, .uid = stat.st_uid,
		.gid = stat.st_gid, .seals = seals < 0 ? 0 : (unsigned)seals, .dev = stat.st_dev,
		.ino = stat.st_ino, .mtime_ns = stat.st_mtim.tv_sec * 1000000000ll + stat.st_mtim.tv_nsec,
		.huge = huge_page_size(own),
	};
	if (!ghost->name) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "%s", name);
		return 0;
	}
	if (index_add(&dump->ghost_index[kind == GHOST_SYSV], stat.st_dev, stat.st_ino, dump->n_ghosts++, err) < 0)
		return 0;
	dump->ghost_fds[dump->n_ghost_fds++] = steal_fd(&own);
	return ghost->id;
}

void ghost_linkable(struct dump *dump, unsigned id, unsigned flags)
{
	for (size_t i = dump->n_ghosts; i-- > 0;)
		if (dump->ghosts[i].id == id) {
			dump->ghosts[i].open_flags = flags;
			return;
		}
}

int ghost_settle(struct dump *dump, struct fsnap_error *err)
{
	for (size_t i = 0; i < dump->n_ghosts; i++) {
		struct stat stat;
		if (fstat(dump->ghost_fds[i], &stat) < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "%s", dump->ghosts[i].name);
		if (dump->ghosts[i].kind == GHOST_DIRECTORY)
			continue;
		dump->ghosts[i].size = (uint64_t)stat.st_size;
		if ((dump->ghosts[i].huge ? note_huge_content(dump, &dump->ghosts[i], dump->ghost_fds[i],
							      (uint64_t)stat.st_blocks, err) :
					    note_content(dump, &dump->ghosts[i], dump->ghost_fds[i], err)) < 0)
			return -1;
	}
	return 0;
}

int ghost_copy_all(struct dump *dump, struct fsnap_error *err)
{
	for (size_t i = 0; i < dump->n_ghost_copies; i++) {
		const struct ghost_copy *copy = &dump->ghost_copies[i];
		char *to = image_writer_page(dump->writer, copy->at);
		size_t size = copy->npages * STORE_PAGE, done = 0;
		while (done < size) {
			ssize_t n = pread(copy->fd, to + done, size - done,
					  (off_t)(copy->page * STORE_PAGE + done));
			if (n < 0)
				return fail(err, FSNAP_E_SYSTEM, errno, "reading a file without a name");
			if (n == 0)
				break;
			done += (size_t)n;
		}
		memset(to + done, 0, size - done); /* behind its end; the space may be recycled */
	}
	return 0;
}

void ghost_free(struct dump *dump)
{
	for (size_t i = 0; i < dump->n_ghosts; i++)
		free(dump->ghosts[i].name);
	for (size_t i = 0; i < dump->n_ghost_fds; i++)
		close(dump->ghost_fds[i]);
	free(dump->ghosts);
	index_free(&dump->ghost_index[0]);
	index_free(&dump->ghost_index[1]);
	free(dump->ghost_fds);
	free(dump->ghost_copies);
}
