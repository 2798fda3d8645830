#include "engine/external.h"

#include <errno.h>
#include <limits.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/dump.h"

static int parse(struct external *external, pid_t root, struct fsnap_error *err)
{
	char *end;
	errno = 0;
	long pid = root, fd = strtol(external->word, &end, 10);
	bool digits = end != external->word;
	if (digits && *end == ':') {
		char *second = end + 1;
		pid = fd;
		fd = strtol(second, &end, 10);
		digits = end != second;
	}
	external->key = end + 1;
	external->pid = (pid_t)pid;
	external->fd = (int)fd;
	if (digits && !errno && *end == '=' && *external->key && pid > 0 && pid <= INT_MAX && fd >= 0 &&
	    fd <= INT_MAX)
		return 0;
	fail(err, FSNAP_E_USAGE, 0, "--external %s names no descriptor", external->word);
	return error_hint(err, "say --external N=KEY or --external PID:N=KEY; KEY is a word of your own, by which "
			       "the restore is handed another one");
}

int externals_open(struct externals *externals, const char *const *words, pid_t root,
		   struct fsnap_error *err)
{
	size_t n = 0;
	while (words && words[n])
		n++;
	externals->list = calloc(n + 1, sizeof(*externals->list));
	if (!externals->list)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "--external");
	for (; externals->n < n; externals->n++) {
		struct external *external = &externals->list[externals->n];
		external->word = words[externals->n];
		if (parse(external, root, err) < 0)
			return -1;
		for (size_t i = 0; i < externals->n; i++)
			if (strcmp(externals->list[i].key, external->key) == 0) {
				fail(err, FSNAP_E_USAGE, 0, "--external %s: %s is the name of another one",
				     external->word, external->key);
				return error_hint(err, "give each its own name");
			}
	}
	return 0;
}

void externals_close(struct externals *externals)
{
	free(externals->list);
	*externals = (struct externals){ 0 };
}

static bool is_declared(struct external *external, const struct fd_view *fd)
{
	char path[64];
	if (!external->looked) {
		external->looked = true;
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", external->pid, external->fd);
		if (stat(path, &external->stat) < 0)
			external->stat = (struct stat){ .st_ino = ULONG_MAX };
	}
	if (external->stat.st_ino != fd->stat.st_ino || external->stat.st_dev != fd->stat.st_dev)
		return false;
	return (external->pid == fd->pid && external->fd == fd->fd) ||
	       syscall(SYS_kcmp, external->pid, fd->pid, KCMP_FILE, external->fd, fd->fd) == 0;
}

const char *dump_external(const struct fd_view *fd)
{
	const char *key = NULL;
	for (size_t i = 0; i < fd->dump->externals.n; i++) {
		struct external *external = &fd->dump->externals.list[i];
		if (!is_declared(external, fd))
			continue;
		external->used = true;
		key = key ? key : external->key;
	}
	return key;
}

int externals_check(const struct dump *dump, struct fsnap_error *err)
{
	for (size_t i = 0; i < dump->externals.n; i++) {
		const struct external *external = &dump->externals.list[i];
		if (external->used)
			continue;
		fail(err, FSNAP_E_USAGE, 0, "--external %s: process %d of the tree has no descriptor %d",
		     external->word, external->pid, external->fd);
		return error_hint(err, "ls -l /proc/%d/fd shows which it has", external->pid);
	}
	return 0;
}
