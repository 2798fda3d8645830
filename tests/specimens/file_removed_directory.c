/*
 * Directories that were removed: as descriptor, half read or O_PATH, and as the
 * working directory. Nothing can be found or made in them, and they are nowhere.
 *
 * harness: differs=deleted
 */
#include "specimen.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

static void expect_removed(int fd, mode_t mode, const char *path)
{
	struct stat stat = { 0 };
	char buf[512];
	expect_ok("fstat", fstat(fd, &stat));
	expect_hex("mode", mode | S_IFDIR, stat.st_mode);
	expect_int("owner", (long)geteuid(), (long)stat.st_uid);
	expect_errno("make a file in it", ENOENT, openat(fd, "x", O_WRONLY | O_CREAT, 0600));
	if (!(fcntl(fd, F_GETFL) & O_PATH))
		expect_errno("read it", ENOENT, getdents64(fd, buf, sizeof(buf)));
	if (path)
		expect_errno("its name", ENOENT, access(path, F_OK));
}

int main(void)
{
	char *plain = specimen_path("plain"), *taken = specimen_path("taken"), *outer = specimen_path("outer"),
	     *inner = specimen_path("outer/inner"), *here = specimen_path("here");
	char buf[256];
	MUST(mkdir(plain, 0710));
	MUST(mkdir(taken, 0700));
	MUST(mkdir(outer, 0700));
	MUST(mkdir(inner, 0701));
	MUST(mkdir(here, 0750));
	int fd = MUST(open(plain, O_RDONLY | O_DIRECTORY)), again = MUST(open(plain, O_RDONLY | O_CLOEXEC));
	int by_path = MUST(open(taken, O_PATH | O_DIRECTORY)), deep = MUST(open(inner, O_RDONLY));
	MUST(getdents64(fd, buf, sizeof(buf)));
	MUST(chdir(here));
	const char *const all[] = { plain, taken, inner, outer, here };
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		MUST(rmdir(all[i]));
	MUST(mkdir(taken, 0777)); /* another one of that name */

	while (specimen_round()) {
		specimen_ready();
		expect_removed(fd, 0710, plain);
		expect_removed(again, 0710, plain);
		expect_removed(by_path, 0700, NULL);
		expect_removed(deep, 0701, inner);
		struct stat one = { 0 }, other = { 0 }, named = { 0 };
		expect_ok("fstat", fstat(fd, &one));
		expect_ok("fstat", fstat(again, &other));
		expect_int("one directory", (long)one.st_ino, (long)other.st_ino);
		expect_ok("fstat", fstat(by_path, &one));
		expect_ok("the one that has the name now", stat(taken, &named));
		expect_int("is another", 1, one.st_ino != named.st_ino);
		expect_errno("working directory", ENOENT, getcwd(buf, sizeof(buf)) ? 0 : -1);
		expect_errno("make a file here", ENOENT, open("x", O_WRONLY | O_CREAT, 0600));
		expect_ok("stat .", stat(".", &one));
		expect_hex("mode of .", S_IFDIR | 0750, one.st_mode);
	}
	return specimen_end();
}
