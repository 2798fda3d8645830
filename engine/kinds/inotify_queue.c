/*
 * Events that were not read, put back (inotify_look.c finds them).
 *
 * Nobody can put an event into a queue; but everybody can make events happen (inotify_happen.c).  Then the
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
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/kinds/inotify_happen.h"
#include "store/scope.h"

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
		if (filling->filler[i] < 0 || inotify_watch_fd(filling->inotify, filling->filler[i], wd, IN_ATTRIB) < 0)
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

/* A tmpfs that is mounted nowhere: nobody watches it. */
static int make_place(void)
{
	cleanup_fd int context = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
	if (context < 0 || syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -1;
	return (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
}

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
	if (inotify_happen(filling, 0, before) < 0 || fill(filling, 1) < 0 ||
	    read_away(filling->inotify, room) < 0 || inotify_happen(filling, first, all) < 0)
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
