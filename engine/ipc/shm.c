/*
 * shm.c - segments of System V shared memory (shmget(2), shmat(2)).
 *
 * The content is a file of the kernel's own that has no name, so it is stored as an
 * image_ghost; mappings of it come back by shmat(2) (restorer/attach.c), which alone makes
 * what shmdt(2) and the count of attachments know.
 */
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "engine/dump.h"
#include "engine/ipc/ipc.h"
#include "engine/procfs.h"
#include "engine/restore.h"
#include "store/scope.h"

#define WHAT "System V shared memory"
#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT 26
#endif

const struct other_kind kind_sysv_shm = {
	.name = "sysv_shm",
	.keeps = "segments attached by the tree, and idle ones that it made: number, key, owner, "
		 "creator, "
		 "size, lock, mark for removal, content; attachments whole, read-only or in pieces",
	.refuses = "at a restore: a number or key that another segment has, a segment that "
		   "processes outside "
		   "the tree have attached",
	.shown_by = "ipc_shm* ipc",
};

/* --- dump ----------------------------------------------------------------------- */

bool ipc_is_segment(const struct procfs_map *map)
{
	unsigned key;
	int length = 0;
	return sscanf(map->path, "/SYSV%8x (deleted)%n", &key, &length) == 1 &&
	       map->path[length] == '\0' && map->major == 0;
}

static image_shm *find_shm(const struct dump *dump, int id)
{
	for (u_int i = 0; i < dump->ipc.shms.shms_len; i++)
		if (dump->ipc.shms.shms_val[i].perm.id == id)
			return &dump->ipc.shms.shms_val[i];
	return NULL;
}

unsigned ipc_shm_known(const struct dump *dump, const struct procfs_map *map)
{
	const image_shm *shm = find_shm(dump, (int)map->inode);
	return shm ? shm->ghost : 0;
}

/* Its pages: those of hugetlbfs say so as the block size of their file system. */
static uint64_t page_size(int fd)
{
	struct statfs fs;
	return fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize
								     : STORE_PAGE;
}

static image_shm *add_shm(struct dump *dump, int id, unsigned name, int fd, struct fsnap_error *err)
{
	image_ipc *ipc = &dump->ipc;
	image_shm *array = grow(ipc->shms.shms_val, ipc->shms.shms_len, sizeof(*array), err);
	if (!array)
		return NULL;
	ipc->shms.shms_val = array;
	char path[32];
	snprintf(path, sizeof(path), "/SYSV%08x", name);
	image_shm *shm = &array[ipc->shms.shms_len];
	*shm = (image_shm){ .perm.id = id,
			    .name = name,
			    .page = page_size(fd),
			    .ghost = ghost_save(dump, fd, GHOST_SYSV, path, err) };
	if (!shm->ghost)
		return NULL;
	ipc->shms.shms_len++;
	return shm;
}

unsigned ipc_shm_mapped(struct dump *dump, const struct process *process,
			const struct procfs_map *map, int fd, struct fsnap_error *err)
{
	struct shmid_ds ds;
	struct stat stat;
	unsigned name = 0;
	sscanf(map->path, "/SYSV%8x", &name);
	/* Its number is the segment's (ipc/shm.c, newseg()). While the program runs, another may be there by now. */
	if (fstat(fd, &stat) < 0 || stat.st_ino != map->inode) {
		fail(err, FSNAP_E_SYSTEM, ENOENT, "process %d (%s): " WHAT " at %lx", process->pid,
		     process->comm, map->start);
		return 0;
	}
	if (shmctl((int)map->inode, IPC_STAT, &ds) < 0 && errno != EACCES) {
		fail(err, FSNAP_E_UNSUPPORTED, errno, "process %d (%s): " WHAT " at %lx",
		     process->pid, process->comm, map->start);
		error_hint(err, "it is of another IPC namespace than the process is in now");
		return 0;
	}
	const image_shm *shm = add_shm(dump, (int)map->inode, name, fd, err);
	return shm ? shm->ghost : 0;
}

