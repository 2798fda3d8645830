/*
 * Events that are made to happen again, each with a stand-in for what was watched, in a tmpfs of our own, watched
 * under the number the event names, for that event alone.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/inotify_happen.h"
#include "store/scope.h"

#define EVENTS (IN_ALL_EVENTS | IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED)
#define DORMANT IN_MOVE_SELF /* stand-ins do not move unless they are to */

/* --- stand-ins -------------------------------------------------------------------- */

int inotify_watch_fd(int inotify, int fd, int wd, uint32_t mask)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (ioctl(inotify, INOTIFY_SET_NEXT_WD, wd) < 0)
		return -1;
	int seen = inotify_add_watch(inotify, path, mask);
	if (seen == wd)
		return 0;
	if (seen >= 0)
		errno = EEXIST;
	return -1;
}

static void name_of(const struct stand_in *stand_in, char name[32])
{
	snprintf(name, 32, "watch.%d", stand_in->wd);
}

static bool is_directory(const image_file_inotify *state, int wd)
{
	for (unsigned i = 0; i < state->events.events_len; i++) {
		const image_inotify_event *event = &state->events.events_val[i];
		if (event->wd == wd && (event->name[0] || (event->mask & IN_ISDIR)))
			return true;
	}
	for (unsigned i = 0; i < state->watches.watches_len; i++)
		if (state->watches.watches_val[i].wd == wd)
			return S_ISDIR(state->watches.watches_val[i].identity.mode);
	return false;
}

static struct stand_in *stand_in_for(struct filling *filling, int wd)
{
	for (size_t i = 0; i < filling->n; i++)
		if (filling->stand_ins[i].wd == wd)
			return &filling->stand_ins[i];
	struct stand_in *more = realloc(filling->stand_ins, (filling->n + 1) * sizeof(*more));
	if (!more)
		return NULL;
	filling->stand_ins = more;
	struct stand_in *made = &more[filling->n];
	*made = (struct stand_in){.wd = wd, .directory = is_directory(filling->state, wd)};
	char name[32];
	name_of(made, name);
	if ((made->directory ? mkdirat(filling->place, name, 0700) :
			       mknodat(filling->place, name, S_IFREG | 0600, 0)) < 0)
		return NULL;
	made->fd = openat(filling->place, name, O_PATH | O_CLOEXEC);
	if (made->fd < 0)
		return NULL;
	filling->n++;
	if (inotify_watch_fd(filling->inotify, made->fd, wd, DORMANT) < 0)
		return NULL;
	made->watched = true;
	return made;
}

/* Changes what it is watched for. */
static int listen_for(struct filling *filling, const struct stand_in *stand_in, uint32_t mask)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", stand_in->fd);
	return inotify_add_watch(filling->inotify, path, mask) == stand_in->wd ? 0 : -1;
}

/* --- one event ------------------------------------------------------------------------ */

/* The object an event is about: the stand-in itself, or something in it. */
struct object {
	int at;
	const char *name; /* "": `at` itself, a descriptor opened with O_PATH */
	bool directory;
};

