/*
 * Anonymous files made by memfd_create: content, size, seals, the name, and that
 * descriptor and mapping are one; one that is called as the vDSO is, and empty.
 *
 * harness: may-refuse
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/mman.h>

enum { SIZE = 40000 };

int main(void)
{
	static char content[SIZE], seen[SIZE];
	int fd = MUST(memfd_create("specimen", MFD_ALLOW_SEALING | MFD_CLOEXEC));
	pattern_fill(content, SIZE, 9);
	MUST(write(fd, content, SIZE));
	MUST(lseek(fd, 77, SEEK_SET));
	char *mapped = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	MUST(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
	int empty = MUST(memfd_create("linux-vdso.so.1", MFD_CLOEXEC));

	while (specimen_round()) {
		specimen_ready();
		expect_int("offset", 77, lseek(fd, 0, SEEK_CUR));
		expect_int("bytes", SIZE, pread(fd, seen, SIZE, 0));
		expect_bytes("content", content, seen, SIZE);
		expect_bytes("mapping", content, mapped, SIZE);
		pattern_fill(content, 500, 10 + (uint64_t)specimen_number());
		memcpy(mapped, content, 500);
		expect_int("bytes", 500, pread(fd, seen, 500, 0));
		expect_bytes("what was written to memory", content, seen, 500);
		expect_hex("seals", F_SEAL_SHRINK | F_SEAL_GROW, (unsigned)fcntl(fd, F_GET_SEALS));
		expect_errno("growing", EPERM, ftruncate(fd, SIZE + 1));
		expect_int("the empty one", 0, lseek(empty, 0, SEEK_END));
		char link[256] = "";
		MUST(readlink("/proc/self/fd/3", link, sizeof(link) - 1));
		expect_text("name", "/memfd:specimen (deleted)", link);
	}
	return specimen_end();
}
