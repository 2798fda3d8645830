/*
 * memory.c - userfaultfd, huge pages, io_uring.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/doctor/doctor.h"
#include "store/scope.h"

#define GROUP "Memory"
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

/* A userfaultfd with these features, closed again; -1 with errno. */
static int try_userfaultfd(int flags, unsigned long long features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	cleanup_fd int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | flags);

	return fd < 0 ? -1 : ioctl(fd, UFFDIO_API, &api);
}

static void userfaultfd(struct finding *finding, const char *store)
{
	(void)store;
	find_result(finding, try_userfaultfd(0, 0) == 0, FSNAP_CHECK_LACKS);
	int why = errno;
	if (finding->state != FSNAP_CHECK_GOOD && try_userfaultfd(UFFD_USER_MODE_ONLY, 0) == 0)
		find(finding, FSNAP_CHECK_PARTLY, "for faults of user code only: %s", strerror(why));
}

static void asynchronous(struct finding *finding, const char *store)
{
	(void)store;
	find_result(finding, try_userfaultfd(UFFD_USER_MODE_ONLY, UFFD_FEATURE_WP_ASYNC) == 0, FSNAP_CHECK_LACKS);
}

static void fork_events(struct finding *finding, const char *store)
{
	(void)store;
	find_result(finding, try_userfaultfd(0, UFFD_FEATURE_EVENT_FORK) == 0, FSNAP_CHECK_LACKS);
}

static void transparent_huge(struct finding *finding, const char *store)
{
	(void)store;
	char line[128];
	line_in("/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof(line));
	if (!line[0] || strstr(line, "[never]"))
		find(finding, FSNAP_CHECK_LACKS, line[0] ? "switched off" : "not in this kernel");
	else
		find(finding, FSNAP_CHECK_GOOD, "%s", strstr(line, "[always]") ? "always" : "where programs ask (madvise)");
}

/* What is of one size only: 2 MiB. Nobody loses anything who has no program that uses them. */
static void reserved_huge(struct finding *finding, const char *store)
{
	(void)store;
	long long free_ones = number_in("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
	long long more = number_in("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages");
	if (free_ones > 0 || more > 0)
		find(finding, FSNAP_CHECK_GOOD, "%lld free, %lld more on demand", free_ones, more);
	else
		find(finding, FSNAP_CHECK_PARTLY, free_ones < 0 ? "not in this kernel" : "none are reserved");
}

static void uring(struct finding *finding, const char *store)
{
	(void)store;
	struct io_uring_params parameters = { 0 };
	cleanup_fd int fd = (int)syscall(SYS_io_uring_setup, 4, &parameters);
	find_result(finding, fd >= 0, FSNAP_CHECK_LACKS);
	long long disabled = number_in("/proc/sys/kernel/io_uring_disabled");
	if (fd < 0 && disabled > 0)
		find(finding, FSNAP_CHECK_LACKS, "kernel.io_uring_disabled is %lld", disabled);
}

static void populate(struct finding *finding, const char *store)
{
	(void)store;
	char *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	find_result(finding, madvise(at, 4096, MADV_POPULATE_WRITE) == 0, FSNAP_CHECK_LACKS);
	munmap(at, 4096);
}

const struct check checks_of_memory[] = {
	{ GROUP, "userfaultfd", userfaultfd, false,
	  "memory cannot flow in behind a program that runs already: a restore puts all of it back first",
	  "as root: sysctl vm.unprivileged_userfaultfd=1; or run fsnap as root" },
	{ GROUP, "tracking of writes", asynchronous, false,
	  "a dump cannot copy memory while the program runs: all of it is copied in the freeze",
	  "Linux 6.7 or newer (UFFD_FEATURE_WP_ASYNC)" },
	{ GROUP, "forks while memory flows in", fork_events, false,
	  "a program that forks meanwhile waits until all its memory is there",
	  "run fsnap as root, or give it CAP_SYS_PTRACE (UFFD_FEATURE_EVENT_FORK)" },
	{ GROUP, "filling in batches", populate, false, "memory is put back page fault by page fault, at half the speed",
	  "Linux 5.14 or newer (MADV_POPULATE_WRITE)" },
	{ GROUP, "transparent huge pages", transparent_huge, false,
	  "large memory is copied, and put back, several times slower",
	  "as root: echo madvise >/sys/kernel/mm/transparent_hugepage/enabled" },
	{ GROUP, "reserved huge pages", reserved_huge, false, "programs that use hugetlbfs cannot be restored here",
	  "as root: sysctl vm.nr_overcommit_hugepages=512" },
	{ GROUP, "io_uring", uring, false,
	  "image pages are read from a disk when they are needed, not ahead; programs with rings cannot be restored",
	  "as root: sysctl kernel.io_uring_disabled=0; a container's seccomp filter may forbid it" },
	{ 0 },
};