static int open_object(const struct object *object, int flags)
{
	char path[64];
	if (object->name[0])
		return openat(object->at, object->name, flags | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", object->at);
	return open(path, flags | O_CLOEXEC);
}

static int make_object(const struct object *object)
{
	if (!object->name[0])
		return 0;
	if (object->directory)
		return mkdirat(object->at, object->name, 0700);
	cleanup_fd int fd = openat(object->at, object->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -1 : 0;
}

static void remove_object(const struct object *object)
{
	if (object->name[0])
		unlinkat(object->at, object->name, object->directory ? AT_REMOVEDIR : 0);
}

static int read_something(int fd, bool directory)
{
	char bytes[512];
	if (directory)
		return syscall(SYS_getdents64, fd, bytes, sizeof(bytes)) < 0 ? -1 : 0;
	return read(fd, bytes, 1) == 1 ? 0 : -1;
}

static int write_something(int fd)
{
	return write(fd, "x", 1) == 1 ? 0 : -1;
}

/* What happens on an open file: the descriptor is opened before anybody listens, and closed after,
 * unless one of these is the event. */
static int happen_open(struct filling *filling, struct stand_in *stand_in, const struct object *object,
		       uint32_t event)
{
	bool writes = event == IN_MODIFY || event == IN_CLOSE_WRITE || (event == IN_ACCESS && !object->directory);
	int result = 0, fd = -1;
	if (event != IN_OPEN)
		fd = open_object(object, writes ? O_RDWR : O_RDONLY);
	if (event == IN_ACCESS && !object->directory && (write_something(fd) < 0 || lseek(fd, 0, SEEK_SET) < 0))
		result = -1;
	if (result == 0)
		result = listen_for(filling, stand_in, event);
	if (result == 0 && event == IN_OPEN)
		fd = open_object(object, O_RDONLY);
	else if (result == 0 && event == IN_ACCESS)
		result = read_something(fd, object->directory);
	else if (result == 0 && event == IN_MODIFY)
		result = write_something(fd);
	if (fd < 0)
		return -1;
	bool closing = event == IN_CLOSE_WRITE || event == IN_CLOSE_NOWRITE;
	if (closing)
		close(fd);
	if (listen_for(filling, stand_in, DORMANT) < 0)
		result = -1;
	if (!closing)
		close(fd);
	return result;
}

static int happen_named(struct filling *filling, struct stand_in *stand_in, const struct object *object,
			uint32_t event)
{
	int result = -1;
	if (event == IN_MOVED_TO) {
		struct object elsewhere = {filling->place, "elsewhere", object->directory};
		if (make_object(&elsewhere) < 0)
			return -1;
	}
	if (listen_for(filling, stand_in, event) < 0)
		return -1;
	switch (event) {
	case IN_CREATE:
		result = object->directory ? mkdirat(object->at, object->name, 0700) :
					     mknodat(object->at, object->name, S_IFREG | 0600, 0);
		break;
	case IN_DELETE:
		result = unlinkat(object->at, object->name, object->directory ? AT_REMOVEDIR : 0);
		break;
	case IN_MOVED_FROM:
		result = renameat(object->at, object->name, filling->place, "elsewhere");
		break;
	case IN_MOVED_TO:
		result = renameat(filling->place, "elsewhere", object->at, object->name);
		break;
	}
	if (listen_for(filling, stand_in, DORMANT) < 0)
		return -1;
	unlinkat(filling->place, "elsewhere", object->directory ? AT_REMOVEDIR : 0);
	return result;
}

static int happen_to_itself(struct filling *filling, struct stand_in *stand_in, uint32_t event)
{
	char name[32];
	name_of(stand_in, name);
	if (event == IN_MOVE_SELF) {
		int result = renameat(filling->place, name, filling->place, "moved");
		return listen_for(filling, stand_in, IN_ATTRIB) < 0 ||
				       renameat(filling->place, "moved", filling->place, name) < 0 ||
				       listen_for(filling, stand_in, DORMANT) < 0 ?
			       -1 : result;
	}
	/* IN_DELETE_SELF: it goes when nobody has it open, and its watch with it, telling IN_IGNORED. */
	if (listen_for(filling, stand_in, event) < 0)
		return -1;
	close(stand_in->fd);
	stand_in->fd = -1;
	stand_in->watched = false;
	return unlinkat(filling->place, name, stand_in->directory ? AT_REMOVEDIR : 0);
}

static int happen(struct filling *filling, const image_inotify_event *event)
{
	struct stand_in *stand_in = stand_in_for(filling, event->wd);
	uint32_t what = event->mask & EVENTS;
	if (!stand_in)
		return -1;
	if (what == IN_IGNORED) {
		if (!stand_in->watched)
			return 0; /* the end of what was deleted */
		stand_in->watched = false;
		return inotify_rm_watch(filling->inotify, stand_in->wd);
	}
	if (stand_in->fd < 0)
		return errno = ESTALE, -1;
	if (what == IN_DELETE_SELF || what == IN_MOVE_SELF)
		return happen_to_itself(filling, stand_in, what);
	cleanup_fd int inside = stand_in->directory && event->name[0] ?
					open_object(&(struct object){stand_in->fd, "", true}, O_RDONLY) : -1;
	struct object object = {event->name[0] ? inside : stand_in->fd, event->name,
				(event->mask & IN_ISDIR) != 0};
	bool comes = what == IN_CREATE || what == IN_MOVED_TO;
	if (!comes && make_object(&object) < 0)
		return -1;
	int result;
	if (comes || what == IN_DELETE || what == IN_MOVED_FROM) {
		result = happen_named(filling, stand_in, &object, what);
	} else if (what == IN_ATTRIB) {
		cleanup_fd int fd = open_object(&object, O_RDONLY);
		result = listen_for(filling, stand_in, what) < 0 || fchmod(fd, 0711) < 0 ||
					 listen_for(filling, stand_in, DORMANT) < 0 ?
				 -1 : 0;
	} else {
		result = happen_open(filling, stand_in, &object, what);
	}
	remove_object(&object);
	return result;
}

/* The two halves of one rename, which share a cookie; whatever number that is. */
static bool is_rename(const image_inotify_event *from, const image_inotify_event *to)
{
	return (from->mask & IN_MOVED_FROM) && (to->mask & IN_MOVED_TO) && from->cookie == to->cookie &&
	       from->name[0] && to->name[0];
}

static int happen_rename(struct filling *filling, const image_inotify_event *from,
			 const image_inotify_event *to)
{
	/* In this order: making one may move the others. */
	if (!stand_in_for(filling, from->wd) || !stand_in_for(filling, to->wd))
		return -1;
	struct stand_in *old = stand_in_for(filling, from->wd), *new = stand_in_for(filling, to->wd);
	cleanup_fd int old_fd = open_object(&(struct object){old->fd, "", true}, O_RDONLY);
	cleanup_fd int new_fd = open_object(&(struct object){new->fd, "", true}, O_RDONLY);
	struct object moved = {old_fd, from->name, (from->mask & IN_ISDIR) != 0};
	struct object arrived = {new_fd, to->name, moved.directory};
	uint32_t both = old == new ? IN_MOVED_FROM | IN_MOVED_TO : 0;
	if (make_object(&moved) < 0 || listen_for(filling, old, both | IN_MOVED_FROM) < 0 ||
	    listen_for(filling, new, both | IN_MOVED_TO) < 0 ||
	    renameat(old_fd, from->name, new_fd, to->name) < 0 || listen_for(filling, old, DORMANT) < 0 ||
	    listen_for(filling, new, DORMANT) < 0)
		return -1;
	remove_object(&arrived);
	return 0;
}

int inotify_happen(struct filling *filling, unsigned from, unsigned to)
{
	const image_inotify_event *events = filling->state->events.events_val;
	for (unsigned i = from; i < to; i++) {
		if (i + 1 < to && is_rename(&events[i], &events[i + 1])) {
			if (happen_rename(filling, &events[i], &events[i + 1]) < 0)
				return -1;
			i++;
		} else if (happen(filling, &events[i]) < 0) {
			return -1;
		}
	}
	return 0;
}
