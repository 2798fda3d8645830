/*
 * Events of inotify that were not read: every kind, with and without names, in order; a rename in two
 * halves that belong together; watches that have ended; and a queue that was too full.
 */
#include "specimen.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static int notify, overfull;

/* All that is to be read, as text: "wd:mask:name ", a rename's halves marked with the same letter. */
static const char *events(int fd, char *text, size_t size)
{
	static char buffer[1 << 20];
	uint32_t cookie = 0;
	char letter = 'a' - 1;
	size_t used = 0;
	text[0] = '\0';
	ssize_t n;
	while ((n = read(fd, buffer, sizeof(buffer))) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *event = (const void *)(buffer + at);
			if (event->cookie && event->cookie != cookie)
				letter++;
			cookie = event->cookie ? event->cookie : cookie;
			if (used < size)
				used += (size_t)snprintf(text + used, size - used, "%d:%x:%s%c ", event->wd,
							 event->mask, event->len ? event->name : "",
							 event->cookie ? letter : '.');
			at += (ssize_t)(sizeof(*event) + event->len);
		}
	}
	return text;
}

static void happen(const char *directory, const char *file)
{
	char path[512], other[512], byte;
	snprintf(path, sizeof(path), "%s/a name with blanks", directory);
	snprintf(other, sizeof(other), "%s/other", directory);
	int fd = MUST(open(path, O_RDWR | O_CREAT, 0644));
	MUST(write(fd, "content", 7));
	MUST(pread(fd, &byte, 1, 0));
	MUST(fchmod(fd, 0600));
	close(fd);
	close(MUST(open(path, O_RDONLY)));
	MUST(rename(path, other));
	MUST(unlink(other));
	MUST(mkdir(path, 0755));
	MUST(rmdir(path));
	MUST(chmod(directory, 0755));
	fd = MUST(open(file, O_RDWR));
	MUST(write(fd, "content", 7));
	close(fd);
}

/* The same twice: the second is what the first was. */
static void all_of_it(char *directory, char *file)
{
	char *second = specimen_path("dir/second"), *short_lived = specimen_path("dir/short-lived");
	char *inside = specimen_path("dir/second/from"), *moved = specimen_path("dir/watched/to");
	MUST(mkdir(second, 0755));
	close(MUST(open(short_lived, O_WRONLY | O_CREAT, 0644)));
	int wd = MUST(inotify_add_watch(notify, second, IN_ALL_EVENTS));
	MUST(inotify_add_watch(notify, short_lived, IN_ALL_EVENTS));
	happen(directory, file);
	close(MUST(open(inside, O_WRONLY | O_CREAT, 0644)));
	MUST(rename(inside, moved)); /* between two that are watched */
	MUST(unlink(moved));
	MUST(rename(short_lived, inside));
	MUST(unlink(inside));
	MUST(inotify_rm_watch(notify, wd));
	MUST(rmdir(second));
}

static int queue_size(void)
{
	int most = 0;
	FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "r");
	if (!file || fscanf(file, "%d", &most) != 1)
		most = 0;
	fclose(file);
	return most;
}

int main(void)
{
	static char expected[16384], seen[16384], many[4096], more[4096];
	char *directory = specimen_path("dir/watched"), *file = specimen_path("dir/watched file");
	MUST(mkdir(directory, 0755));
	char *flooded = specimen_path("dir/flooded");
	int fd = MUST(open(flooded, O_RDWR | O_CREAT, 0644));
	close(MUST(open(file, O_RDWR | O_CREAT, 0644)));
	notify = MUST(inotify_init1(IN_NONBLOCK));
	overfull = MUST(inotify_init1(IN_NONBLOCK));
	int on_directory = MUST(inotify_add_watch(notify, directory, IN_ALL_EVENTS));
	MUST(inotify_add_watch(notify, file, IN_ALL_EVENTS));
	int one = MUST(inotify_add_watch(overfull, flooded, IN_ATTRIB | IN_MODIFY));
	int most = queue_size();

	while (specimen_round()) {
		/* What a first time gives is what a second would, but for the numbers of short-lived watches. */
		all_of_it(directory, file);
		int waiting = 0, after = 0;
		MUST(ioctl(notify, FIONREAD, &waiting));
		events(notify, expected, sizeof(expected));
		MUST(inotify_rm_watch(notify, on_directory));
		MUST(close(notify));
		notify = MUST(inotify_init1(IN_NONBLOCK));
		on_directory = MUST(inotify_add_watch(notify, directory, IN_ALL_EVENTS));
		MUST(inotify_add_watch(notify, file, IN_ALL_EVENTS));
		if (specimen_number() > 1)
			expected[0] = '\0'; /* numbers begin anew */
		all_of_it(directory, file);
		for (int i = 0; i <= most && most <= 65536; i++) {
			MUST(fchmod(fd, 0644));
			MUST(write(fd, "x", 1));
		}
		MUST(ioctl(overfull, FIONREAD, &after));
		specimen_ready();
		int now = 0;
		expect_ok("bytes", ioctl(overfull, FIONREAD, &now));
		expect_int("of a queue that was full", after, now);
		snprintf(many, sizeof(many), "%d:%x:. %d:%x:. ", one, IN_ATTRIB, one, IN_MODIFY);
		events(overfull, more, strlen(many) + 1);
		expect_text("begins with", many, more);
		events(notify, seen, sizeof(seen));
		if (expected[0]) {
			seen[strlen(expected)] = '\0';
			expect_text("events that were not read", expected, seen);
		}
		expect_int("watches go on", on_directory, inotify_add_watch(notify, directory, IN_ALL_EVENTS));
		events(notify, seen, sizeof(seen));
		MUST(chmod(directory, 0755));
		char text[64];
		snprintf(text, sizeof(text), "%d:%x:. ", on_directory, IN_ATTRIB | IN_ISDIR);
		expect_text("and tell", text, events(notify, seen, sizeof(seen)));
	}
	return specimen_end();
}
