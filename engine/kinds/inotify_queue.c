/*
 * Events that were not read.
 *
 * Dump: read(2) would take them away, so they are looked at in the kernel's memory
 * (struct inotify_event_info).
 *
 * Restore: nobody can put an event into a queue; but everybody can make events
 * happen.  Each is made with a stand-in for what was watched, in a tmpfs of our own,
 * watched under the number the event names, for that event alone.  Then the
 * stand-ins have to go, and that a watch ends is an event (IN_IGNORED), too.  It is lost
 * when the queue is full, and the program is told so by IN_Q_OVERFLOW, but only once
 * (fsnotify_insert_event(), fs/notify/notification.c).  So the queue is filled, overflow and
 * all, room is made for exactly what is wanted, and what stands before it is read away:
 *
 *	fillers  E1..Ep  overflow	full: the overflow is in the queue
 *	fillers' E1..Ep  overflow  E'1..E'm	fewer fillers: as many as there are events after it, and one
 *	(stand-ins go: nothing is added)
 *	E1..Ep  overflow  E'1..E'm	the other fillers are read, and an overflow nobody wants
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/inotify.h"
#include "engine/kinds/peek.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

#define EVENTS (IN_ALL_EVENTS | IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED)
#define DORMANT IN_MOVE_SELF /* stand-ins do not move unless they are to */

/* --- dump --------------------------------------------------------------------- */

static int add_event(image_file_inotify *state, struct peek *peek, uint64_t address,
		     const struct peek_member *at, struct fsnap_error *err)
{
	enum { LINK, MASK, WD, COOKIE, LENGTH, NAME };
	char name[NAME_MAX + 1] = "";
	image_inotify_event *event = append(state->events, events);
	if (!event)
		return no_memory(err);
	uint32_t length = peek_half(peek, address, at[LENGTH].offset);
	event->mask = peek_half(peek, address, at[MASK].offset);
	event->wd = (int)peek_half(peek, address, at[WD].offset);
	event->cookie = peek_half(peek, address, at[COOKIE].offset);
	bool seen = length <= NAME_MAX && (!length || peek_bytes(peek, address + at[NAME].offset, name, length));
	if (set_string(&event->name, name, err) < 0)
		return -1;
	return seen ? 0 : 1;
}

int inotify_look(const struct fd_view *fd, image_file_inotify *state, struct fsnap_error *err)
{
	struct peek_member group[] = {{"fsnotify_group", "notification_list", 0},
				      {"fsnotify_group", "q_len", 0},
				      {"fsnotify_group", "inotify_data.idr.idr_next", 0}};
	struct peek_member at[] = {{"fsnotify_event", "list", 0},	{"inotify_event_info", "mask", 0},
				   {"inotify_event_info", "wd", 0},	{"inotify_event_info", "sync_cookie", 0},
				   {"inotify_event_info", "name_len", 0}, {"inotify_event_info", "name", 0}};
	struct peek *peek = dump_peek(fd->dump);
	uint64_t address = peek && peek_layout(peek, group, 3) && peek_layout(peek, at, 6) ?
				   peek_private(peek, fd->dup) : 0;
	if (!address)
		return 1;
	int next = (int)peek_half(peek, address, group[2].offset);
	if (next > state->next_wd)
		state->next_wd = next;
	uint32_t waiting = peek_half(peek, address, group[1].offset);
	uint64_t head = address + group[0].offset, link = peek_word(peek, head, 0);
	for (uint32_t i = 0; i < waiting && link && link != head; i++) {
		int result = add_event(state, peek, link - at[0].offset, at, err);
		if (result)
			return result;
		if (state->events.events_val[i].mask & IN_UNMOUNT)
			return refuse_fd(fd, err, "Dump when the program has read its events.",
					 "an inotify instance that is about to tell of an unmounted file system");
		link = peek_word(peek, link, 0);
	}
	return link == head ? 0 : 1;
}

/* --- stand-ins -------------------------------------------------------------------- */

struct stand_in {
	int wd;
	int fd;	   /* O_PATH; -1: it is no more */
	bool directory;
	bool watched;
};

struct filling {
	const image_file_inotify *state;
	int inotify;
	int place; /* root of a tmpfs of our own */
	struct stand_in *stand_ins;
	size_t n;
	int filler[2]; /* open files */
	int filler_wd[2];
	unsigned filled;
};

/* A tmpfs that is mounted nowhere: nobody watches it. */
static int make_place(void)
{
	cleanup_fd int context = (int)syscall(430 /* fsopen */, "tmpfs", 1 /* FSOPEN_CLOEXEC */);
	if (context < 0 || syscall(431 /* fsconfig */, context, 6 /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0) < 0)
		return -1;
	return (int)syscall(432 /* fsmount */, context, 1 /* FSMOUNT_CLOEXEC */, 0);
}

static int watch_fd(int inotify, int fd, int wd, uint32_t mask)
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
	if (watch_fd(filling->inotify, made->fd, wd, DORMANT) < 0)
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

