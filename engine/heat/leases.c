/*
 * leases.c - which files must not be opened: open(2) breaks a write lease (fcntl(2), F_SETLEASE), even for
 * reading, even if it then fails. /proc/locks names all of them, but whoever reads it waits for a grace period
 * of RCU, and so does meanwhile everybody who takes a lock (percpu_down_write() in fs/locks.c: 10-16 ms
 * measured). It is read only for files that nobody here knows of.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/heat/heat.h"
#include "store/scope.h"

struct lease {
	struct lease *next;
	uint64_t ino;
};

/* "1: LEASE  ACTIVE    WRITE 123 fe:00:1095 0 EOF". Read leases stand opening for reading. */
static bool parse(const char *line, uint64_t *ino)
{
	char type[16], access[16];
	return sscanf(line, "%*d: %15s %*s %15s %*d %*x:%*x:%" SCNu64, type, access, ino) == 3 &&
	       (strcmp(type, "LEASE") == 0 || strcmp(type, "DELEG") == 0) && strcmp(access, "WRITE") == 0;
}

void leases_add(struct leases *leases, uint64_t ino)
{
	struct lease *lease = malloc(sizeof(*lease));
	if (!lease) {
		leases->unknown = true;
		return;
	}
	*lease = (struct lease){ leases->first, ino };
	leases->first = lease;
}

static void read_all(struct leases *leases)
{
	cleanup_file FILE *file = fopen("/proc/locks", "re");
	char line[256];
	while (file && fgets(line, sizeof(line), file)) {
		uint64_t ino;
		if (parse(line, &ino))
			leases_add(leases, ino);
	}
	leases->unknown |= !file || ferror(file);
	leases->all = true;
}

/* By inode number alone: some file systems tell another device there than stat(2) does. Where not all could be told, each
 * may be one: what is not opened costs a hint, and what is opened costs somebody his lease. */
bool leases_known(const struct leases *leases, uint64_t ino)
{
	if (leases->unknown)
		return true;
	for (const struct lease *lease = leases->first; lease; lease = lease->next)
		if (lease->ino == ino)
			return true;
	return false;
}

bool leases_hold(struct leases *leases, uint64_t ino)
{
	if (!leases->all)
		read_all(leases);
	return leases_known(leases, ino);
}

void leases_free(struct leases *leases)
{
	while (leases->first) {
		struct lease *next = leases->first->next;
		free(leases->first);
		leases->first = next;
	}
}
