/*
 * find_name.h - another way to a file that is still there, but not under the name
 * it was opened by: deleted while it has other links, or covered by a mount.
 */
#ifndef ENGINE_FIND_NAME_H
#define ENGINE_FIND_NAME_H

#include <stdbool.h>
#include <sys/stat.h>

#include "image.h"
#include "store/error.h"

struct dump;

/* Does the path lead to this very file? */
bool path_leads_to(const char *path, const struct stat *stat);

/* Gives the identity another path, or a handle by which the file system itself finds it
 * (open_by_handle_at(2)); `fd` is ours. False: neither was found. -1 is never meant: it is a search. */
bool find_name(struct dump *dump, int fd, const struct stat *stat, image_identity *identity);

/* The same file again; as open(2). `path` says on which file system. */
int open_handle(const image_identity *identity, int flags);

#endif
