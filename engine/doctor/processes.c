/*
 * processes.c - may we look into processes, and how much does the kernel tell of them.
 *
 * What traces runs apart, so that ptrace(2) of these children cannot meet a dump's of the same caller.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/kcmp.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/doctor/doctor.h"
#include "store/scope.h"

#define GROUP "Looking into processes"
#define PAGE 4096ul

/* struct pm_scan_arg of <linux/fs.h>, which Debian 12's lacks. */
struct scan {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask,
		category_anyof_mask, return_mask;
};
#define SCAN _IOWR('f', 16, struct scan)
#define SCAN_PRESENT (1u << 3)

static void ptrace_own(struct finding *finding, const char *store)
{
	(void)store;
	pid_t pid = subject_start(NULL);
	find_result(finding, pid > 0 && ptrace(PTRACE_SEIZE, pid, 0, 0) == 0, FSNAP_CHECK_FATAL);
	if (pid > 0)
		subject_end(pid);
}

static pid_t brother;

static void seize_brother(void *arg)
{
	find_result(arg, ptrace(PTRACE_SEIZE, brother, 0, 0) == 0, FSNAP_CHECK_LACKS);
}

/* Yama allows ancestors by default, and nobody else: a brother tries (Documentation/admin-guide/LSM/Yama.rst). */
static void ptrace_others(struct finding *finding, const char *store)
{
	(void)store;
	brother = subject_start(NULL);
	if (brother < 0 || !subject_run(seize_brother, finding))
		find(finding, FSNAP_CHECK_LACKS, "%s", strerror(errno));
	if (brother > 0)
		subject_end(brother);
	long long scope = number_in("/proc/sys/kernel/yama/ptrace_scope");
	if (finding->state != FSNAP_CHECK_GOOD && scope > 0)
		find(finding, FSNAP_CHECK_LACKS, "kernel.yama.ptrace_scope is %lld", scope);
}

static void other_users(struct finding *finding, const char *store)
{
	(void)store;
	if (has_capability(CAP_SYS_PTRACE))
		find(finding, FSNAP_CHECK_GOOD, "CAP_SYS_PTRACE");
	else
		find(finding, FSNAP_CHECK_LACKS, "no CAP_SYS_PTRACE");
}

static void read_memory(struct finding *finding, const char *store)
{
	(void)store;
	char there = 'x', here = 0;
	struct iovec local = { &here, 1 }, remote = { &there, 1 };
	pid_t pid = subject_start(NULL);
	bool worked = pid > 0 && process_vm_readv(pid, &local, 1, &remote, 1, 0) == 1 && here == 'x';
	find_result(finding, worked, FSNAP_CHECK_FATAL);
	if (pid > 0)
		subject_end(pid);
}

static void get_descriptors(struct finding *finding, const char *store)
{
	(void)store;
	pid_t pid = subject_start(NULL);
	cleanup_fd int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	/* Any descriptor will do; one that the child does not have gives EBADF, which is an answer, too. */
	cleanup_fd int got = pidfd >= 0 ? (int)syscall(SYS_pidfd_getfd, pidfd, 0, 0) : -1;
	find_result(finding, got >= 0 || (pidfd >= 0 && errno == EBADF), FSNAP_CHECK_FATAL);
	if (pid > 0)
		subject_end(pid);
}

static void compare_files(struct finding *finding, const char *store)
{
	(void)store;
	pid_t pid = subject_start(NULL);
	find_result(finding, pid > 0 && syscall(SYS_kcmp, pid, getpid(), KCMP_VM, 0, 0) >= 0, FSNAP_CHECK_FATAL);
	if (pid > 0)
		subject_end(pid);
}

/* Compiled in with what else a checkpoint asks for: PTRACE_GET_SIGMASK, /proc/PID/timers, PR_SET_MM_MAP. */
static void checkpoint_option(struct finding *finding, const char *store)
{
	(void)store;
	unsigned size;
	find_result(finding, prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0) == 0, FSNAP_CHECK_FATAL);
}

static void map_files(struct finding *finding, const char *store)
{
	(void)store;
	char path[96];
	char *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)at, (unsigned long)at + PAGE);
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	find_result(finding, fd >= 0, FSNAP_CHECK_LACKS);
	munmap(at, PAGE);
}

