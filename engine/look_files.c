/*
 * look_files.c - do descriptors of the tree hold what is looked at in the kernel's
 * memory?  To be able to costs milliseconds (engine/kinds/peek.c), which are better
 * spent before the freeze.  What is missed here is made up for during it.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/chain/chain.h"
#include "engine/dump.h"
#include "engine/kinds/peek.h"
#include "engine/procfs.h"
#include "store/scope.h"

/* An epoll instance is looked into if a watch is edge-triggered: bit 31 of its events. */
static bool has_edges(const struct process *process, int fd)
{
	char name[32];
	snprintf(name, sizeof(name), "fdinfo/%d", fd);
	cleanup_free char *info = procfs_read_once(process->proc, name, NULL, NULL);
	for (const char *at = info; at && (at = strstr(at, "events: ")); at++)
		if (strchr("89abcdef", at[8]))
			return true;
	return false;
}

enum { WANTS_PEEK = 1, WANTS_RINGS = 2 };

static unsigned wants(const struct process *process, int fd)
{
	char name[32], link[64];
	snprintf(name, sizeof(name), "fd/%d", fd);
	ssize_t length = readlinkat(process->proc, name, link, sizeof(link) - 1);
	link[length < 0 ? 0 : length] = '\0';
	if (strcmp(link, "anon_inode:[io_uring]") == 0)
		return WANTS_PEEK | WANTS_RINGS;
	if (strcmp(link, "anon_inode:[eventpoll]") == 0)
		return has_edges(process, fd) ? WANTS_PEEK : 0;
	bool looked_into = strcmp(link, "anon_inode:inotify") == 0 || strcmp(link, "/dev/ptmx") == 0 ||
			   strcmp(link, "/dev/pts/ptmx") == 0;
	return looked_into ? WANTS_PEEK : 0;
}

void look_at_files(struct dump *dump, const struct process *process)
{
	size_t n;
	readers_descriptors(dump, process);
	if ((dump->peeked && dump->async) || readers_know_files(dump))
		return;
	cleanup_free int *fds = procfs_numbers(process->proc, "fd", &n, NULL);
	unsigned wanted = 0;
	for (size_t i = 0; fds && i < n && wanted != (WANTS_PEEK | WANTS_RINGS); i++)
		wanted |= wants(process, fds[i]);
	if (wanted & WANTS_PEEK && !dump->peeked)
		dump_peek(dump);
	if (wanted & WANTS_RINGS)
		dump_async(dump, NULL);
}
