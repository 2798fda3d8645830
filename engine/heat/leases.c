/*
 * leases.c - which files must not be opened: open(2) breaks a write lease (fcntl(2), F_SETLEASE), even for
 * reading, even if it then fails. /proc/locks names all of them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/heat/heat.h"
#include "store/scope.h"

struct leases {
	struct leases *next;
	uint64_t ino;
};

/* "1: LEASE  ACTIVE    WRITE 123 fe:00:1095 0 EOF". Read leases stand opening for reading. */
static bool parse(const char *line, uint64_t *ino)
{
	char type[16], access[16];
	return sscanf(line, "%*d: %15s %*s %15s %*d %*x:%*x:%" SCNu64, type, access, ino) == 3 &&
	       (strcmp(type, "LEASE") == 0 || strcmp(type, "DELEG") == 0) && strcmp(access, "WRITE") == 0;
}

struct leases *leases_read(void)
{
	struct leases *leases = NULL;
	cleanup_file FILE *file = fopen("/proc/locks", "re");
	char line[256];
	while (file && fgets(line, sizeof(line), file)) {
		uint64_t ino;
		struct leases *lease = parse(line, &ino) ? malloc(sizeof(*lease)) : NULL;
		if (!lease)
			continue;
		*lease = (struct leases){ leases, ino };
		leases = lease;
	}
	return leases;
}

/* By inode number alone: some file systems tell another device there than stat(2) does. */
bool leases_hold(const struct leases *leases, uint64_t ino)
{
	for (; leases; leases = leases->next)
		if (leases->ino == ino)
			return true;
	return false;
}

void leases_free(struct leases *leases)
{
	while (leases) {
		struct leases *next = leases->next;
		free(leases);
		leases = next;
	}
}
