/*
 * Descriptors of directories and O_PATH descriptors lead where they led, and a
 * directory that was half read goes on where it was. The working directory of
 * the process may have been reached through one.
 */
#include "specimen.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { FILES = 40 };

int main(void)
{
	char *path = specimen_path("dir/inner");
	MUST(mkdir(path, 0700));
	for (int i = 0; i < FILES; i++)
		close(MUST(open(specimen_path("dir/inner/f%d", i), O_WRONLY | O_CREAT, 0600)));
	int fd = MUST(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	int by_path = MUST(open(specimen_path("dir/inner/f7"), O_PATH));
	MUST(fchdir(fd));
	struct stat before, after;
	MUST(fstat(by_path, &before));
	DIR *half = opendir(path);
	int entries = 0;
	for (; entries < 10; entries++)
		MUST((intptr_t)readdir(half) ? 0 : -1);
	long place = telldir(half);

	while (specimen_round()) {
		specimen_ready();
		expect_ok("openat", faccessat(fd, "f13", F_OK, 0));
		expect_ok("relative to the working directory", access("f14", F_OK));
		expect_int("close-on-exec", FD_CLOEXEC, fcntl(fd, F_GETFD));
		expect_ok("fstat of the O_PATH descriptor", fstat(by_path, &after));
		expect_int("its file", (long)before.st_ino, (long)after.st_ino);
		expect_int("O_PATH", O_PATH, fcntl(by_path, F_GETFL) & O_PATH);
		seekdir(half, place);
		int rest = 0;
		while (readdir(half))
			rest++;
		expect_int("entries in the other part of the directory", FILES + 2 - 10, rest);
	}
	return specimen_end();
}
