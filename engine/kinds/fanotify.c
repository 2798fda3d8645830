/*
 * fanotify(7): an instance and its marks, on inodes, mounts and file systems.
 *
 * An event that was not read refers to an open file, which the kernel would open for
 * who reads it: no way leads to the same one.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/kinds/peek.h"
#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "engine/kinds/watched.h"
#include "engine/mounts.h"
#include "store/scope.h"

enum { ON_INODE = 1, ON_MOUNT = 2, ON_FILE_SYSTEM = 3 };

/* linux/fanotify.h */
#define MARK_IGNORED_MASK 0x20u
#define MARK_FLAGS 0x640u /* IGNORED_SURV_MODIFY, EVICTABLE, IGNORE */
#define MARK_IGNORE 0x400u
#define CLASS_MASK 0x0cu

static bool fanotify_matches(const struct fd_view *fd)
{
	return !strcmp(fd->link, "anon_inode:[fanotify]");
}

/* --- dump --------------------------------------------------------------------- */

/* Has a program been asked to decide, and has read the question, but not answered? */
static bool owes_answers(const struct fd_view *fd)
{
	struct peek_member list = {"fsnotify_group", "fanotify_data.access_list", 0};
	struct peek *peek = dump_peek(fd->dump);
	uint64_t group = peek && peek_layout(peek, &list, 1) ? peek_private(peek, fd->dup) : 0;
	return group && peek_word(peek, group, list.offset) != group + list.offset;
}

/* The mount point of a mount, by its number, or of any mount of a file system; a descriptor. */
static int open_mount(uint64_t id, uint64_t sdev)
{
	cleanup_free char *text = mounts_read(NULL);
	struct mounts_line mount;
	for (char *cursor = text; mounts_next(&cursor, &mount);)
		if (id ? mount.id == id : mounts_device(&mount) == sdev)
			return open(mount.point, O_PATH | O_CLOEXEC);
	return -1;
}

static int save_place(const struct fd_view *fd, const char *line, image_fanotify_mark *mark,
		      struct fsnap_error *err)
{
	uint64_t id = 0, sdev = 0;
	struct watched watched = {.fd = -1};
	if (!strncmp(line, "ino:", 4)) {
		mark->on = ON_INODE;
		if (!watched_parse(line, &watched))
			return refuse_fd(fd, err, "Stop watching before the dump.", "a mark that cannot be read");
		watched_open(&watched, 1);
	} else if (sscanf(line, "mnt_id:%" SCNx64, &id) == 1) {
		mark->on = ON_MOUNT;
		watched.fd = open_mount(id, 0);
	} else if (sscanf(line, "sdev:%" SCNx64, &sdev) == 1) {
		mark->on = ON_FILE_SYSTEM;
		watched.sdev = sdev;
		watched.fd = open_mount(0, sdev);
	} else {
		return refuse_fd(fd, err, "Stop watching before the dump.",
				 "a fanotify instance with a mark of a kind this version does not know");
	}
	int result = watched_identity(fd, &watched, &mark->identity, err);
	watched_close(&watched, 1);
	return result;
}

static int save_mark(const struct fd_view *fd, const char *line, image_file_fanotify *state,
		     struct fsnap_error *err)
{
	char text[1024];
	size_t length = strcspn(line, "\n");
	snprintf(text, sizeof(text), "%.*s", (int)(length < sizeof(text) ? length : sizeof(text) - 1), line);
	image_fanotify_mark *mark = append(state->marks, marks);
	if (!mark)
		return no_memory(err);
	const char *flags = strstr(text, " mflags:");
	if (!flags || sscanf(flags, " mflags:%x mask:%x ignored_mask:%x", &mark->flags, &mark->mask,
			     &mark->ignored) != 3) {
		set_string(&mark->identity.path, "", err);
		return refuse_fd(fd, err, "Stop watching before the dump.", "a mark that cannot be read");
	}
	int result = save_place(fd, text, mark, err);
	if (!mark->identity.path && set_string(&mark->identity.path, "", err) < 0)
		return -1;
	return result;
}