/* The file behind an attachment of ours; its end is where the pages of the segment make it. */
static int open_attached(const void *at, size_t size)
{
	static const size_t pages[] = { STORE_PAGE, 2ul << 20, 1ul << 30 };
	int fd = -1;
	for (size_t i = 0; fd < 0 && i < sizeof(pages) / sizeof(pages[0]); i++) {
		char path[96];
		snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)at,
			 (unsigned long)at + (size + pages[i] - 1) / pages[i] * pages[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	return fd;
}

/* A segment that nobody has attached: for a moment we do, as the only way to its content. */
static int add_idle(struct dump *dump, int id, unsigned key, size_t size, struct fsnap_error *err)
{
	void *at = shmat(id, NULL, SHM_RDONLY);
	if (at == (void *)-1)
		return fail(err, procfs_code(errno), errno, WHAT " %d", id);
	cleanup_fd int fd = open_attached(at, size);
	int result = fd < 0 ? fail(err, procfs_code(errno), errno, WHAT " %d: its content", id)
		     : add_shm(dump, id, key, fd, err) ? 0
						       : -1;
	shmdt(at);
	return result;
}

/* Made by a process of the tree that is still there, and attached to nobody else's memory. */
int shm_list(struct dump *dump, struct fsnap_error *err)
{
	struct shm_info info;
	int last = shmctl(0, SHM_INFO, (struct shmid_ds *)&info);
	if (last < 0 || info.used_ids == 0)
		return 0;
	for (int i = 0; i <= last; i++) {
		struct shmid_ds ds;
		int id = shmctl(i, SHM_STAT_ANY, &ds);
		if (id < 0 || find_shm(dump, id) || ds.shm_nattch ||
		    !ipc_was_there(dump, ds.shm_cpid, ds.shm_ctime))
			continue;
		if (add_idle(dump, id, (unsigned)ds.shm_perm.__key, ds.shm_segsz, err) < 0)
			return -1;
	}
	return 0;
}

static void fill_facts(image_shm *shm, const struct shmid_ds *ds)
{
	shm->perm = ipc_perm(shm->perm.id, &ds->shm_perm);
	shm->size = ds->shm_segsz;
	shm->locked = (ds->shm_perm.mode & SHM_LOCKED) != 0;
	shm->removed = (ds->shm_perm.mode & SHM_DEST) != 0;
	shm->cpid = ds->shm_cpid;
	shm->lpid = ds->shm_lpid;
}

/* The kernel counts mappings, whole ones and what splits left of them. */
static unsigned count_attached(const struct dump *dump, unsigned ghost)
{
	unsigned n = 0;
	for (size_t i = 0; i < dump->tree.n_processes; i++) {
		const image_mm *mm = &dump->tree.processes[i]->mm;
		for (u_int j = 0; j < mm->vmas.vmas_len; j++)
			n += mm->vmas.vmas_val[j].kind == VMA_SYSV &&
			     mm->vmas.vmas_val[j].object == ghost;
	}
	return n;
}

int shm_collect(struct dump *dump, struct fsnap_error *err)
{
	u_int kept = 0;
	for (u_int i = 0; i < dump->ipc.shms.shms_len; i++) {
		image_shm *shm = &dump->ipc.shms.shms_val[i];
		struct shmid_ds ds;
		unsigned attached = count_attached(dump, shm->ghost);
		if (shmctl(shm->perm.id, IPC_STAT, &ds) < 0) {
			if (attached || (errno != EINVAL && errno != EIDRM))
				return fail(err, FSNAP_E_PERMISSION, errno, WHAT " %d",
					    shm->perm.id);
			continue; /* met before the freeze, gone since */
		}
		fill_facts(shm, &ds);
		shm->outside = ds.shm_nattch > attached ? (unsigned)(ds.shm_nattch - attached) : 0;
		if (shm->outside)
			dump_note(dump,
				  WHAT " %d is attached %u times outside the tree: a restore has a "
				       "segment of its own, or none while those are there",
				  shm->perm.id, shm->outside);
		dump->ipc.shms.shms_val[kept++] = *shm;
	}
	dump->ipc.shms.shms_len = kept;
	return 0;
}

/* --- restore ---------------------------------------------------------------------- */

struct shm_made {
	void *at;      /* our attachment while the restore lasts */
	bool survivor; /* left behind by the original: its content is old */
};

static int create(void *arg)
{
	const image_shm *shm = arg;
	int flags = IPC_CREAT | IPC_EXCL | (int)shm->perm.mode;
	if (shm->page != STORE_PAGE)
		flags |= SHM_HUGETLB | __builtin_ctzll(shm->page) << MAP_HUGE_SHIFT;
	int result = ipc_choose_id("shm", shm->perm.id);
	if (result < 0)
		return result;
	int id = shmget((key_t)shm->name, shm->size, flags);
	/* One that was removed has no key any more, and its name only shows in /proc/PID/maps. */
	if (id < 0 && errno == EEXIST && shm->removed)
		id = ipc_choose_id("shm", shm->perm.id) < 0 ? -1
							    : shmget(IPC_PRIVATE, shm->size, flags);
	if (id < 0)
		return -errno;
	if (id == shm->perm.id)
		return 0;
	/* The kernel gives the nearest free number where that one is taken. */
	shmctl(id, IPC_RMID, NULL);
	return -EEXIST;
}

/* Is what is there what the original left behind? Then it is ours to fill. */
static int adopt(const image_shm *shm, const struct shmid_ds *ds, struct fsnap_error *err)
{
	if (shm->removed || (unsigned)ds->shm_perm.__key != shm->perm.key ||
	    ds->shm_segsz != shm->size)
		return ipc_in_use(WHAT, &shm->perm, "is another one", err);
	if (ds->shm_nattch == 0)
		return 0;
	char how[96];
	snprintf(how, sizeof(how), "is attached %lu times by processes that are not of this tree",
		 (unsigned long)ds->shm_nattch);
	return ipc_in_use(WHAT, &shm->perm, how, err);
}

/* Removed now, while we hold it: the next may have its key. It goes with its last attachment, ours if
 * nothing comes of the restore. */
static int mark_removed(const image_shm *shm, struct fsnap_error *err)
{
	if (shm->removed && shmctl(shm->perm.id, IPC_RMID, NULL) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, WHAT " %d: IPC_RMID", shm->perm.id);
	return 0;
}

static int own(const image_shm *shm, struct fsnap_error *err)
{
	struct shmid_ds ds = { .shm_perm = { .uid = shm->perm.uid,
					     .gid = shm->perm.gid,
					     .mode = (unsigned short)shm->perm.mode } };
	if (shmctl(shm->perm.id, IPC_SET, &ds) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, WHAT " %d: IPC_SET", shm->perm.id);
	if (shmctl(shm->perm.id, shm->locked ? SHM_LOCK : SHM_UNLOCK, NULL) < 0 && shm->locked)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, WHAT " %d: SHM_LOCK", shm->perm.id);
	return 0;
}

