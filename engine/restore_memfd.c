/*
 * restore_memfd.c - files that never had a name, made anew: memfds with their seals, and
 * whatever lies in huge pages (hugetlbfs), which cannot be written but only mapped.
 */
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "engine/restore.h"
#include "store/scope.h"

#ifndef MFD_NOEXEC_SEAL /* Linux 6.3 */
#define MFD_NOEXEC_SEAL 0x08u
#define MFD_EXEC 0x10u
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif

unsigned ghost_huge_flags(const image_ghost *ghost)
{
	return ghost->huge ? MFD_HUGETLB | (unsigned)__builtin_ctzll(ghost->huge) << MAP_HUGE_SHIFT : 0;
}

bool ghost_is_huge(const image_ghost *ghost, int fd)
{
	struct statfs fs;
	return fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC && (uint64_t)fs.f_bsize == ghost->huge;
}

/* One made without MFD_ALLOW_SEALING is sealed against seals, and against nothing else. */
int ghost_make_memfd(const image_ghost *ghost)
{
	const char *name = strncmp(ghost->name, "memfd:", 6) == 0 ? ghost->name + 6 : ghost->name;
	unsigned flags = MFD_CLOEXEC | (ghost->seals == F_SEAL_SEAL ? 0 : MFD_ALLOW_SEALING) | ghost_huge_flags(ghost);
	bool never_runs = ghost->seals & F_SEAL_EXEC && !(ghost->mode & 0111);
	int fd = memfd_create(name, flags | (never_runs ? MFD_NOEXEC_SEAL : MFD_EXEC));
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, flags); /* before Linux 6.3 */
	/* Only root may give files away; then the owner is the restoring user. */
	if (fd >= 0 && (fchown(fd, ghost->uid, ghost->gid) == 0 || geteuid() == ghost->uid) && !never_runs)
		fchmod(fd, ghost->mode & 07777);
	return fd;
}

/* --- seals ------------------------------------------------------------------------ */

/* Who has it mapped for writing keeps that; who wants to map it so afterwards may not. */
static bool seals_are_for_later(const image_ghost *ghost)
{
	return ghost->seals & F_SEAL_FUTURE_WRITE;
}

static int seal(const image_ghost *ghost, int fd, struct fsnap_error *err)
{
	if (ghost->kind != GHOST_MEMFD || fcntl(fd, F_GET_SEALS) == (int)ghost->seals)
		return 0;
	if (fcntl(fd, F_ADD_SEALS, ghost->seals) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "%s: seals", ghost->name);
	return 0;
}

int ghost_seal_early(const image_ghost *ghost, int fd, struct fsnap_error *err)
{
	return seals_are_for_later(ghost) ? 0 : seal(ghost, fd, err);
}

int ghosts_seal(struct restore *restore, struct fsnap_error *err)
{
	for (size_t i = 0; i < restore->model.n_ghosts; i++) {
		const image_ghost *ghost = &restore->model.ghosts[i];
		if (seals_are_for_later(ghost) && seal(ghost, restore->ghost_fd[ghost->id], err) < 0)
			return -1;
	}
	return 0;
}

/* --- huge pages ------------------------------------------------------------------------ */

/* Without a reservation, which would be for all of the file: its pages are asked for one run at a time, so
 * that there being none is an error, and no fault. */
static int fill_run(const struct restore *restore, const image_ghost *ghost, char *at, const struct page_run *run,
		    struct fsnap_error *err)
{
	uint64_t first = run->page * STORE_PAGE, bytes = (uint64_t)run->npages * STORE_PAGE;
	if (first + bytes > ghost->size)
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "%s: content behind its end", ghost->name);
	if (madvise(at + first, bytes, MADV_POPULATE_WRITE) < 0) {
		fail(err, FSNAP_E_RESTORE_STEP, ENOMEM, "%s: no huge page of %llu kB to be had", ghost->name,
		     (unsigned long long)ghost->huge / 1024);
		return error_hint(err, "raise /proc/sys/vm/nr_hugepages");
	}
	const void *from = image_bytes(restore->image, run->at, run->npages, err);
	if (!from)
		return -1;
	memcpy(at + first, from, bytes);
	return 0;
}

int ghost_fill_huge(const struct restore *restore, const image_ghost *ghost, int fd, struct fsnap_error *err)
{
	size_t n;
	const struct page_run *runs = image_runs(restore->image, ghost->id, &n);
	if (ftruncate(fd, (off_t)ghost->size) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "%s: its size", ghost->name);
	if (n == 0 || ghost->size == 0)
		return 0;
	char *at = mmap(NULL, ghost->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (at == MAP_FAILED)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "%s: mapping it", ghost->name);
	int result = 0;
	for (size_t i = 0; i < n && result == 0; i++)
		result = fill_run(restore, ghost, at, &runs[i], err);
	munmap(at, ghost->size);
	return result;
}
