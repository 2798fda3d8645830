/*
 * Deleted files that are large and mostly holes: size, content at both ends and in
 * between, and the holes themselves; the time it was written last. Two names of
 * one file, both deleted and both open, are still one file.
 *
 * harness: differs=deleted
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/stat.h>

enum { PIECE = 20000, PIECES = 4 };

static const off_t at[PIECES] = { 0, 1 << 20, (5ll << 30) + 12345, (6ll << 30) - PIECE };

static void expect_same_map(int fd, const off_t *map, int n)
{
	off_t place = 0;
	for (int i = 0; i < n; i++) {
		place = lseek(fd, place, i % 2 ? SEEK_HOLE : SEEK_DATA);
		expect_int(i % 2 ? "where a hole begins" : "where data begins", map[i], place);
	}
}

int main(void)
{
	static char content[PIECE], seen[PIECE];
	char *path = specimen_path("large"), *first = specimen_path("one"), *second = specimen_path("two");
	int fd = MUST(open(path, O_RDWR | O_CREAT, 0600));
	for (int i = 0; i < PIECES; i++) {
		pattern_fill(content, PIECE, (uint64_t)i);
		MUST(pwrite(fd, content, PIECE, at[i]));
	}
	MUST(ftruncate(fd, 7ll << 30));
	MUST(unlink(path));
	off_t map[2 * PIECES - 2];
	for (int i = 0; i < 2 * PIECES - 2; i++)
		map[i] = MUST(lseek(fd, i ? map[i - 1] : 0, i % 2 ? SEEK_HOLE : SEEK_DATA));
	struct timespec times[2] = { { .tv_sec = 1000 }, { .tv_sec = 2000, .tv_nsec = 3 } };
	MUST(futimens(fd, times));
	MUST(lseek(fd, 17, SEEK_SET));

	int one = MUST(open(first, O_RDWR | O_CREAT, 0600));
	MUST(link(first, second));
	int two = MUST(open(second, O_RDWR));
	MUST(unlink(first));
	MUST(unlink(second));
	struct stat before, after, other;
	MUST(fstat(fd, &before));

	while (specimen_round()) {
		specimen_ready();
		expect_int("offset", 17, lseek(fd, 0, SEEK_CUR));
		expect_ok("fstat", fstat(fd, &after));
		expect_int("size", before.st_size, after.st_size);
		expect_between("blocks", before.st_blocks - 64, before.st_blocks + 64, after.st_blocks);
		expect_int("seconds of its time", 2000, after.st_mtim.tv_sec);
		expect_int("nanoseconds of its time", 3, after.st_mtim.tv_nsec);
		for (int i = 0; i < PIECES; i++) {
			expect_int("bytes read", PIECE, pread(fd, seen, PIECE, at[i]));
			expect_pattern("content", seen, PIECE, (uint64_t)i);
		}
		expect_int("bytes read in a hole", PIECE, pread(fd, seen, PIECE, 3ll << 30));
		expect_zero("a hole", seen, PIECE);
		expect_same_map(fd, map, 2 * PIECES - 2);
		MUST(lseek(fd, 17, SEEK_SET));

		expect_ok("fstat", fstat(one, &after));
		expect_ok("fstat", fstat(two, &other));
		expect_int("one inode", (long)after.st_ino, (long)other.st_ino);
		expect_int("no name", 0, (long)other.st_nlink);
		expect_int("bytes written through one", 3, pwrite(one, "abc", 3, specimen_number()));
		expect_int("bytes read through the other", 3, pread(two, seen, 3, specimen_number()));
		expect_bytes("what was written", "abc", seen, 3);
	}
	return specimen_end();
}