static void page_frames(struct finding *finding, const char *store)
{
	(void)store;
	volatile char here = 1;
	uint64_t entry = 0;
	cleanup_fd int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	errno = EPERM;
	bool worked = fd >= 0 && pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)&here / PAGE * 8)) == 8;
	find_result(finding, worked && (entry & ((1ull << 55) - 1)), FSNAP_CHECK_LACKS);
	if (worked && finding->state != FSNAP_CHECK_GOOD)
		find(finding, FSNAP_CHECK_LACKS, "/proc/PID/pagemap hides them");
}

static void pagemap_scan(struct finding *finding, const char *store)
{
	(void)store;
	struct {
		uint64_t start, end, categories;
	} region;
	char *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	struct scan scan = { .size = sizeof(scan), .start = (uintptr_t)at, .end = (uintptr_t)at + PAGE,
				    .vec = (uintptr_t)&region, .vec_len = 1,
			     .category_anyof_mask = SCAN_PRESENT, .return_mask = SCAN_PRESENT };
	cleanup_fd int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	find_result(finding, fd >= 0 && ioctl(fd, SCAN, &scan) == 1, FSNAP_CHECK_LACKS);
	munmap(at, PAGE);
}

static void seccomp_filter(void)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { 1, &allow };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

static void seccomp_read(struct finding *finding, const char *store)
{
	(void)store;
	pid_t pid = subject_start(seccomp_filter);
	bool stopped = pid > 0 && ptrace(PTRACE_SEIZE, pid, 0, 0) == 0 && ptrace(PTRACE_INTERRUPT, pid, 0, 0) == 0 &&
		       waitpid(pid, NULL, __WALL) == pid;
	find_result(finding, stopped && ptrace(PTRACE_SECCOMP_GET_FILTER, pid, 0, NULL) >= 0, FSNAP_CHECK_LACKS);
	if (pid > 0)
		subject_end(pid);
}

const struct check checks_of_processes[] = {
	{ GROUP, "own children", ptrace_own, true, "nothing can be saved or restored: fsnap needs ptrace(2)",
	  "a seccomp filter or security module forbids it: docker run --cap-add SYS_PTRACE" },
	{ GROUP, "programs started elsewhere", ptrace_others, true,
	  "only what was started by the process that dumps it can be saved",
	  "as root: sysctl kernel.yama.ptrace_scope=0; or run fsnap as root" },
	{ GROUP, "other users' programs", other_users, false, "only your own programs can be saved",
	  "run fsnap as root, or give it CAP_SYS_PTRACE" },
	{ GROUP, "kernel for checkpoints", checkpoint_option, false, "nothing can be saved or restored",
	  "a kernel with CONFIG_CHECKPOINT_RESTORE, as all large distributions have" },
	{ GROUP, "memory", read_memory, true, "nothing can be saved", "a kernel with CONFIG_CROSS_MEMORY_ATTACH" },
	{ GROUP, "descriptors", get_descriptors, true, "nothing can be saved: pidfd_getfd(2) is needed",
	  "Linux 5.6 or newer; a seccomp filter may forbid it" },
	{ GROUP, "same open files", compare_files, true, "nothing can be saved: kcmp(2) is needed",
	  "a kernel with CONFIG_KCMP" },
	{ GROUP, "memory without a name", map_files, false,
	  "shared anonymous memory and deleted files that are mapped cannot be saved",
	  "run fsnap as root, or give it CAP_CHECKPOINT_RESTORE (Linux 5.9)" },
	{ GROUP, "physical frames", page_frames, false,
	  "memory that forked processes share is saved, and afterwards lies, once for each of them",
	  "run fsnap as root, or give it CAP_SYS_ADMIN" },
	{ GROUP, "PAGEMAP_SCAN", pagemap_scan, false,
	  "finding pages takes longer, some 4 ms a GiB of the freeze; huge pages are not recognised", "Linux 6.7 or newer" },
	{ GROUP, "seccomp filters", seccomp_read, true,
	  "programs with filters (browsers, what containers and systemd confine) cannot be saved",
	  "run fsnap as root: the kernel wants CAP_SYS_ADMIN" },
	{ 0 },
};
