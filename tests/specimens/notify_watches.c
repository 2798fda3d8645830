/*
 * An inotify instance: what it watches, under which numbers and for what; a one-shot watch that was
 * used up stays away, one that was not tells once; a file that was renamed and one that was deleted
 * while open are still watched; the next watch gets the next number.
 */
#include "specimen.h"

#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/inotify.h>
#include <sys/stat.h>

static int notify;

/* All that is to be read, as text: "wd:mask:name ". */
static const char *events(void)
{
	static char text[4096];
	char buffer[8192];
	size_t used = 0;
	text[0] = '\0';
	ssize_t n = read(notify, buffer, sizeof(buffer));
	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *event = (const void *)(buffer + at);
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%d:%x:%s ", event->wd, event->mask,
					 event->len ? event->name : "");
		at += (ssize_t)(sizeof(*event) + event->len);
	}
	return text;
}

static void touch(const char *path)
{
	close(MUST(open(path, O_WRONLY | O_CREAT, 0644)));
}

static const char *line(const char *format, ...)
{
	static char text[512];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return text;
}

int main(void)
{
	char *directory = specimen_path("dir/watched"), *file = specimen_path("dir/file");
	char *old = specimen_path("dir/old"), *renamed = specimen_path("dir/new name");
	char *gone = specimen_path("dir/gone"), *inside = specimen_path("dir/watched/inside");
	char *later = specimen_path("dir/later");
	MUST(mkdir(directory, 0755));
	MUST(mkdir(later, 0755));
	touch(file);
	touch(old);
	touch(gone);
	notify = MUST(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
	int wd_used = MUST(inotify_add_watch(notify, file, IN_MODIFY | IN_ONESHOT));
	int wd_directory = MUST(inotify_add_watch(notify, directory, IN_CREATE | IN_DELETE | IN_EXCL_UNLINK));
	int wd_renamed = MUST(inotify_add_watch(notify, old, IN_ATTRIB));
	int wd_gone = MUST(inotify_add_watch(notify, gone, IN_MODIFY));
	int wd_last = MUST(inotify_add_watch(notify, later, IN_CREATE));
	int open_gone = MUST(open(gone, O_RDWR));
	int writing = MUST(open(file, O_WRONLY));
	MUST(unlink(gone));
	MUST(rename(old, renamed));
	MUST(inotify_rm_watch(notify, wd_last));
	MUST(write(writing, "x", 1));
	events();
	int next = wd_last + 1;

	while (specimen_round()) {
		int once = MUST(inotify_add_watch(notify, file, IN_MODIFY | IN_ONESHOT));
		expect_int("a number after the last", next++, once);
		MUST(inotify_rm_watch(notify, MUST(inotify_add_watch(notify, later, IN_CREATE))));
		next++; /* used up */
		events();
		specimen_ready();
		struct pollfd p = { .fd = notify, .events = POLLIN };
		expect_int("nothing happened", 0, poll(&p, 1, 0));
		touch(inside);
		expect_text("in the directory", line("%d:%x:inside ", wd_directory, IN_CREATE), events());
		MUST(unlink(inside));
		expect_text("gone again", line("%d:%x:inside ", wd_directory, IN_DELETE), events());
		MUST(chmod(renamed, 0600));
		expect_text("the renamed file", line("%d:%x: ", wd_renamed, IN_ATTRIB), events());
		MUST(write(open_gone, "x", 1));
		expect_text("the deleted file", line("%d:%x: ", wd_gone, IN_MODIFY), events());
		MUST(write(writing, "x", 1));
		expect_text("once", line("%d:%x: %d:%x: ", once, IN_MODIFY, once, IN_IGNORED), events());
		MUST(write(writing, "x", 1));
		expect_text("and not again", "", events());
		expect_errno("the used-up watch", EINVAL, inotify_rm_watch(notify, wd_used));
		expect_int("the same directory has its number", wd_directory,
			   inotify_add_watch(notify, directory, IN_CREATE | IN_DELETE | IN_EXCL_UNLINK));
		expect_int("the next number", next++, inotify_add_watch(notify, later, IN_CREATE));
		MUST(inotify_rm_watch(notify, next - 1));
		events();
		expect_int("close-on-exec", FD_CLOEXEC, fcntl(notify, F_GETFD));
	}
	return specimen_end();
}
