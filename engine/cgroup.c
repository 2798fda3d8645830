#include "engine/cgroup.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kinds/kinds.h"
#include "engine/mounts.h"
#include "engine/procfs.h"
#include "store/scope.h"

const struct other_kind kind_cgroups = {
	.name = "cgroups",
	.keeps = "of both versions: who is where, single threads included, and what limits there are; left alone, "
		 "rejoined or created at the restore (--cgroup)",
	.refuses = "frozen ones; at a restore: those that are gone, unless they may be created",
	.shown_by = "cgroups",
};

/* Options that are no controllers' (cgroup1_show_options() in kernel/cgroup/cgroup-v1.c). */
static bool is_controller(const char *option)
{
	static const char *const others[] = { "rw", "ro", "none", "xattr", "noprefix", "clone_children",
					      "cpuset_v2_mode", "favordynmods" };
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (strcmp(option, others[i]) == 0)
			return false;
	return strncmp(option, "release_agent=", 14) != 0;
}

/* Mount options list controllers in the order of /proc/PID/cgroup, a name last. */
static char *controllers_of(char *options)
{
	char *list = calloc(1, strlen(options) + 1);
	for (char *option; list && (option = strsep(&options, ","));) {
		if (!is_controller(option))
			continue;
		if (*list)
			strcat(list, ",");
		strcat(list, option);
	}
	return list;
}

static int add_mount(struct cgroup_mounts *mounts, const struct mounts_line *line)
{
	bool old = strcmp(line->type, "cgroup") == 0;
	if (!old && strcmp(line->type, "cgroup2"))
		return 0;
	struct cgroup_mount *more = reallocarray(mounts->mounts, mounts->n + 1, sizeof(*more));
	if (!more)
		return -1;
	mounts->mounts = more;
	cleanup_free char *options = strdup(line->super_options);
	more[mounts->n] = (struct cgroup_mount){ .controllers = !old ? strdup("") : options ? controllers_of(options) : NULL,
						 .root = strdup(line->root), .point = strdup(line->point) };
	struct cgroup_mount *added = &more[mounts->n++];
	return added->controllers && added->root && added->point ? 0 : -1;
}

int cgroup_mounts_read(struct cgroup_mounts *mounts, struct fsnap_error *err)
{
	*mounts = (struct cgroup_mounts){ 0 };
	cleanup_free char *text = mounts_read(err);
	struct mounts_line line;
	if (!text)
		return -1;
	for (char *cursor = text; mounts_next(&cursor, &line);)
		if (add_mount(mounts, &line) < 0)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "control groups");
	return 0;
}

void cgroup_mounts_free(struct cgroup_mounts *mounts)
{
	for (size_t i = 0; i < mounts->n; i++) {
		free(mounts->mounts[i].controllers);
		free(mounts->mounts[i].root);
		free(mounts->mounts[i].point);
	}
	free(mounts->mounts);
	*mounts = (struct cgroup_mounts){ 0 };
}

char *cgroup_directory(const struct cgroup_mounts *mounts, const char *controllers, const char *path)
{
	for (size_t i = 0; i < mounts->n; i++) {
		const struct cgroup_mount *mount = &mounts->mounts[i];
		size_t root = strcmp(mount->root, "/") ? strlen(mount->root) : 0;
		char *directory;
		if (strcmp(mount->controllers, controllers) || strncmp(path, mount->root, root) ||
		    (path[root] && path[root] != '/') || strstr(path, "/.."))
			continue;
		return asprintf(&directory, "%s%s", mount->point, path + root) < 0 ? NULL : directory;
	}
	return NULL;
}

int cgroup_next(char **cursor, char **controllers, char **path)
{
	char *line = *cursor ? strsep(cursor, "\n") : NULL;
	if (!line || !*line)
		return 0;
	strsep(&line, ":");
	*controllers = strsep(&line, ":");
	*path = line;
	return *controllers && *path;
}
