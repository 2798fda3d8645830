/*
 * Files made with O_TMPFILE: content, flags, and that they can still be given a
 * name, as one that was deleted cannot.
 *
 * harness: differs=deleted
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/stat.h>

static int give_name(int fd, const char *path)
{
	char link[64];
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, link, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
}

int main(void)
{
	char *dir = specimen_path("dir"), *name = specimen_path("named");
	char seen[16];
	int probe = open(dir, O_TMPFILE | O_RDWR, 0600);
	if (probe < 0)
		specimen_skip("the file system has no O_TMPFILE");
	close(probe);
	int gone = MUST(open(specimen_path("gone"), O_RDWR | O_CREAT, 0600));
	MUST(unlink(specimen_path("gone")));

	while (specimen_round()) {
		int fd = MUST(open(dir, O_TMPFILE | O_RDWR | O_APPEND | O_SYNC, 0640));
		int writer = MUST(open(dir, O_TMPFILE | O_WRONLY, 0600));
		char link[64];
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		int second = MUST(open(link, O_RDONLY));
		MUST(write(fd, "content", 7));
		MUST(write(writer, "more", 4));
		int flags = MUST(fcntl(fd, F_GETFL)), writing = MUST(fcntl(writer, F_GETFL));
		unlink(name);
		specimen_ready();
		expect_hex("flags", (unsigned)flags, (unsigned)fcntl(fd, F_GETFL));
		expect_hex("flags", (unsigned)writing, (unsigned)fcntl(writer, F_GETFL));
		expect_int("offset", 4, lseek(writer, 0, SEEK_CUR));
		expect_int("bytes read", 7, read(second, seen, sizeof(seen)));
		expect_bytes("content", "content", seen, 7);
		expect_ok("give it a name", give_name(fd, name));
		struct stat stat = { 0 };
		expect_ok("it has the name", lstat(name, &stat));
		expect_int("size", 7, stat.st_size);
		expect_hex("mode", 0100640, stat.st_mode);
		expect_errno("a deleted file has none for ever", ENOENT, give_name(gone, specimen_path("never")));
		close(fd);
		close(writer);
		close(second);
	}
	return specimen_end();
}
