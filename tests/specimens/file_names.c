/*
 * File names that are hard to read back: with blanks, newlines, backslashes, "
 * (deleted)" at their end or in the middle, like other kinds of files; opened,
 * mapped, and through a symbolic link. One of each is deleted.
 *
 * harness: differs=deleted
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { NAMES = 8 };

static const char *const names[NAMES] = {
	"a b", "line\nbreak", "back\\slash\\040", "it is (deleted)", "it (deleted) is", "socket:[1]",
	"anon_inode:[eventpoll]", " \t\\012 (deleted) (deleted)",
};

int main(void)
{
	int fds[NAMES], deleted[NAMES];
	char *maps[NAMES], seen[2];
	struct stat before[NAMES], after;
	for (int i = 0; i < NAMES; i++) {
		char *path = specimen_path("dir/%s", names[i]), *gone = specimen_path("%s", names[i]);
		fds[i] = MUST(open(path, O_RDWR | O_CREAT, 0600));
		MUST(ftruncate(fds[i], 4096));
		MUST(fstat(fds[i], &before[i]));
		int mapped = MUST(open(path, O_RDWR));
		maps[i] = MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0));
		MUST(close(mapped));
		deleted[i] = MUST(open(gone, O_RDWR | O_CREAT, 0600));
		MUST(write(deleted[i], "d", 1));
		MUST(unlink(gone));
	}
	MUST(symlink("dir/line\nbreak", specimen_path("link")));
	int linked = MUST(open(specimen_path("link"), O_RDWR));

	while (specimen_round()) {
		specimen_ready();
		for (int i = 0; i < NAMES; i++) {
			char byte = (char)('0' + specimen_number());
			expect_ok("fstat", fstat(fds[i], &after));
			expect_int("inode", (long)before[i].st_ino, (long)after.st_ino);
			maps[i][7] = byte;
			expect_int("bytes read", 1, pread(fds[i], seen, 1, 7));
			expect_int("what was written into the mapping", byte, seen[0]);
			expect_ok("fstat", fstat(deleted[i], &after));
			expect_int("links of the deleted one", 0, (long)after.st_nlink);
			expect_int("bytes read of the deleted one", 1, pread(deleted[i], seen, 2, 0));
		}
		expect_ok("fstat", fstat(linked, &after));
		expect_int("behind the link", (long)before[1].st_ino, (long)after.st_ino);
	}
	return specimen_end();
}
