/*
 * tcp_look.h - between tcp_look.c and tcp_read.c.
 */
#ifndef ENGINE_KINDS_TCP_LOOK_H
#define ENGINE_KINDS_TCP_LOOK_H

#include "engine/kinds/tcp_parts.h"

struct tcp_look {
	image_file *file;
	image_file_tcp *state;
	struct process *process;
	int number;	/* of the descriptor there */
	int fd;		/* ours */
	int reuse;	/* SO_REUSEADDR: leaving repair mode clears it */
	struct tcp_ends ends;
	const struct tcp_look *other; /* the other end, if it is in the tree and both are kept */
};

struct tcp_looks {
	struct sockopt_defaults defaults;
	struct tcp_md5 md5;
	struct tcp_look *looks;
	size_t n, room;
	bool looked;
	int hold; /* passing, -1: none */
};

/* Fills the state of all that are kept (tcp_read.c). */
int tcp_read_all(struct dump *dump, struct tcp_looks *looks, struct fsnap_error *err);

#endif
