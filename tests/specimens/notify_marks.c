/*
 * A fanotify instance: marks on an inode, a mount, a file system, and one that ignores; class and flags.
 *
 * harness: root
 */
#include "specimen.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/fanotify.h>
#include <sys/mount.h>
#include <sys/stat.h>

static int fan, by_id;

/* How many events there are; what they carry is closed. */
static int count(int fd, uint64_t *mask)
{
	char buffer[4096];
	int n = 0;
	*mask = 0;
	ssize_t size = read(fd, buffer, sizeof(buffer));
	struct fanotify_event_metadata *event = (void *)buffer;
	for (; size > 0 && FAN_EVENT_OK(event, size); event = FAN_EVENT_NEXT(event, size), n++) {
		*mask |= event->mask;
		if (event->fd >= 0) {
			expect_int("opened with", O_RDONLY, fcntl(event->fd, F_GETFL) & O_ACCMODE);
			close(event->fd);
		}
	}
	return n;
}

static void touch(const char *path)
{
	int fd = MUST(open(path, O_WRONLY | O_CREAT, 0644));
	MUST(write(fd, "x", 1));
	close(fd);
}

int main(void)
{
	char *mounted = specimen_path("dir/mounted"), *file = specimen_path("dir/file");
	char *inside = specimen_path("dir/mounted/inside"), *ignored = specimen_path("dir/mounted/ignored");
	char *other = specimen_path("dir/other"), *child = specimen_path("dir/other/child");
	uint64_t mask;
	MUST(mkdir(mounted, 0755));
	MUST(mkdir(other, 0755));
	MUST(mount("none", mounted, "tmpfs", 0, "size=1m"));
	touch(file);
	touch(ignored);
	fan = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY | O_LARGEFILE);
	if (fan < 0)
		specimen_skip("no fanotify here");
	MUST(fanotify_mark(fan, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, file));
	MUST(fanotify_mark(fan, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_CLOSE_WRITE, AT_FDCWD, mounted));
	MUST(fanotify_mark(fan, FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY,
			   FAN_CLOSE_WRITE, AT_FDCWD, ignored));
	by_id = MUST(fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_REPORT_DFID_NAME, O_RDONLY));
	MUST(fanotify_mark(by_id, FAN_MARK_ADD, FAN_CREATE | FAN_ONDIR, AT_FDCWD, other));
	MUST(fanotify_mark(by_id, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_DELETE, AT_FDCWD, mounted));

	while (specimen_round()) {
		specimen_ready();
		struct pollfd p = { .fd = fan, .events = POLLIN };
		expect_int("nothing happened", 0, poll(&p, 1, 0));
		touch(file);
		expect_int("the marked file", 1, count(fan, &mask));
		expect_hex("was modified", FAN_MODIFY, mask);
		touch(inside);
		expect_int("on the marked mount", 1, count(fan, &mask));
		expect_hex("something was written", FAN_CLOSE_WRITE, mask);
		touch(ignored);
		expect_int("but one is ignored", -0, count(fan, &mask));
		MUST(mkdir(child, 0755));
		expect_int("in the marked directory", 1, count(by_id, &mask));
		expect_hex("a directory was made", FAN_CREATE | FAN_ONDIR, mask);
		MUST(rmdir(child));
		MUST(unlink(inside));
		expect_int("on the marked file system", 1, count(by_id, &mask));
		expect_hex("something was removed", FAN_DELETE, mask);
		expect_int("close-on-exec", FD_CLOEXEC, fcntl(fan, F_GETFD));
		expect_int("not the other", 0, fcntl(by_id, F_GETFD));
	}
	return specimen_end();
}
