/*
 * machine.c - limits, and where images would lie.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "engine/doctor/doctor.h"
#include "store/scope.h"

#define LIMITS "Limits"
#define STORE "Store"
#define GIB (1ull << 30)

/* --- limits --------------------------------------------------------------------------- */

static void limit(struct finding *finding, int which, rlim_t wanted, rlim_t unit, const char *what)
{
	struct rlimit now;
	getrlimit(which, &now);
	if (now.rlim_max == RLIM_INFINITY)
		find(finding, FSNAP_CHECK_GOOD, "unlimited");
	else
		find(finding, now.rlim_max < wanted ? FSNAP_CHECK_PARTLY : FSNAP_CHECK_GOOD, "%llu %s",
		     (unsigned long long)(now.rlim_max / unit), what);
}

static void files(struct finding *finding, const char *store)
{
	(void)store;
	limit(finding, RLIMIT_NOFILE, 65536, 1, "(ulimit -Hn)");
}

static void processes(struct finding *finding, const char *store)
{
	(void)store;
	limit(finding, RLIMIT_NPROC, 4096, 1, "(ulimit -Hu)");
}

static void locked(struct finding *finding, const char *store)
{
	(void)store;
	if (has_capability(CAP_IPC_LOCK))
		find(finding, FSNAP_CHECK_GOOD, "unlimited (CAP_IPC_LOCK)");
	else
		limit(finding, RLIMIT_MEMLOCK, 64 << 20, 1024, "KiB (ulimit -Hl)");
}

static void mappings(struct finding *finding, const char *store)
{
	(void)store;
	long long most = number_in("/proc/sys/vm/max_map_count");
	find(finding, most < 65530 ? FSNAP_CHECK_PARTLY : FSNAP_CHECK_GOOD, "%lld a process", most);
}

static void pids(struct finding *finding, const char *store)
{
	(void)store;
	long long most = number_in("/proc/sys/kernel/pid_max"), threads = number_in("/proc/sys/kernel/threads-max");
	if (threads > 0 && threads < most)
		most = threads;
	find(finding, most < 32768 ? FSNAP_CHECK_PARTLY : FSNAP_CHECK_GOOD, "%lld threads in the system", most);
}

/* --- the store --------------------------------------------------------------------------- */

/* The store, or as long as it does not exist, the nearest directory above it. */
static int open_place(const char *store, bool *exists)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s", store);
	for (*exists = true;; *exists = false) {
		int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0 || errno != ENOENT)
			return fd;
		char *slash = strrchr(path, '/');
		if (!slash || !path[1])
			return open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		slash[slash == path] = '\0';
	}
}

static void directory(struct finding *finding, const char *store)
{
	bool exists;
	char probe[64];
	if (!store) {
		find(finding, FSNAP_CHECK_FATAL, "no store is named, and there is no $HOME");
		return;
	}
	cleanup_fd int fd = open_place(store, &exists);
	snprintf(probe, sizeof(probe), ".fsnap-doctor-%d", getpid());
	if (fd < 0 || mkdirat(fd, probe, 0700) < 0)
		find(finding, FSNAP_CHECK_FATAL, "%s: %s", store, strerror(errno));
	else if (unlinkat(fd, probe, AT_REMOVEDIR) == 0)
		find(finding, FSNAP_CHECK_GOOD, "%s%s", store, exists ? "" : " (will be made)");
}

static const char *system_name(const struct statfs *fs)
{
	switch ((unsigned)fs->f_type) {
	case TMPFS_MAGIC:
	case RAMFS_MAGIC:
		return "memory: fast, and gone with the machine";
	case EXT4_SUPER_MAGIC:
		return "ext4";
	case XFS_SUPER_MAGIC:
		return "xfs";
	case BTRFS_SUPER_MAGIC:
		return "btrfs";
	case NFS_SUPER_MAGIC:
		return "nfs";
	case OVERLAYFS_SUPER_MAGIC:
		return "overlayfs";
	default:
		return "disk";
	}
}

/* MAP_SYNC is granted on persistent memory alone (mmap(2)). */
static bool is_dax(int place)
{
	cleanup_fd int fd = openat(place, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	void *at = fd >= 0 && ftruncate(fd, 4096) == 0 ?
			   mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0) :
			   MAP_FAILED;
	if (at != MAP_FAILED)
		munmap(at, 4096);
	return at != MAP_FAILED;
}

static void medium(struct finding *finding, const char *store)
{
	bool exists;
	struct statfs fs;
	cleanup_fd int fd = store ? open_place(store, &exists) : -1;
	if (fd < 0 || fstatfs(fd, &fs) < 0) {
		find(finding, FSNAP_CHECK_LACKS, "not known");
		return;
	}
	uint64_t room = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
	const char *name = is_dax(fd) ? "persistent memory (DAX)" : system_name(&fs);
	find(finding, room < GIB ? FSNAP_CHECK_PARTLY : FSNAP_CHECK_GOOD, "%s; %.1f GiB free", name,
	     (double)room / (double)GIB);
}

static void reflink(struct finding *finding, const char *store)
{
	bool exists;
	cleanup_fd int place = store ? open_place(store, &exists) : -1;
	cleanup_fd int from = openat(place, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	cleanup_fd int to = openat(place, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	find_result(finding, from >= 0 && to >= 0 && write(from, "x", 1) == 1 && ioctl(to, FICLONE, from) == 0,
		    FSNAP_CHECK_LACKS);
}

static unsigned entries(const char *path, const char *prefix)
{
	cleanup_dir DIR *dir = opendir(path);
	unsigned n = 0;

	for (struct dirent *entry; dir && (entry = readdir(dir));)
		n += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
	return n;
}

static void persistent_memory(struct finding *finding, const char *store)
{
	(void)store;
	unsigned block = entries("/sys/block", "pmem"), devices = entries("/sys/bus/dax/devices", "dax");
	if (block || devices)
		find(finding, FSNAP_CHECK_GOOD, "%u block devices, %u DAX devices", block, devices);
	else
		find(finding, FSNAP_CHECK_LACKS, "none");
}

const struct check checks_of_machine[] = {
	{ LIMITS, "open files", files, false, "trees with more open files than that are restored more slowly, or not",
	  "ulimit -Hn 1048576 as root; for good: /etc/security/limits.conf, or LimitNOFILE= of systemd" },
	{ LIMITS, "processes", processes, false, "trees, or copies, of more threads than that cannot be restored",
	  "ulimit -Hu 65536 as root; or /etc/security/limits.conf" },
	{ LIMITS, "locked memory", locked, false, "programs that had more locked than that cannot be restored",
	  "ulimit -Hl unlimited as root; or CAP_IPC_LOCK" },
	{ LIMITS, "mappings", mappings, false, "programs with more mappings cannot be restored",
	  "as root: sysctl vm.max_map_count=1048576" },
	{ LIMITS, "process IDs", pids, false, "process IDs of larger machines cannot be taken here",
	  "as root: sysctl kernel.pid_max=4194304 kernel.threads-max=1000000" },
	{ STORE, "directory", directory, false, "no image can be written", "name another: FSNAP_STORE=DIR or --store DIR" },
	{ STORE, "medium", medium, false, "large images do not fit", "fsnap rm --trim; or another --store" },
	{ STORE, "reflinks", reflink, false, "dump --with copies files, where it could share their blocks",
	  "a store on xfs, btrfs or bcachefs, on the file system that has the files" },
	{ STORE, "persistent memory", persistent_memory, false,
	  "images are in DRAM, and gone with the machine, or on a disk, and slower", "a store in /dev/shm is as fast, as long as the machine runs" },
	{ 0 },
};
