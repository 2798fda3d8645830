/*
 * Who else has our connections?  A socket that a process outside the tree holds,
 * too, outlives the tree, and must not be silenced: no call tells how many
 * hold a file, so all descriptors there are looked at.  Only with --kill, and when
 * the image is durable.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/kinds/tcp_look.h"
#include "store/scope.h"

struct search {
	uint64_t *inodes; /* sorted */
	bool *found;
	size_t n;
};

static uint64_t inode_in(const char *link)
{
	static const char head[] = "socket:[";
	return strncmp(link, head, sizeof(head) - 1) ? 0 : strtoull(link + sizeof(head) - 1, NULL, 10);
}

static int by_value(const void *a, const void *b)
{
	const uint64_t *left = a, *right = b;
	return (*left > *right) - (*left < *right);
}

static void search_process(struct search *search, int proc, const char *pid)
{
	char path[300], link[64];
	snprintf(path, sizeof(path), "%s/fd", pid);
	int fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *fds = fd < 0 ? NULL : fdopendir(fd);
	if (!fds) {
		if (fd >= 0)
			close(fd);
		return;
	}
	for (struct dirent *entry; (entry = readdir(fds));) {
		ssize_t size = readlinkat(fd, entry->d_name, link, sizeof(link) - 1);
		link[size < 0 ? 0 : size] = '\0';
		uint64_t inode = inode_in(link);
		uint64_t *known = inode ? bsearch(&inode, search->inodes, search->n, sizeof(inode), by_value) :
					  NULL;
		if (known)
			search->found[known - search->inodes] = true;
	}
	closedir(fds);
}

static void search_all(struct search *search, const struct tree *tree)
{
	DIR *processes = opendir("/proc");
	if (!processes)
		return;
	for (struct dirent *entry; (entry = readdir(processes));) {
		pid_t pid = atoi(entry->d_name);
		if (pid > 0 && pid != getppid() && pid != getpid() && !tree_find(tree, pid))
			search_process(search, dirfd(processes), entry->d_name);
	}
	closedir(processes);
}

void tcp_spare_shared(struct tcp_looks *looks)
{
	cleanup_free uint64_t *inodes = calloc(looks->n + 1, sizeof(*inodes));
	cleanup_free bool *found = calloc(looks->n + 1, sizeof(*found));
	struct search search = { inodes, found, 0 };
	if (!inodes || !found)
		return;
	for (size_t i = 0; i < looks->n; i++)
		if (looks->looks[i].fd >= 0 && !looks->looks[i].waiting)
			inodes[search.n++] = inode_in(looks->looks[i].file->label);
	if (!search.n)
		return;
	qsort(inodes, search.n, sizeof(*inodes), by_value);
	search_all(&search, dump_tree(looks->dump));
	for (size_t i = 0; i < looks->n; i++) {
		uint64_t inode = inode_in(looks->looks[i].file->label);
		uint64_t *known = bsearch(&inode, inodes, search.n, sizeof(inode), by_value);
		if (known && found[known - inodes] && !looks->looks[i].waiting && looks->looks[i].fd >= 0) {
			close(looks->looks[i].fd);
			looks->looks[i].fd = -1;
		}
	}
}
