/*
 * external.h - descriptors declared external at a dump: --external [PID:]N=KEY.
 * Every descriptor that is the same open file belongs to the declaration.
 */
#ifndef ENGINE_EXTERNAL_H
#define ENGINE_EXTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "store/error.h"

struct dump;

struct external {
	const char *word; /* as given */
	const char *key;
	pid_t pid;
	int fd;
	struct stat stat; /* of the file, once the process stands still */
	bool looked, used;
};

struct externals {
	struct external *list;
	size_t n;
};

int externals_open(struct externals *externals, const char *const *words, pid_t root,
		   struct fsnap_error *err);
void externals_close(struct externals *externals);

/* When all files are saved: a declaration of something that is not there is a mistake. */
int externals_check(const struct dump *dump, struct fsnap_error *err);

#endif
