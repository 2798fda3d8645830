#include <dirent.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "bpf/cache.h"
#include "bpf/touch.h"
#include "engine/heat/apart.h"
#include "engine/heat/heat.h"
#include "engine/mounts.h"
#include "engine/procfs.h"
#include "store/scope.h"

/* Watches live in the kernel, under names in a BPF file system: one directory each, PID-START, so that
 * another process of that number is not taken for it. */
#define BPFFS "/sys/fs/bpf"
#define WATCHES BPFFS "/fsnap"

#define PAGES_PER_BLOCK 4u
#define PAGES_PER_MIB 256u
#define OFTEN 4u   /* touched so often ... */
#define RECENT 60u /* ... and within so many seconds: hot */
#define LONG 60	   /* seconds after which a watch has seen all that is hot */

static int watch_path(pid_t root, char *path, size_t size, struct fsnap_error *err)
{
	struct procfs_stat stat;
	cleanup_fd int proc = procfs_open(root, err);
	if (proc < 0 || procfs_stat(proc, "stat", &stat, err) < 0)
		return -1;
	snprintf(path, size, WATCHES "/%d-%lu", root, stat.start_time);
	return 0;
}

/* --- beginning and end --------------------------------------------------------------- */

static int make_place(struct fsnap_error *err)
{
	struct statfs fs;
	if (statfs(BPFFS, &fs) == 0 && fs.f_type != BPF_FS_MAGIC &&
	    mount("bpf", BPFFS, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=700") < 0) {
		fail(err, FSNAP_E_KERNEL_LACKS, errno, "a watch needs a BPF file system");
		return error_hint(err, "mount -t bpf bpf " BPFFS);
	}
	if (mkdir(WATCHES, 0700) < 0 && errno != EEXIST)
		return fail(err, errno == EACCES || errno == EPERM ? FSNAP_E_PERMISSION : FSNAP_E_SYSTEM, errno,
			    WATCHES);
	return 0;
}

/* Those of processes that are gone. */
static void sweep(void)
{
	cleanup_dir DIR *dir = opendir(WATCHES);
	for (struct dirent *entry; dir && (entry = readdir(dir));) {
		char path[512], now[64];
		pid_t pid = atoi(entry->d_name);
		if (pid <= 0 || (watch_path(pid, now, sizeof(now), NULL) == 0 &&
				 strcmp(strrchr(now, '/') + 1, entry->d_name) == 0))
			continue;
		snprintf(path, sizeof(path), WATCHES "/%s", entry->d_name);
		touch_watch_unpin(path, NULL);
	}
}

enum { TREE, PLACE, ENDS };

struct keeping {
	struct touch_watch *watch;
	const char *path;
	struct pollfd ends[ENDS];
};

static void be_keeper(void *arg)
{
	struct keeping *keeping = arg;
	/* What it does takes some microseconds, and matters to how long others are slowed. */
	setpriority(PRIO_PROCESS, 0, -15);
	prctl(PR_SET_NAME, "fsnap-watch");
	if (touch_watch_keep(keeping->watch, keeping->ends, ENDS) == TREE)
		touch_watch_unpin(keeping->path, NULL);
}

/* By a process that ends with the tree, or when somebody ends the watch. */
static int keep(struct touch_watch *watch, pid_t root, const char *path, struct fsnap_error *err)
{
	int fds[TOUCH_DESCRIPTORS + ENDS];
	size_t n = touch_watch_descriptors(watch, fds);
	cleanup_fd int tree = (int)syscall(SYS_pidfd_open, root, 0), place = inotify_init1(IN_CLOEXEC);
	if (tree < 0 || place < 0 || inotify_add_watch(place, path, IN_DELETE) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "a watch on process %d", root);
	struct keeping keeping = { watch, path, { { .fd = tree, .events = POLLIN },
						  { .fd = place, .events = POLLIN } } };
	fds[n++] = tree;
	fds[n++] = place;
	return apart_run(be_keeper, &keeping, fds, n, NULL, "keeps a watch", err);
}

int heat_watch_start(pid_t root, struct fsnap_error *err)
{
	char path[64];
	size_t n;
	if (watch_path(root, path, sizeof(path), err) < 0 || make_place(err) < 0)
		return -1;
	sweep();
	if (access(path, F_OK) == 0)
		return 1;
	cleanup_free pid_t *pids = heat_pids(root, &n, err);
	struct touch_watch *watch = pids ? touch_watch_start(pids, n, err) : NULL;
	if (!watch)
		return -1;
	int result = touch_watch_pin(watch, path, err);
	if (result == 0 && keep(watch, root, path, err) < 0) {
		touch_watch_unpin(path, NULL);
		result = -1;
	}
	touch_watch_close(watch);
	return result;
}

int heat_watch_end(pid_t root, struct fsnap_error *err)
{
	char path[64];
	if (watch_path(root, path, sizeof(path), err) < 0)
		return -1;
	if (access(path, F_OK) == 0)
		return touch_watch_unpin(path, err);
	fail(err, FSNAP_E_USAGE, 0, "process %d is not being watched", root);
	return error_hint(err, "fsnap heat -t %d --watch begins it", root);
}

/* --- where files are -------------------------------------------------------------------- */

/* A file as one mount shows it, if it does. */
static bool find_below_mount(const struct mounts_line *mount, const char *path, char *found, size_t size)
{
	size_t skip = strcmp(mount->root, "/") == 0 ? 0 : strlen(mount->root);
	if (strncmp(path, mount->root, skip) != 0 || path[skip] != '/')
		return false;
	snprintf(found, size, "%s%s", strcmp(mount->point, "/") == 0 ? "" : mount->point, path + skip);
	return access(found, R_OK) == 0;
}

static bool find_file(const struct mounts_line *mounts, size_t n, uint64_t device, const char *path, char *found,
		      size_t size)
{
	for (size_t i = 0; i < n; i++)
		if (mounts_device(&mounts[i]) == device && find_below_mount(&mounts[i], path, found, size))
			return true;
	return false;
}

/* Of /proc/self/mountinfo, malloc'ed; they point into the text. */
static struct mounts_line *all_mounts(char *text, size_t *n)
{
	struct mounts_line *mounts = NULL, line;
	*n = 0;
	for (char *cursor = text; mounts_next(&cursor, &line);) {
		struct mounts_line *more = realloc(mounts, (*n + 1) * sizeof(*mounts));
		if (!more)
			break;
		mounts = more;
		mounts[(*n)++] = line;
	}
	return mounts;
}

struct reading {
	struct heat *heat;
	struct touch_watch *watch;
	const struct mounts_line *mounts;
	size_t n_mounts;
	uint32_t now; /* seconds of CLOCK_MONOTONIC */
	size_t ranges;
	bool no_memory;
};

static struct heat_file *file_of(struct reading *reading, const struct touch_file *touched)
{
	unsigned major = touched->dev >> 20, minor = touched->dev & 0xfffff;
	struct heat_file *file = heat_find(reading->heat, makedev(major, minor), touched->ino);
	char told[TOUCH_PATH + 2], path[8192];
	struct stat stat;
	if (file || touch_watch_path(reading->watch, touched, told, sizeof(told)) < 0 ||
	    !find_file(reading->mounts, reading->n_mounts, touched->dev, told, path, sizeof(path)) ||
	    lstat(path, &stat) < 0 || stat.st_ino != touched->ino)
		return file;
	const image_identity identity = { .path = path, .dev = stat.st_dev, .ino = stat.st_ino,
					  .mode = stat.st_mode };
	return heat_add(reading->heat, &identity, false);
}

static int note_mib(struct heat_file *file, uint64_t mib)
{
	if (!file->touched) {
		file->mibs = (file->image.identity.size >> 20) + 1;
		file->touched = calloc(file->mibs / 8 + 1, 1);
	}
	if (file->touched && mib < file->mibs)
		file->touched[mib / 8] |= (uint8_t)(1 << mib % 8);
	return file->touched ? 0 : -1;
}

static int add_range(void *arg, const struct touch_key *key, const struct touch_range *range)
{
	struct reading *reading = arg;
	struct heat_file *file = file_of(reading, &key->file);
	reading->ranges++;
	if (!file)
		return 0;
	file->image.source |= HEAT_WATCH;
	if (note_mib(file, key->mib) < 0)
		reading->no_memory = true;
	bool hot = range->count >= OFTEN && reading->now - range->second <= RECENT;
	uint64_t end = (file->image.identity.size + 4095) / 4096;
	for (unsigned block = 0; block < 64; block++) {
		uint64_t page = key->mib * PAGES_PER_MIB + block * PAGES_PER_BLOCK;
		if (!(range->blocks >> block & 1) || page >= end)
			continue;
		uint64_t pages = end - page < PAGES_PER_BLOCK ? end - page : PAGES_PER_BLOCK;
		if (heat_runs_add(file, page, pages, hot ? CACHE_HOT : CACHE_WARM) < 0)
			reading->no_memory = true;
	}
	return reading->no_memory;
}

int heat_watch_read(pid_t root, touch_visit *visit, void *arg, struct fsnap_error *err)
{
	char path[64];
	if (watch_path(root, path, sizeof(path), err) < 0)
		return -1;
	struct touch_watch *watch = touch_watch_open(path, err);
	if (!watch)
		return fail(err, FSNAP_E_SYSTEM, errno, "the watch on process %d", root);
	int result = touch_watch_read(watch, visit, arg, err);
	touch_watch_close(watch);
	return result;
}

/* Seconds since a watch began. */
static time_t age_of(const char *path)
{
	struct stat stat;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return lstat(path, &stat) == 0 ? now.tv_sec - stat.st_mtim.tv_sec : 0;
}

int heat_watch_add(struct heat *heat, pid_t root, struct fsnap_error *err)
{
	char path[64];
	struct timespec now;
	if (watch_path(root, path, sizeof(path), NULL) < 0 || access(path, F_OK) < 0)
		return 0;
	struct touch_watch *watch = touch_watch_open(path, err);
	if (!watch)
		return errno == ENOENT ? 0 : -1;
	clock_gettime(CLOCK_MONOTONIC, &now);
	size_t n_mounts;
	cleanup_free char *text = mounts_read(err);
	cleanup_free struct mounts_line *mounts = all_mounts(text, &n_mounts);
	struct reading reading = { heat, watch, mounts, n_mounts, (uint32_t)now.tv_sec, 0, false };
	int result = text ? touch_watch_read(watch, add_range, &reading, err) : -1;
	touch_watch_close(watch);
	/* Nothing was forgotten for want of room, and who reads much was looked at some hundred times. */
	heat->well_watched = age_of(path) >= LONG && reading.ranges < TOUCH_RANGES / 2;
	heat->sources |= HEAT_WATCH;
	return reading.no_memory ? fail(err, FSNAP_E_NOMEM, ENOMEM, "what a watch has seen") : result;
}