static int fanotify_save(const struct fd_view *fd, image_file *file, void *out, struct fsnap_error *err)
{
	(void)file;
	static const char key[] = "\nfanotify ";
	image_file_fanotify *state = out;
	const char *at = strstr(fd->info, key);
	int waiting = 0;
	if (!at || sscanf(at, "\nfanotify flags:%x event-flags:%x", &state->flags, &state->event_flags) != 2)
		return refuse_fd(fd, err, "Stop watching before the dump.",
				 "a fanotify instance that the kernel says nothing about");
	if (ioctl(fd->dup, FIONREAD, &waiting) == 0 && waiting)
		return refuse_fd(fd, err, "Dump when the events have been read: they refer to open files.",
				 "a fanotify instance with events that were not read");
	if ((state->flags & CLASS_MASK) && owes_answers(fd))
		return refuse_fd(fd, err, "Dump when it has answered.",
				 "a fanotify instance that has been asked for permission");
	while ((at = strstr(at + 1, key)))
		if (save_mark(fd, at + strlen(key), state, err) < 0)
			return -1;
	return 0;
}

/* --- restore -------------------------------------------------------------------- */

static int fanotify_make(struct restore *restore, const image_file *file, const void *in,
			 struct fsnap_error *err)
{
	(void)restore;
	const image_file_fanotify *state = in;
	int fd = fanotify_init(state->flags | FAN_CLOEXEC, state->event_flags);
	return fd < 0 ? fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: fanotify", file->id) : fd;
}

static int add_mark(struct restore *restore, const image_fanotify_mark *mark, int fd, struct fsnap_error *err)
{
	char path[64];
	unsigned where = mark->on == ON_MOUNT ? FAN_MARK_MOUNT : mark->on == ON_FILE_SYSTEM ? FAN_MARK_FILESYSTEM : 0;
	unsigned flags = mark->flags & MARK_FLAGS;
	cleanup_fd int target = restore_open(restore, &mark->identity, O_PATH | O_CLOEXEC, err);
	if (target < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", target);
	unsigned ignore = flags & MARK_IGNORE ? 0 : MARK_IGNORED_MASK;
	if ((mark->mask &&
	     fanotify_mark(fd, FAN_MARK_ADD | where | (flags & 0x200), mark->mask, AT_FDCWD, path) < 0) ||
	    (mark->ignored &&
	     fanotify_mark(fd, FAN_MARK_ADD | where | ignore | flags, mark->ignored, AT_FDCWD, path) < 0))
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "fanotify: mark %s", mark->identity.path);
	return 0;
}

static int fanotify_connect(struct restore *restore, const image_file *file, const void *in, int fd,
			    struct fsnap_error *err)
{
	(void)file;
	const image_file_fanotify *state = in;
	for (unsigned i = 0; i < state->marks.marks_len; i++)
		if (add_mark(restore, &state->marks.marks_val[i], fd, err) < 0)
			return -1;
	return 0;
}

static int fanotify_remap(struct restore *restore, void *in, struct fsnap_error *err)
{
	image_file_fanotify *state = in;
	for (unsigned i = 0; i < state->marks.marks_len; i++)
		if (restore_remap(restore, &state->marks.marks_val[i].identity.path, err) < 0)
			return -1;
	return 0;
}

const struct file_kind kind_fanotify = {
	.name = "fanotify",
	.keeps = "class and flags, marks on inodes, mounts and file systems",
	.refuses = "events not read, permission asked for and not given",
	.shown_by = "notify_marks",
	.xdr = (xdrproc_t)xdr_image_file_fanotify,
	.connect_rank = 2,
	.matches = fanotify_matches,
	.save = fanotify_save,
	.remap = fanotify_remap,
	.make = fanotify_make,
	.connect = fanotify_connect,
};
