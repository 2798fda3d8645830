/*
 * A deleted file that is still open: its content, size, mode and offset; two
 * opens of it are still one file, which still has no name; a deleted file that
 * is mapped keeps its content too. What /proc calls it may change: it has no name.
 *
 * harness: differs=deleted
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { SIZE = 30000 };

int main(void)
{
	static char content[SIZE], seen[SIZE];
	char *path = specimen_path("gone"), *mapped_path = specimen_path("gone too");
	pattern_fill(content, SIZE, 3);
	int writer = MUST(open(path, O_RDWR | O_CREAT, 0624));
	MUST(write(writer, content, SIZE));
	int reader = MUST(open(path, O_RDONLY));
	MUST(lseek(reader, 12345, SEEK_SET));
	int fd = MUST(open(mapped_path, O_RDWR | O_CREAT, 0600));
	MUST(write(fd, content, 8192));
	char *mapped = MUST(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	mapped[0] ^= 1;
	MUST(close(fd));
	MUST(unlink(path));
	MUST(unlink(mapped_path));
	struct stat before, after;
	MUST(fstat(writer, &before));

	while (specimen_round()) {
		specimen_ready();
		expect_int("offset", 12345, lseek(reader, 0, SEEK_CUR));
		expect_int("bytes read", SIZE, pread(reader, seen, SIZE, 0));
		expect_bytes("content", content, seen, SIZE);
		pattern_fill(content + 100, 500, 100 + (uint64_t)specimen_number());
		expect_int("bytes written", 500, pwrite(writer, content + 100, 500, 100));
		expect_int("bytes read", 500, pread(reader, seen, 500, 100));
		expect_bytes("what the other open wrote", content + 100, seen, 500);
		expect_ok("fstat", fstat(reader, &after));
		expect_int("size", SIZE, after.st_size);
		expect_hex("mode", before.st_mode, after.st_mode);
		expect_int("owner", before.st_uid, after.st_uid);
		expect_int("names", 0, (long)after.st_nlink);
		expect_errno("its old name", ENOENT, access(path, F_OK));
		mapped[0] ^= 1;
		expect_pattern("mapping of a deleted file", mapped, 8192, 3);
		mapped[0] ^= 1;
	}
	return specimen_end();
}
