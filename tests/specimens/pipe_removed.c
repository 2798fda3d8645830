/*
 * FIFOs that were removed while open: with both ends and a descriptor of O_PATH,
 * and with one of O_PATH alone. They are FIFOs without a name again, with what was
 * in them, and who opens one anew through /proc/self/fd reaches the same.
 *
 * harness: musl
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/stat.h>

enum { MODE = 0640 };

static struct removed {
	char *path;
	int handle; /* O_PATH */
	char link[4096];
} open_ones, handle_only;

static int open_again(int fd, int flags)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags);
}

static void read_link(int fd, char *link, size_t size)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(path, link, size - 1);
	link[n < 0 ? 0 : n] = '\0';
}

static void make(struct removed *one, const char *name)
{
	one->path = specimen_path("%s", name);
	MUST(mkfifo(one->path, MODE));
	MUST(chmod(one->path, MODE));
	one->handle = MUST(open(one->path, O_PATH));
}

static void lose_name(struct removed *one)
{
	MUST(unlink(one->path));
	read_link(one->handle, one->link, sizeof(one->link));
}

static void expect_nameless(const struct removed *one)
{
	struct stat stat;
	char link[4096];
	expect_errno("its name", ENOENT, lstat(one->path, &stat));
	expect_ok("fstat", fstat(one->handle, &stat));
	expect_int("mode", S_IFIFO | MODE, stat.st_mode);
	expect_int("owner", getuid(), stat.st_uid);
	expect_int("links", 0, (long long)stat.st_nlink);
	expect_int("O_PATH", O_PATH, fcntl(one->handle, F_GETFL) & O_PATH);
	read_link(one->handle, link, sizeof(link));
	expect_text("what /proc says", one->link, link);
}

int main(void)
{
	char seen[64];
	make(&open_ones, "open");
	make(&handle_only, "handle");
	int reader = MUST(open(open_ones.path, O_RDONLY | O_NONBLOCK));
	int writer = MUST(open(open_ones.path, O_WRONLY));
	lose_name(&open_ones);
	lose_name(&handle_only);
	while (specimen_round()) {
		MUST(write(writer, "content", 7));
		specimen_ready();
		expect_nameless(&open_ones);
		expect_nameless(&handle_only);
		expect_int("what was in it", 7, read(reader, seen, sizeof(seen)));
		expect_bytes("content", "content", seen, 7);
		expect_errno("and no more", EAGAIN, read(reader, seen, 1));
		int again = open_again(open_ones.handle, O_WRONLY | O_NONBLOCK);
		expect_int("through O_PATH", 5, write(again, "again", 5));
		expect_int("the same FIFO", 5, read(reader, seen, sizeof(seen)));
		close(again);
		expect_errno("nobody reads it", ENXIO, open_again(handle_only.handle, O_WRONLY | O_NONBLOCK));
		int both = open_again(handle_only.handle, O_RDWR);
		expect_int("it takes bytes", 3, write(both, "new", 3));
		expect_int("and gives them", 3, read(both, seen, sizeof(seen)));
		close(both);
	}
	return specimen_end();
}
