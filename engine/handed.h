/*
 * handed.h - descriptors that a restore is given by whoever calls it: --fd
 * [PID:]N=M and, for what was declared external at the dump, --external KEY=M.
 *
 * All descriptors of the tree that were the same open file become the one that is
 * handed in, so sharing stays what it was; but each that is named itself gets its
 * own, and of a standard stream (or what options.stdio gives) those under the same
 * number follow it, whichever process has them.
 */
#ifndef ENGINE_HANDED_H
#define ENGINE_HANDED_H

#include <stdbool.h>
#include <sys/types.h>

#include "store/error.h"

struct restore;
struct fsnap_restore_options;

struct hand {
	const char *word; /* as given, for messages */
	const char *key;  /* NULL: by number */
	size_t key_length;
	pid_t pid; /* 0: the root */
	int fd;
	bool stream; /* of options.stdio: for all processes that had the same under this number */
	int source; /* of ours, as given */
	int kept;   /* the same on the bench; -1: not there yet */
	unsigned file; /* image_file it is for; 0: none */
};

struct handed {
	struct hand *list;
	size_t n;
};

/* Understands the options and checks that the descriptors are open. */
int handed_open(struct handed *handed, const struct fsnap_restore_options *options, struct fsnap_error *err);
void handed_close(struct handed *handed);

/* When the image's files are decoded: puts them on the bench, and each into the place of its file. */
int handed_place(struct restore *restore, struct fsnap_error *err);

/* Which descriptor of ours the descriptor `fd` of process `pid` is made from; -1: its file's own. */
int handed_source(const struct restore *restore, pid_t pid, int fd, unsigned file);

#endif
