#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/cgroup.h"
#include "engine/compile.h"
#include "engine/procfs.h"
#include "engine/renumber.h"
#include "store/scope.h"

#define REMOVE_TRIES 100 /* of 10 ms: the dead leave a group when they are buried */

static const char *hierarchy(const char *controllers)
{
	return *controllers ? controllers : "version 2";
}

/* The path that a text of /proc/PID/cgroup has for a hierarchy, malloc'ed; NULL: it has none. */
static char *path_in(const char *text, const char *wanted)
{
	cleanup_free char *copy = strdup(text);
	char *cursor = copy, *controllers, *path;
	while (copy && cgroup_next(&cursor, &controllers, &path))
		if (strcmp(controllers, wanted) == 0)
			return strdup(path);
	return NULL;
}

static bool same_in(const char *text, const char *other, const char *controllers)
{
	cleanup_free char *a = path_in(text, controllers), *b = path_in(other, controllers);
	return a && b && strcmp(a, b) == 0;
}

/* --- making groups --------------------------------------------------------------------- */

static int put(int dir, const char *name, const char *value)
{
	cleanup_fd int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);
	size_t size = strlen(value);
	return fd >= 0 && write(fd, value, size) == (ssize_t)size ? 0 : -1;
}

/* "cpu memory" is read, "+cpu" and "+memory" are written, one by one: some may not be there any more. */
static int enable(int dir, const char *name, char *list)
{
	int result = 0;
	for (char *word; (word = strsep(&list, " \n"));) {
		char text[64];
		snprintf(text, sizeof(text), "+%s", word);
		if (*word && put(dir, name, text) < 0)
			result = -1;
	}
	return result;
}

static int put_lines(int dir, const char *name, char *lines)
{
	int result = 0;
	for (char *line; (line = strsep(&lines, "\n"));)
		if (*line && put(dir, name, line) < 0)
			result = -1;
	return result;
}

static void set(struct restore *restore, int dir, const image_cgroup *group, const image_cgroup_setting *setting)
{
	cleanup_free char *now = procfs_read_once(dir, setting->name, NULL, NULL), *value = strdup(setting->value);
	if (!value || (now && strcmp(now, value) == 0) || strchr(setting->name, '/'))
		return;
	bool type = strcmp(setting->name, "cgroup.type") == 0;
	if (type && strcmp(value, "threaded\n") != 0) /* others come of what is below */
		return;
	if (strcmp(setting->name, "cgroup.subtree_control") == 0 ? enable(dir, setting->name, value) :
								    put_lines(dir, setting->name, value))
		restore_note(restore, "control group %s: %s cannot be set to %.*s: %s", group->path, setting->name,
			     (int)strcspn(setting->value, "\n"), setting->value, strerror(errno));
}

/* The dead leave a group when they are buried. */
static void remove_group(const char *directory)
{
	for (int tries = 0; rmdir(directory) < 0 && errno == EBUSY && tries < REMOVE_TRIES; tries++)
		usleep(10000);
}

static int make_taken_back(struct restore *restore, const char *directory)
{
	struct stat found;
	if (stat(directory, &found) == 0)
		return errno = EEXIST, -1;
	restore_takes_back(restore, remove_group, directory);
	int result = mkdir(directory, 0755), sys = errno;
	if (result < 0)
		restore_not_made(restore);
	errno = sys;
	return result;
}

static int make(struct restore *restore, const image_cgroup *group, struct fsnap_error *err)
{
	cleanup_free char *directory = cgroup_directory(&restore->cgroups.mounts, group->controllers, group->path);
	if (!directory || (make_taken_back(restore, directory) < 0 && errno == EEXIST))
		return 0;
	cleanup_fd int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		fail(err, errno == EACCES ? FSNAP_E_PERMISSION : FSNAP_E_RESTORE_STEP, errno,
		     "cannot make control group %s (%s)", group->path, hierarchy(group->controllers));
		return error_hint(err, "--cgroup leave does without");
	}
	for (u_int i = 0; i < group->settings.settings_len; i++)
		set(restore, dir, group, &group->settings.settings_val[i]);
	return 0;
}

/* --- finding them ------------------------------------------------------------------------- */

static int cannot_enter(const char *controllers, const char *path, struct fsnap_error *err)
{
	int sys = errno;
	fail(err, sys == EACCES || sys == EPERM ? FSNAP_E_PERMISSION : FSNAP_E_RESTORE_STEP, sys,
	     "control group %s (%s)", path, hierarchy(controllers));
	return error_hint(err, sys == ENOENT ? "--cgroup create makes it anew, --cgroup leave does without it" :
					       "--cgroup leave does without it");
}

static int open_group(struct restore *restore, const char *controllers, const char *path, const char *file,
		      struct fsnap_error *err)
{
	char name[4200];
	cleanup_free char *directory = cgroup_directory(&restore->cgroups.mounts, controllers, path);
	errno = ENOENT;
	if (!directory)
		return cannot_enter(controllers, path, err);
	snprintf(name, sizeof(name), "%s/%s", directory, file);
	int fd = open(name, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? cannot_enter(controllers, path, err) : fd;
}

/* Is it one that anybody of the tree is to be in other than we are? Then everybody is put in its place. */
static bool is_moving(const struct restore *restore, const char *controllers)
{
	const image_cgroups *image = &restore->cgroups.image;
	for (u_int i = 0; i < image->places.places_len; i++)
		if (!same_in(image->places.places_val[i].text, restore->cgroups.own, controllers))
			return true;
	return false;
}

static int open_place(struct restore *restore, u_int number, struct fsnap_error *err)
{
	struct cgroup_place *place = &restore->cgroups.places[number];
	cleanup_free char *text = strdup(restore->cgroups.image.places.places_val[number].text);
	char *cursor = text, *controllers, *path;
	while (text && cgroup_next(&cursor, &controllers, &path)) {
		if (!is_moving(restore, controllers))
			continue;
		if (place->n == CGROUP_HIERARCHIES)
			return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "too many hierarchies of control groups");
		bool unmade = restore->explaining && restore->options->cgroup == FSNAP_CGROUP_CREATE;
		int fd = unmade ? workshop_pretend(restore) :
				  open_group(restore, controllers, path, "cgroup.procs", err);
		if (fd < 0 || (!unmade && (fd = workshop_bench(restore, fd, err)) < 0))
			return -1;
		place->path[place->n] = strdup(path);
		place->fds[place->n++] = fd;
	}
	return 0;
}

