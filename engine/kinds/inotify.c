/*
 * inotify(7): what is watched, under which number (the kernel lets one choose the
 * next), and what was not read yet (inotify_look.c, inotify_queue.c).
 *
 * Watches come back last of all files: they would notice others being opened.
 */
#include "engine/kinds/inotify.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "engine/kinds/watched.h"
#include "store/scope.h"

static bool inotify_matches(const struct fd_view *fd)
{
	return !strcmp(fd->link, "anon_inode:inotify") || !strcmp(fd->link, "anon_inode:[inotify]");
}

/* --- dump --------------------------------------------------------------------- */

static const char key[] = "\ninotify wd:";

static int parse_watches(const struct fd_view *fd, image_file_inotify *state, struct watched *watched,
			 struct fsnap_error *err)
{
	size_t n = 0;
	for (const char *at = strstr(fd->info, key); at; at = strstr(at + 1, key)) {
		image_inotify_watch *watch = append(state->watches, watches);
		const char *mask = strstr(at, " mask:");
		if (!watch || set_string(&watch->identity.path, "", err) < 0)
			return no_memory(err);
		if (sscanf(at, " inotify wd:%x", (unsigned *)&watch->wd) != 1 || !mask ||
		    sscanf(mask, " mask:%x", &watch->mask) != 1 || !watched_parse(at, &watched[n++]))
			return refuse_fd(fd, err, "The kernel does not say what it watches.",
					 "an inotify instance");
		if (watch->wd >= state->next_wd)
			state->next_wd = watch->wd + 1;
	}
	return 0;
}

static int find_watched(const struct fd_view *fd, image_file_inotify *state, struct watched *watched,
			struct fsnap_error *err)
{
	watched_open(watched, state->watches.watches_len);
	for (unsigned i = 0; i < state->watches.watches_len; i++) {
		image_identity *identity = &state->watches.watches_val[i].identity;
		free(identity->path);
		identity->path = NULL;
		if (watched_identity(fd, &watched[i], identity, err) < 0) {
			if (!identity->path && !(identity->path = strdup("")))
				return no_memory(err);
			return -1;
		}
	}
	return 0;
}

static int save_watches(const struct fd_view *fd, image_file_inotify *state, struct fsnap_error *err)
{
	size_t n = 0;
	for (const char *at = strstr(fd->info, key); at; at = strstr(at + 1, key))
		n++;
	cleanup_free struct watched *watched = malloc((n + 1) * sizeof(*watched));
	if (!watched)
		return no_memory(err);
	for (size_t i = 0; i < n; i++)
		watched[i].fd = -1;
	int result = parse_watches(fd, state, watched, err);
	if (result == 0)
		result = find_watched(fd, state, watched, err);
	watched_close(watched, n);
	return result;
}

static int inotify_save(const struct fd_view *fd, image_file *file, void *out, struct fsnap_error *err)
{
	(void)file;
	image_file_inotify *state = out;
	int waiting = 0;
	state->next_wd = 1;
	if (save_watches(fd, state, err) < 0)
		return -1;
	int looked = inotify_look(fd, state, err);
	if (looked <= 0)
		return looked;
	if (ioctl(fd->dup, FIONREAD, &waiting) == 0 && waiting)
		return refuse_fd(fd, err, "The kernel does not let anybody look at them without taking them (that "
					  "needs BPF and its type information): dump when they have been read.",
				 "%d bytes of inotify events that were not read", waiting);
	return 0;
}

/* --- restore -------------------------------------------------------------------- */

static int inotify_remap(struct restore *restore, void *in, struct fsnap_error *err)
{
	image_file_inotify *state = in;
	for (unsigned i = 0; i < state->watches.watches_len; i++)
		if (restore_remap(restore, &state->watches.watches_val[i].identity.path, err) < 0)
			return -1;
	return 0;
}

static int inotify_make(struct restore *restore, const image_file *file, const void *in,
			struct fsnap_error *err)
{
	(void)restore;
	(void)in;
	int fd = inotify_init1(IN_CLOEXEC);
	if (fd < 0)
		fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: inotify", file->id);
	return fd < 0 && errno == EMFILE ?
		       error_hint(err, "Raise /proc/sys/fs/inotify/max_user_instances.") :
		       fd;
}

static int watch(struct restore *restore, const image_inotify_watch *watch, int fd, struct fsnap_error *err)
{
	char path[64];
	unsigned nofollow = S_ISLNK(watch->identity.mode) ? O_NOFOLLOW : 0;
	cleanup_fd int target = restore_open(restore, &watch->identity, O_PATH | nofollow | O_CLOEXEC, err);
	if (target < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", target);
	if (ioctl(fd, INOTIFY_SET_NEXT_WD, watch->wd) < 0) {
		fail(err, FSNAP_E_KERNEL_LACKS, errno, "inotify: number of a watch");
		return error_hint(err, "The kernel needs CONFIG_CHECKPOINT_RESTORE.");
	}
	int wd = inotify_add_watch(fd, path, watch->mask);
	if (wd == watch->wd)
		return 0;
	if (wd < 0 && errno == ENOSPC) {
		fail(err, FSNAP_E_RESTORE_STEP, ENOSPC, "inotify: watch %s", watch->identity.path);
		return error_hint(err, "Raise /proc/sys/fs/inotify/max_user_watches.");
	}
	if (wd < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "inotify: watch %s", watch->identity.path);
	return fail(err, FSNAP_E_RESTORE_STEP, 0, "inotify: watch %s is number %d, not %d",
		    watch->identity.path, wd, watch->wd);
}

static int inotify_connect(struct restore *restore, const image_file *file, const void *in, int fd,
			   struct fsnap_error *err)
{
	const image_file_inotify *state = in;
	const char *step = "";
	if (state->events.events_len && inotify_fill(fd, state, &step) < 0) {
		int sys = errno;
		fail(err, FSNAP_E_RESTORE_STEP, sys, "file %u: inotify: events not read: %s", file->id, step);
		return sys == ENOSPC ? error_hint(err, "Raise max_user_watches and max_queued_events in "
						       "/proc/sys/fs/inotify.") : -1;
	}
	for (unsigned i = 0; i < state->watches.watches_len; i++)
		if (watch(restore, &state->watches.watches_val[i], fd, err) < 0)
			return -1;
	if (state->next_wd > 1 && ioctl(fd, INOTIFY_SET_NEXT_WD, state->next_wd) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u: inotify: number of the next watch",
			    file->id);
	return 0;
}

const struct file_kind kind_inotify = {
	.name = "inotify",
	.keeps = "watches with their numbers and masks, the number of the next; events not read, in order",
	.refuses = "events not read, where the kernel does not let us look; what has no path",
	.shown_by = "notify_*",
	.xdr = (xdrproc_t)xdr_image_file_inotify,
	.connect_rank = 2,
	.matches = inotify_matches,
	.save = inotify_save,
	.remap = inotify_remap,
	.make = inotify_make,
	.connect = inotify_connect,
};
