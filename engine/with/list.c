#include "engine/procfs.h"
#include "engine/with/with.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/scope.h"

static int add(struct with_list *list, const char *path, const struct stat *stat, struct fsnap_error *err)
{
	if ((list->n & (list->n - 1)) == 0) { /* room doubles at powers of two */
		void *more = realloc(list->entries, (list->n ? 2 * list->n : 1) * sizeof(*list->entries));
		if (!more)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "the list of files");
		list->entries = more;
	}
	char *copy = strdup(path);
	if (!copy)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "the list of files");
	list->entries[list->n++] = (struct with_entry){ .path = copy, .stat = *stat };
	return 0;
}

/* Takes the descriptor. */
static int read_directory(int fd, const char *path, const char *skip, struct with_list *list, struct fsnap_error *err)
{
	cleanup_dir DIR *dir = fdopendir(fd);
	char below[4096];
	struct stat stat;

	if (!dir) {
		close(fd);
		return fail(err, FSNAP_E_SYSTEM, errno, "%s", path);
	}
	for (struct dirent *entry; (errno = 0, entry = readdir(dir));) {
		const char *name = entry->d_name;
		if (!strcmp(name, ".") || !strcmp(name, "..") || (skip && !strncmp(name, skip, strlen(skip))))
			continue;
		if (fstatat(fd, name, &stat, AT_SYMLINK_NOFOLLOW) < 0) {
			if (errno == ENOENT)
				continue;
			return fail(err, procfs_code(errno), errno, "%s/%s", path, name);
		}
		bool top = !strcmp(path, ".");
		if (snprintf(below, sizeof(below), "%s%s%s", top ? "" : path, top ? "" : "/", name) >=
		    (int)sizeof(below))
			return fail(err, FSNAP_E_UNSUPPORTED, ENAMETOOLONG, "%s", path);
		if (add(list, below, &stat, err) < 0)
			return -1;
		int next = S_ISDIR(stat.st_mode) ?
				   openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
		if (S_ISDIR(stat.st_mode) && next < 0 && errno != ENOENT)
			return fail(err, procfs_code(errno), errno, "%s", below);
		if (next >= 0 && read_directory(next, below, NULL, list, err) < 0)
			return -1;
	}
	return errno ? fail(err, FSNAP_E_SYSTEM, errno, "reading directory %s", path) : 0; /* a part is not the whole */
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct with_entry *)a)->path, ((const struct with_entry *)b)->path);
}

int with_list_read(int root, const char *skip, struct with_list *list, struct fsnap_error *err)
{
	int fd = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	*list = (struct with_list){ 0 };
	if (fd < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "reading a directory");
	if (read_directory(fd, ".", skip, list, err) < 0)
		return -1;
	if (list->n)
		qsort(list->entries, list->n, sizeof(*list->entries), by_path);
	return 0;
}

void with_list_free(struct with_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->entries[i].path);
	free(list->entries);
	*list = (struct with_list){ 0 };
}

bool with_next_pair(const struct with_list *left, const struct with_list *right, size_t at[2], struct with_pair *pair)
{
	const struct with_entry *one = at[0] < left->n ? &left->entries[at[0]] : NULL;
	const struct with_entry *two = at[1] < right->n ? &right->entries[at[1]] : NULL;

	if (!one && !two)
		return false;
	int order = !one ? 1 : !two ? -1 : strcmp(one->path, two->path);
	*pair = (struct with_pair){ order <= 0 ? one : NULL, order >= 0 ? two : NULL };
	at[0] += order <= 0;
	at[1] += order >= 0;
	return true;
}
