/*
 * file_keys.h - finding open files by what ties them together: the ends of one
 * pipe, the two sockets of a connection (file_kind.key).  A kind that searched the
 * whole list for each of its files would make ten thousand of them take minutes.
 */
#ifndef ENGINE_FILE_KEYS_H
#define ENGINE_FILE_KEYS_H

#include "engine/kinds/kinds.h"

struct file_key {
	const struct file_kind *kind;
	uint64_t key;
	size_t index; /* of the file */
};

struct file_keys {
	struct file_key *list; /* by kind, key, index */
	size_t n;
	bool made;
};

/* Where a search by number among the files of one kind stood last, so that counting on is cheap. */
struct file_cursor {
	const struct file_kind *kind;
	size_t number; /* how many of the kind come before `at` */
	size_t at;
};

int file_keys_add(struct file_keys *keys, const struct file_kind *kind, uint64_t key, size_t index,
		  struct fsnap_error *err);
void file_keys_sort(struct file_keys *keys);
void file_keys_free(struct file_keys *keys);

/* The next file of that kind and key. *at is 0 at first, and the function's own; SIZE_MAX: no more. */
size_t file_keys_next(const struct file_keys *keys, const struct file_kind *kind, uint64_t key, size_t *at);

#endif
