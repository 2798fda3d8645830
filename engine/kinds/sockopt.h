/*
 * sockopt.h - what all kinds of sockets share: their options, and which network
 * they are in.
 */
#ifndef ENGINE_KINDS_SOCKOPT_H
#define ENGINE_KINDS_SOCKOPT_H

#include "engine/kinds/kinds.h"

#define SOCKOPT_ROWS 72 /* at least as many as the table has */

struct sockopt_value {
	unsigned char size;
	unsigned char bytes[16];
};

/* Options of a fresh socket of each sort met so far in a dump; begins with zeroes. */
struct sockopt_defaults {
	uint64_t network; /* cookie of our own network namespace */
	int n;
	struct sockopt_sort {
		int family, type, protocol;
		struct sockopt_value values[SOCKOPT_ROWS];
	} sorts[8];
};

/* An int option of SOL_SOCKET, -1 where there is none. */
int socket_int(int fd, int name);

/* Stores the options in which the socket differs from a fresh one of its sort, and refuses
 * sockets of other network namespaces. */
int sockopts_save(const struct fd_view *fd, struct sockopt_defaults *defaults, unsigned *len,
		  image_sockopt **val, struct fsnap_error *err);

enum sockopt_when {
	SOCKOPT_EARLY = 1, /* before bind(2) */
	SOCKOPT_LATE = 2,  /* when the socket is connected and its queue filled */
};

/* `when`: one of them or both. */
int sockopts_apply(const image_file *file, int fd, unsigned len, const image_sockopt *val,
		   unsigned when, struct fsnap_error *err);

#endif
