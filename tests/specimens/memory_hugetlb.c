/*
 * Huge pages of the system's pool (hugetlb), in every way to have them: private and
 * shared anonymous memory, memfds, files on hugetlbfs with a name and without, and what
 * was written to a private mapping of one. They are such pages again, hold what they
 * held, are shared or private as before; what was never touched takes none.
 *
 * harness: hugepages=24
 */
#include "specimen_memory.h"

#include <linux/memfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define HUGE_SIZE (2 * MIB)
#define FLAGS (MAP_HUGETLB | 21 << MAP_HUGE_SHIFT)

#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT 26
#endif

static char *huge_file(const char *name, size_t pages, uint64_t seed, int *fd)
{
	char *path = specimen_path("huge/%s", name);
	*fd = MUST(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	MUST(ftruncate(*fd, (off_t)(pages * HUGE_SIZE)));
	char *at = MUST(mmap(NULL, pages * HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0));
	pattern_fill(at, HUGE_SIZE, seed);
	return at;
}

static void expect_huge(const char *what, const char *at, uint64_t seed)
{
	expect_int(what, 2048, smaps_number(at, "KernelPageSize"));
	expect_pattern(what, at, HUGE_SIZE, seed);
}

static long present_kib(const char *at)
{
	return smaps_number(at, "Private_Hugetlb") + smaps_number(at, "Shared_Hugetlb");
}

int main(void)
{
	char *own = MUST(mmap(NULL, 3 * HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | FLAGS, -1, 0));
	pattern_fill(own, HUGE_SIZE, 1);
	pattern_fill(own + 2 * HUGE_SIZE, HUGE_SIZE, 2);
	MUST(mprotect(own + 2 * HUGE_SIZE, HUGE_SIZE, PROT_READ));
	char *loose = MUST(mmap(NULL, 8 * HUGE_SIZE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | FLAGS, -1, 0));
	pattern_fill(loose + 5 * HUGE_SIZE, HUGE_SIZE, 3);
	char *shared = MUST(mmap(NULL, 2 * HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | FLAGS, -1, 0));
	pattern_fill(shared, HUGE_SIZE, 4);
	int memfd = MUST(memfd_create("huge", MFD_HUGETLB | MFD_HUGE_2MB | MFD_ALLOW_SEALING | MFD_CLOEXEC));
	MUST(ftruncate(memfd, 3 * HUGE_SIZE));
	char *of_memfd = MUST(mmap(NULL, HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, HUGE_SIZE));
	pattern_fill(of_memfd, HUGE_SIZE, 5);
	MUST(fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK));
	int named_fd, deleted_fd;
	char *named = huge_file("named", 2, 6, &named_fd), *deleted = huge_file("deleted", 1, 7, &deleted_fd);
	MUST(unlink(specimen_path("huge/deleted")));
	char *copied = MUST(mmap(NULL, HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, named_fd, 0));
	pattern_fill(copied, HUGE_SIZE, 8);
	MUST(close(named_fd));
	long loose_kib = present_kib(loose);
	pid_t pid = MUST(fork());
	if (pid == 0) {
		while (specimen_child_round()) {
			expect_int("child: the same shared memory", specimen_number(), shared[HUGE_SIZE]);
			expect_pattern("child: its copy of private memory", own, PAGE, 1);
		}
		_exit(specimen_end());
	}

	int number = 0;
	while (specimen_round()) {
		shared[HUGE_SIZE] = (char)++number;
		specimen_ready();
		expect_huge("private", own, 1);
		expect_huge("private, read-only", own + 2 * HUGE_SIZE, 2);
		expect_zero("private, untouched", own + HUGE_SIZE, PAGE);
		expect_huge("without reservation", loose + 5 * HUGE_SIZE, 3);
		expect_int("of it present (KiB)", loose_kib, present_kib(loose));
		expect_huge("shared", shared, 4);
		expect_huge("of a memfd", of_memfd, 5);
		expect_errno("sealed", EPERM, ftruncate(memfd, HUGE_SIZE));
		expect_ok("not sealed", ftruncate(memfd, 3 * HUGE_SIZE));
		expect_huge("of a file", named, 6);
		expect_huge("of a deleted file", deleted, 7);
		expect_huge("written in a private mapping", copied, 8);
		struct stat stat;
		MUST(fstat(deleted_fd, &stat));
		expect_int("block size of the deleted file", HUGE_SIZE, stat.st_blksize);
		char *again = MUST(mmap(NULL, HUGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, deleted_fd, 0));
		again[1] ^= 1;
		expect_int("file and mapping are one", again[1], deleted[1]);
		again[1] ^= 1;
		MUST(munmap(again, HUGE_SIZE));
		specimen_await(1);
	}
	int status;
	MUST(waitpid(pid, &status, 0));
	expect_int("child's status", 0, status);
	return specimen_end();
}
