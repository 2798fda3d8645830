/*
 * Every seal of a memfd is there again and nothing but the seals that were: against
 * shrinking, growing, writing, later writing (who had it mapped for writing still has),
 * making executable, and against seals. One that may not be sealed may not.
 */
#include "specimen_memory.h"

#include <sys/stat.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x08u
#define MFD_EXEC 0x10u
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif

enum { SIZE = 3 * PAGE };

static int sealed(const char *name, unsigned flags, unsigned seals, uint64_t seed)
{
	char content[SIZE];
	int fd = memfd_create(name, flags | MFD_CLOEXEC);
	if (fd < 0)
		return -1;
	pattern_fill(content, SIZE, seed);
	MUST(write(fd, content, SIZE));
	if (seals)
		MUST(fcntl(fd, F_ADD_SEALS, seals));
	return fd;
}

int main(void)
{
	static const unsigned kinds[] = {
		F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE, F_SEAL_SHRINK | F_SEAL_SEAL,
		F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL, F_SEAL_FUTURE_WRITE,
		F_SEAL_FUTURE_WRITE | F_SEAL_SEAL,
	};
	enum { N = sizeof(kinds) / sizeof(kinds[0]) };
	int fds[N], modes[N];
	struct stat stat;
	for (int i = 0; i < N; i++) {
		fds[i] = MUST(sealed("sealed", MFD_ALLOW_SEALING, kinds[i], (uint64_t)i));
		MUST(fchmod(fds[i], 0400 + (mode_t)i));
		modes[i] = 0400 + i;
	}
	int plain = MUST(sealed("plain", 0, 0, 50));
	int open_end = MUST(sealed("free", MFD_ALLOW_SEALING, 0, 51));
	int noexec = sealed("noexec", MFD_NOEXEC_SEAL, F_SEAL_SHRINK, 52); /* Linux 6.3 */
	int late = MUST(sealed("late", MFD_ALLOW_SEALING, 0, 53));
	char *writer = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, late, 0));
	MUST(fcntl(late, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL));
	char *reader = MUST(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, late, 0));
	int written = MUST(sealed("written", MFD_ALLOW_SEALING, F_SEAL_WRITE, 54));
	char *copy = MUST(mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, written, 0));
	copy[0] = 77;

	while (specimen_round()) {
		specimen_ready();
		for (int i = 0; i < N; i++) {
			char content[SIZE], expected[SIZE];
			pattern_fill(expected, SIZE, (uint64_t)i);
			expect_hex("seals", kinds[i], (unsigned)fcntl(fds[i], F_GET_SEALS));
			expect_int("bytes", SIZE, pread(fds[i], content, SIZE, 0));
			expect_bytes("content", expected, content, SIZE);
			MUST(fstat(fds[i], &stat));
			expect_hex("mode", (unsigned)modes[i], stat.st_mode & 07777);
			expect_int("owner", geteuid(), stat.st_uid);
		}
		expect_hex("one that may not be sealed", F_SEAL_SEAL, (unsigned)fcntl(plain, F_GET_SEALS));
		expect_hex("one that was not sealed yet", 0, (unsigned)fcntl(open_end, F_GET_SEALS));
		if (noexec >= 0) {
			expect_hex("one that shall never run", F_SEAL_EXEC | F_SEAL_SHRINK,
				   (unsigned)fcntl(noexec, F_GET_SEALS));
			expect_errno("making it executable", EPERM, fchmod(noexec, 0777));
		}
		expect_hex("seals against later writers", F_SEAL_FUTURE_WRITE | F_SEAL_SEAL,
			   (unsigned)fcntl(late, F_GET_SEALS));
		writer[5] = (char)specimen_number();
		expect_int("who could write can", specimen_number(), reader[5]);
		expect_errno("who could not cannot", EACCES, mprotect(reader, PAGE, PROT_READ | PROT_WRITE));
		expect_errno("nobody else can", EPERM,
			     (intptr_t)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, late, 0));
		expect_errno("nor by a system call", EPERM, pwrite(late, "x", 1, 0));
		expect_int("a private copy of what may not be written", 77, copy[0]);
		expect_errno("itself", EPERM, pwrite(written, "x", 1, 0));
	}
	return specimen_end();
}
