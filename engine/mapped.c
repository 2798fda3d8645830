/*
 * mapped.c - the files that are mapped: each is opened and described once, however often
 * it is mapped and by whom.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "engine/build_id.h"
#include "engine/dump.h"
#include "engine/procfs.h"
#include "store/scope.h"

static uint64_t device_of(const struct procfs_map *map)
{
	return (uint64_t)map->major << 32 | map->minor;
}

/* Opens what is mapped, even if its name is gone: /proc/PID/map_files, which needs
 * CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN (proc(5)); else by its path. */
int mapped_open(const struct process *process, const struct procfs_map *map)
{
	char name[64];
	snprintf(name, sizeof(name), "map_files/%lx-%lx", map->start, map->end);
	int fd = openat(process->proc, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return fd >= 0 ? fd : open(map->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

static int note_build_id(image_mapped *mapped, int fd, struct fsnap_error *err)
{
	unsigned char id[BUILD_ID_MAX];
	size_t n = S_ISREG(mapped->identity.mode) && !mapped->identity.ghost ? build_id_read(fd, id) : 0;
	if (n == 0)
		return 0;
	mapped->build_id.build_id_val = malloc(n);
	if (!mapped->build_id.build_id_val)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "mapped files");
	memcpy(mapped->build_id.build_id_val, id, n);
	mapped->build_id.build_id_len = (u_int)n;
	return 0;
}

/* /proc/PID/maps writes a newline as \012 and leaves backslashes alone: only the link of `fd`, which is
 * this file, tells them apart. */
static const char *unescaped(const struct procfs_map *map, int fd, char *link, size_t size)
{
	char name[32];
	if (!strstr(map->path, "\\012"))
		return map->path;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(name, link, size - 1);
	if (n < 0)
		return map->path;
	link[n] = '\0';
	return link;
}

static int64_t changed_ns(const struct stat *stat)
{
	return stat->st_ctim.tv_sec * 1000000000ll + stat->st_ctim.tv_nsec;
}

static int describe(struct dump *dump, struct process *process, const struct procfs_map *map, int fd,
		    struct saved_mapped *mapped, struct fsnap_error *err)
{
	char link[4096];
	const char *path = unescaped(map, fd, link, sizeof(link));
	struct stat stat;
	mapped->still = dump->still;
	mapped->changed_ns = fstat(fd, &stat) == 0 ? changed_ns(&stat) : 0;
	if (dump_identity(dump, process, fd, path, &mapped->image.identity, err) < 0)
		return -1;
	return note_build_id(&mapped->image, fd, err);
}

/* A program that runs may map another file where one was read to be, before we open what is mapped there. Some file systems
 * (btrfs, overlayfs) say other numbers to stat(2) than to /proc/PID/maps, always. */
static bool has_its_number(const struct saved_mapped *mapped)
{
	const image_identity *identity = &mapped->image.identity;
	return identity->ino == mapped->inode &&
	       identity->dev == makedev((unsigned)(mapped->device >> 32), (unsigned)mapped->device);
}

/* Asked of the file itself, as long as no path leads to it, or its number does not tell that it is the one. */
static bool is_mapped(const struct process *process, const struct procfs_map *map, const struct saved_mapped *mapped)
{
	cleanup_fd int fd = mapped_open(process, map);
	struct stat now;
	const image_identity *identity = &mapped->image.identity;
	return fd >= 0 && fstat(fd, &now) == 0 && now.st_dev == identity->dev && now.st_ino == identity->ino &&
	       (!identity->ghost || now.st_nlink == 0);
}

static bool path_holds(const struct saved_mapped *mapped)
{
	struct stat now;
	const image_identity *identity = &mapped->image.identity;
	return stat(identity->path, &now) == 0 && now.st_dev == identity->dev && now.st_ino == identity->ino &&
	       (uint64_t)now.st_size == identity->size && changed_ns(&now) == mapped->changed_ns;
}

/* Until the tree stood still, what had been described was perhaps written, renamed, removed, its number given to
 * another file. Content that is kept in the image is looked at last (ghost_settle()). */
static bool still_holds(const struct process *process, const struct procfs_map *map, const struct saved_mapped *mapped)
{
	bool ghost = mapped->image.identity.ghost;
	return (ghost || path_holds(mapped)) &&
	       ((!ghost && has_its_number(mapped)) || is_mapped(process, map, mapped));
}

/* Only files, and /dev/zero, can be opened again and be the same. */
static int refuse_device(const struct process *process, const struct procfs_map *map, int fd, struct fsnap_error *err)
{
	struct stat stat;
	if (fstat(fd, &stat) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "process %d (%s): mapped file %s", process->pid, process->comm,
			    map->path);
	bool zero = S_ISCHR(stat.st_mode) && stat.st_rdev == makedev(1, 5);
	return S_ISREG(stat.st_mode) || zero ? 0 :
		       maps_refuse(process, map, "a device is mapped", "close the device, or dump without it", err);
}

static struct saved_mapped *known_mapped(struct dump *dump, struct process *process, const struct procfs_map *map,
					 struct saved_mapped *mapped, struct fsnap_error *err)
{
	if (mapped->still || !dump->still)
		return mapped;
	mapped->still = still_holds(process, map, mapped);
	if (mapped->still)
		return mapped;
	cleanup_fd int fd = mapped_open(process, map);
	unsigned id = mapped->image.id;
	xdr_free((xdrproc_t)xdr_image_mapped, (char *)&mapped->image);
	mapped->image = (image_mapped){ .id = id };
	if (fd >= 0) /* the number may have become a device's since */
		return refuse_device(process, map, fd, err) < 0 || describe(dump, process, map, fd, mapped, err) < 0 ?
			       NULL : mapped;
	fail(err, FSNAP_E_SYSTEM, errno, "process %d (%s): mapped file %s", process->pid, process->comm, map->path);
	return NULL;
}

static struct saved_mapped *add(struct dump *dump, struct process *process, const struct procfs_map *map,
				int fd, struct fsnap_error *err)
{
	struct saved_mapped *array = grow(dump->mapped, dump->n_mapped, sizeof(*array), err);
	if (!array)
		return NULL;
	dump->mapped = array;
	struct saved_mapped *mapped = &array[dump->n_mapped];
	*mapped = (struct saved_mapped){ .image.id = (unsigned)dump->n_mapped + 1, .device = device_of(map),
					 .inode = map->inode };
	if (describe(dump, process, map, fd, mapped, err) < 0 ||
	    index_add(&dump->mapped_index, device_of(map), map->inode, dump->n_mapped, err) < 0) {
		xdr_free((xdrproc_t)xdr_image_mapped, (char *)&mapped->image);
		return NULL;
	}
	dump->n_mapped++;
	return mapped;
}

struct saved_mapped *mapped_find(struct dump *dump, struct process *process, const struct procfs_map *map,
				 struct fsnap_error *err)
{
	size_t known = index_find(&dump->mapped_index, device_of(map), map->inode);
	if (known != INDEX_NONE)
		return known_mapped(dump, process, map, &dump->mapped[known], err);
	cleanup_fd int fd = mapped_open(process, map);
	if (fd < 0) {
		int sys = errno;
		fail(err, FSNAP_E_UNSUPPORTED, sys, "process %d (%s): cannot open mapped file %s",
		     process->pid, process->comm, map->path);
		if (procfs_code(sys) == FSNAP_E_PERMISSION)
			error_hint(err, "run fsnap as root");
		return NULL;
	}
	return refuse_device(process, map, fd, err) < 0 ? NULL : add(dump, process, map, fd, err);
}

/* What the process executes, which it need not have mapped any more. */
int mapped_executable(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	cleanup_fd int fd = openat(process->proc, "exe", O_RDONLY | O_CLOEXEC);
	char path[4096];
	ssize_t n = readlinkat(process->proc, "exe", path, sizeof(path) - 1);
	struct stat stat;
	if (fd < 0 || n < 0 || fstat(fd, &stat) < 0)
		return fail(err, procfs_code(errno), errno, "process %d (%s): its executable", process->pid,
			    process->comm);
	path[n] = '\0';
	/* Its device as stat(2) says it, which btrfs and overlayfs make differ from what maps says: what was described before
	 * the tree stood still may be described anew, as what it is not. */
	for (size_t i = 0; i < dump->n_mapped; i++) {
		const struct saved_mapped *mapped = &dump->mapped[i];
		const image_identity *known = &mapped->image.identity;
		if (known->dev == stat.st_dev && known->ino == stat.st_ino &&
		    (mapped->still || has_its_number(mapped)) && (known->ghost || path_holds(mapped))) {
			process->mm.exe = mapped->image.id;
			return 0;
		}
	}
	struct procfs_map map = { .major = major(stat.st_dev), .minor = minor(stat.st_dev),
				  .inode = stat.st_ino, .path = path };
	struct saved_mapped *mapped = add(dump, process, &map, fd, err);
	process->mm.exe = mapped ? mapped->image.id : 0;
	return mapped ? 0 : -1;
}

/* What the tree had mapped before it stood still, and has no more, may be gone: a restore must not look for it.
 * The numbers of the others close up. */
int mapped_settle(struct dump *dump, struct fsnap_error *err)
{
	cleanup_free unsigned *now = calloc(dump->n_mapped + 1, sizeof(*now));
	if (!now)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "mapped files");
	for (size_t i = 0; i < dump->tree.n_processes; i++) {
		unsigned exe = dump->tree.processes[i]->mm.exe;
		if (exe)
			dump->mapped[exe - 1].still = true;
	}
	size_t n = 0;
	for (size_t i = 0; i < dump->n_mapped; i++) {
		if (!dump->mapped[i].still) {
			xdr_free((xdrproc_t)xdr_image_mapped, (char *)&dump->mapped[i].image);
			continue;
		}
		dump->mapped[n] = dump->mapped[i];
		dump->mapped[n].image.id = now[i + 1] = (unsigned)n + 1;
		n++;
	}
	dump->n_mapped = n;
	for (size_t i = 0; i < dump->tree.n_processes; i++) {
		image_mm *mm = &dump->tree.processes[i]->mm;
		mm->exe = now[mm->exe];
		for (u_int j = 0; j < mm->vmas.vmas_len; j++)
			if (mm->vmas.vmas_val[j].kind == VMA_FILE)
				mm->vmas.vmas_val[j].object = now[mm->vmas.vmas_val[j].object];
	}
	return 0;
}

/* Where the path of one leads, and to what, is asked again by still_holds(): it costs a stat(2), as of all that is mapped, and
 * spares opening it, looking for its build ID and for what it is called. Content that an image holds is that image's. */
void mapped_take_over(struct dump *dump, struct saved_mapped *mapped, size_t n)
{
	size_t kept = 0;
	for (size_t i = 0; i < n; i++) {
		if (mapped[i].image.identity.ghost ||
		    index_add(&dump->mapped_index, mapped[i].device, mapped[i].inode, kept, NULL) < 0) {
			xdr_free((xdrproc_t)xdr_image_mapped, (char *)&mapped[i].image);
			continue;
		}
		mapped[kept] = mapped[i];
		mapped[kept].still = false;
		mapped[kept].image.writable = 0; /* its mappings say that again */
		mapped[kept].image.id = (unsigned)kept + 1;
		kept++;
	}
	dump->mapped = mapped;
	dump->n_mapped = kept;
}

void mapped_free_all(struct saved_mapped *mapped, size_t n)
{
	for (size_t i = 0; i < n; i++)
		xdr_free((xdrproc_t)xdr_image_mapped, (char *)&mapped[i].image);
	free(mapped);
}

void mapped_free(struct dump *dump)
{
	mapped_free_all(dump->mapped, dump->n_mapped);
	index_free(&dump->mapped_index);
}