/* One that is to be removed has its former key only until then. */
static void remove_segment(const char *name)
{
	struct shmid_ds ds;
	unsigned key;
	int id = ipc_named(name, &key);
	if (shmctl(id, IPC_STAT, &ds) == 0 && (key == IPC_PRIVATE || (unsigned)ds.shm_perm.__key == key))
		shmctl(id, IPC_RMID, NULL);
}

static int make(struct restore *restore, const image_shm *shm, struct shm_made *made,
		struct fsnap_error *err)
{
	struct shmid_ds ds;
	made->survivor = shmctl(shm->perm.id, IPC_STAT, &ds) == 0;
	if (made->survivor && adopt(shm, &ds, err) < 0)
		return -1;
	if (!made->survivor) {
		ipc_takes_back(restore, &shm->perm, shm->removed ? IPC_PRIVATE : shm->perm.key, remove_segment);
		int result = ipc_as(shm->cpid, shm->perm.cuid, shm->perm.cgid, create, (void *)shm);
		if (result < 0) {
			restore_not_made(restore);
			return ipc_not_made(WHAT, &shm->perm, -result, err);
		}
	} else {
		restore_note(restore, WHAT " %d was still there: its content is replaced",
			     shm->perm.id);
	}
	made->at = shmat(shm->perm.id, NULL, 0);
	if (made->at == (void *)-1) {
		made->at = NULL;
		return fail(err, FSNAP_E_RESTORE_STEP, errno, WHAT " %d: shmat", shm->perm.id);
	}
	if (own(shm, err) < 0 || mark_removed(shm, err) < 0)
		return -1;
	if (shm->removed && !made->survivor)
		restore_not_made(restore); /* it goes by itself now */
	return 0;
}

int shm_make_all(struct restore *restore, struct fsnap_error *err)
{
	const image_ipc *ipc = &restore->model.ipc;
	restore->shms = calloc(ipc->shms.shms_len + 1, sizeof(*restore->shms));
	if (!restore->shms)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, WHAT);
	/* Those that had given up their keys come first: others may have them now. */
	for (int removed = 1; removed >= 0; removed--)
		for (u_int i = 0; i < ipc->shms.shms_len; i++) {
			const image_shm *shm = &ipc->shms.shms_val[i];
			if ((int)shm->removed == removed &&
			    make(restore, shm, &restore->shms[i], err) < 0)
				return -1;
		}
	return 0;
}

static int fill(struct restore *restore, const image_shm *shm, const struct shm_made *made,
		struct fsnap_error *err)
{
	size_t n, size = (shm->size + shm->page - 1) / shm->page * shm->page;
	const struct page_run *runs = image_runs(restore->image, shm->ghost, &n);
	if (made->survivor && madvise(made->at, size, MADV_REMOVE) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, WHAT " %d: emptying it",
			    shm->perm.id);
	for (size_t i = 0; i < n; i++) {
		uint64_t at = runs[i].page * STORE_PAGE,
			 length = (uint64_t)runs[i].npages * STORE_PAGE;
		const void *from = image_bytes(restore->image, runs[i].at, runs[i].npages, err);
		if (!from)
			return -1;
		memcpy((char *)made->at + at, from, length);
	}
	return 0;
}

static void detach_all(struct restore *restore)
{
	for (u_int i = 0; restore->shms && i < restore->model.ipc.shms.shms_len; i++) {
		if (restore->shms[i].at)
			shmdt(restore->shms[i].at);
		restore->shms[i].at = NULL;
	}
}

int shm_fill_all(struct restore *restore, struct fsnap_error *err)
{
	const image_ipc *ipc = &restore->model.ipc;
	for (u_int i = 0; i < ipc->shms.shms_len; i++)
		if (fill(restore, &ipc->shms.shms_val[i], &restore->shms[i], err) < 0)
			return -1;
	detach_all(restore); /* the program counts attachments */
	return 0;
}

void shm_free_all(struct restore *restore)
{
	detach_all(restore);
	free(restore->shms);
	restore->shms = NULL;
}