static int check(const image_cgroups *image, struct fsnap_error *err)
{
	for (u_int i = 0; i < image->members.members_len; i++)
		if (image->members.members_val[i].place >= image->places.places_len)
			return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "a member of no control group");
	return 0;
}

int cgroups_prepare(struct restore *restore, struct fsnap_error *err)
{
	struct cgroup_restore *all = &restore->cgroups;
	image_cgroups *image = &all->image;
	int mode = restore->options->cgroup;
	if (mode != FSNAP_CGROUP_REJOIN && mode != FSNAP_CGROUP_CREATE)
		return 0;
	if (image_count(restore->image, IMAGE_CGROUPS) != 1 ||
	    image_get(restore->image, IMAGE_CGROUPS, 0, (xdrproc_t)xdr_image_cgroups, image, err) < 0 ||
	    check(image, err) < 0 || cgroup_mounts_read(&all->mounts, err) < 0)
		return error_is_set(err) ? -1 : fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "no control groups in it");
	all->own = procfs_read_once(AT_FDCWD, "/proc/thread-self/cgroup", NULL, err);
	all->places = calloc(image->places.places_len + 1, sizeof(*all->places));
	if (!all->own || !all->places)
		return error_is_set(err) ? -1 : fail(err, FSNAP_E_NOMEM, ENOMEM, "control groups");
	for (u_int i = 0; mode == FSNAP_CGROUP_CREATE && !restore->explaining && i < image->groups.groups_len; i++)
		if (make(restore, &image->groups.groups_val[i], err) < 0)
			return -1;
	for (u_int i = 0; i < image->places.places_len; i++)
		if (open_place(restore, i, err) < 0)
			return -1;
	for (u_int i = 0; i < image->members.members_len; i++)
		if (image->members.members_val[i].pid == image->members.members_val[i].tid &&
		    numbers_put(&all->place_of, image->members.members_val[i].pid,
				image->members.members_val[i].place) < 0)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "control groups");
	return 0;
}

/* --- joining them ---------------------------------------------------------------------------- */

void cgroups_join(struct restore *restore, const image_process *process, const image_process *bearer, uint32_t task)
{
	struct cgroup_restore *all = &restore->cgroups;
	size_t at = all->places ? numbers_get(&all->place_of, process->pid) : NUMBERS_NONE;
	if (at == NUMBERS_NONE || (bearer && numbers_get(&all->place_of, bearer->pid) == at))
		return;
	for (u_int i = 0; i < all->places[at].n; i++) {
		plan_note(restore->plans, "control group %s", all->places[at].path[i]);
		plan_call(restore->plans, task, SYS_write, IMM(all->places[at].fds[i]),
			  DATA(plans_data(restore->plans, "0", 1, 1)), IMM(1));
		plan_accept_equal(restore->plans, 1);
	}
}

static int place_thread(struct restore *restore, const image_cgroup_member *member, struct fsnap_error *err)
{
	const image_cgroups *image = &restore->cgroups.image;
	size_t at = numbers_get(&restore->cgroups.place_of, member->pid);
	cleanup_free char *text = strdup(image->places.places_val[member->place].text);
	char *cursor = text, *controllers, *path, tid[16];
	if (at == NUMBERS_NONE || !text)
		return 0;
	int size = snprintf(tid, sizeof(tid), "%d", restore_number(restore, member->tid));
	while (cgroup_next(&cursor, &controllers, &path)) {
		if (same_in(image->places.places_val[at].text, image->places.places_val[member->place].text, controllers))
			continue;
		cleanup_fd int fd = open_group(restore, controllers, path, *controllers ? "tasks" : "cgroup.threads",
					       err);
		if (fd < 0)
			return -1;
		if (write(fd, tid, (size_t)size) != size)
			return fail(err, FSNAP_E_RESTORE_STEP, errno, "thread %s: control group %s", tid, path);
	}
	return 0;
}

int cgroups_place_threads(struct restore *restore, struct fsnap_error *err)
{
	const image_cgroups *image = &restore->cgroups.image;
	for (u_int i = 0; restore->cgroups.places && i < image->members.members_len; i++) {
		const image_cgroup_member *member = &image->members.members_val[i];
		if (member->pid != member->tid && place_thread(restore, member, err) < 0)
			return error_context(err, "process %d", member->pid);
	}
	return 0;
}

/* --- the end ------------------------------------------------------------------------------------ */

void cgroups_end(struct restore *restore)
{
	struct cgroup_restore *all = &restore->cgroups;
	for (u_int i = 0; all->places && i < all->image.places.places_len; i++)
		for (u_int j = 0; j < all->places[i].n; j++) {
			if (!restore->explaining)
				close(all->places[i].fds[j]);
			free(all->places[i].path[j]);
		}
	free(all->places);
	free(all->own);
	numbers_free(&all->place_of);
	cgroup_mounts_free(&all->mounts);
	xdr_free((xdrproc_t)xdr_image_cgroups, (char *)&all->image);
}