static int happen_all(struct filling *filling, unsigned from, unsigned to)
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

/* --- fillers -------------------------------------------------------------------------- */

static bool is_number_of_event(const image_file_inotify *state, int wd)
{
	for (unsigned i = 0; i < state->events.events_len; i++)
		if (state->events.events_val[i].wd == wd)
			return true;
	return false;
}

static int make_fillers(struct filling *filling)
{
	int wd = INT_MAX - 1;
	for (int i = 0; i < 2; i++, wd--) {
		char name[32];
		snprintf(name, sizeof(name), "filler.%d", i);
		while (is_number_of_event(filling->state, wd))
			wd--;
		filling->filler_wd[i] = wd;
		filling->filler[i] = openat(filling->place, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (filling->filler[i] < 0 || watch_fd(filling->inotify, filling->filler[i], wd, IN_ATTRIB) < 0)
			return -1;
	}
	return 0;
}

/* Alternating: the same event twice in a row is told once. */
static int fill(struct filling *filling, unsigned n)
{
	for (unsigned i = 0; i < n; i++, filling->filled++)
		if (fchmod(filling->filler[filling->filled % 2], 0600) < 0)
			return -1;
	return 0;
}

/* They have no names: each is a bare struct. */
static int read_away(int inotify, unsigned n)
{
	struct inotify_event events[256];
	int waiting = 0;
	if (ioctl(inotify, FIONREAD, &waiting) < 0 || (size_t)waiting < n * sizeof(*events))
		return errno = EIO, -1; /* or we would wait for ever */
	while (n) {
		unsigned some = n < 256 ? n : 256;
		ssize_t got = read(inotify, events, some * sizeof(*events));
		if (got <= 0)
			return -1;
		n -= (unsigned)got / (unsigned)sizeof(*events);
	}
	return 0;
}

/* --- the whole ---------------------------------------------------------------------------- */

static unsigned longest_queue(void)
{
	unsigned most = 16384;
	cleanup_file FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
	if (file && fscanf(file, "%u", &most) != 1)
		most = 16384;
	return most;
}

static int end_watches(struct filling *filling)
{
	for (size_t i = 0; i < filling->n; i++)
		if (filling->stand_ins[i].watched &&
		    inotify_rm_watch(filling->inotify, filling->stand_ins[i].wd) < 0)
			return -1;
	for (int i = 0; i < 2; i++)
		if (inotify_rm_watch(filling->inotify, filling->filler_wd[i]) < 0)
			return -1;
	return 0;
}

static size_t expected_bytes(const image_file_inotify *state)
{
	size_t bytes = 0;
	for (unsigned i = 0; i < state->events.events_len; i++) {
		size_t length = strlen(state->events.events_val[i].name);
		size_t unit = sizeof(struct inotify_event);
		bytes += unit + (length ? (length + 1 + unit - 1) / unit * unit : 0);
	}
	return bytes;
}

static int fill_queue(struct filling *filling, const char **step)
{
	const image_file_inotify *state = filling->state;
	unsigned all = state->events.events_len, overflow = 0, longest = longest_queue();
	while (overflow < all && !(state->events.events_val[overflow].mask & IN_Q_OVERFLOW))
		overflow++;
	bool overflown = overflow < all;
	unsigned before = overflown ? overflow : 0, first = overflown ? overflow + 1 : 0, after = all - first;
	unsigned room = after ? after + 1 : 0; /* fillers that go first */
	if (before + room > longest) {
		*step = "more than /proc/sys/fs/inotify/max_queued_events allows";
		return errno = ENOSPC, -1;
	}
	*step = "fill the queue";
	if ((filling->place = make_place()) < 0 || make_fillers(filling) < 0 ||
	    fill(filling, longest - before) < 0)
		return -1;
	*step = "make events happen";
	if (happen_all(filling, 0, before) < 0 || fill(filling, 1) < 0 ||
	    read_away(filling->inotify, room) < 0 || happen_all(filling, first, all) < 0)
		return -1;
	*step = "leave them alone";
	if (end_watches(filling) < 0 ||
	    read_away(filling->inotify, longest - before - room + !overflown) < 0)
		return -1;
	int waiting = 0;
	*step = "not as many as there were";
	if (ioctl(filling->inotify, FIONREAD, &waiting) < 0)
		return -1;
	return (size_t)waiting == expected_bytes(state) ? 0 : (errno = EIO, -1);
}

int inotify_fill(int fd, const image_file_inotify *state, const char **step)
{
	struct filling filling = {.state = state, .inotify = fd, .place = -1, .filler = {-1, -1}};
	int result = fill_queue(&filling, step), saved = errno;
	for (size_t i = 0; i < filling.n; i++)
		if (filling.stand_ins[i].fd >= 0)
			close(filling.stand_ins[i].fd);
	free(filling.stand_ins);
	for (int i = 0; i < 2; i++)
		if (filling.filler[i] >= 0)
			close(filling.filler[i]);
	if (filling.place >= 0)
		close(filling.place);
	errno = saved;
	return result;
}
