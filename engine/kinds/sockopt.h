/*
 * sockopt.h - what all kinds of sockets share: their options, and which network
 * they are in.
 */
#ifndef ENGINE_KINDS_SOCKOPT_H
#define ENGINE_KINDS_SOCKOPT_H

#include "engine/kinds/kinds.h"

/* --- sockopt_table.c: which options there are --------------------------------- */

enum sockopt_when {
	SOCKOPT_EARLY = 1, /* before bind(2) */
	SOCKOPT_LATE = 2,  /* when the socket is connected and its queue filled */
};

enum {
	SOCKOPT_UNIX = 1,
	SOCKOPT_V4 = 2,
	SOCKOPT_V6 = 4,
	SOCKOPT_NETLINK = 8,
	SOCKOPT_PACKET = 16,
	SOCKOPT_INET = SOCKOPT_V4 | SOCKOPT_V6,
	SOCKOPT_ANY = 31,
};

enum {
	SOCKOPT_STREAM = 1, /* SOCK_SEQPACKET, too */
	SOCKOPT_DGRAM = 2,
	SOCKOPT_RAW = 4,
	SOCKOPT_LOOSE = SOCKOPT_DGRAM | SOCKOPT_RAW,
	SOCKOPT_ALL = 7,
};

struct sockopt_row {
	int level, name;
	const char *text;
	unsigned char families, types, when;
	unsigned short room; /* its longest value, bytes */
};

extern const struct sockopt_row sockopt_rows[]; /* in the order in which they are set */
extern const unsigned sockopt_count;

#define SOCKOPT_ROWS 192 /* at least as many as the table has */
#define SOCKOPT_POOL 6144 /* bytes of all values of a socket: only some are long */

/* --- sockopt.c ------------------------------------------------------------------- */

/* All that one socket says, row by row. */
struct sockopt_values {
	unsigned short size[SOCKOPT_ROWS], at[SOCKOPT_ROWS]; /* size 0: it has no such option */
	unsigned char pool[SOCKOPT_POOL];
};

/* Options of a fresh socket of each sort met so far in a dump; begins with zeroes. */
struct sockopt_defaults {
	uint64_t network; /* cookie of our own network namespace */
	int n;
	struct sockopt_sort {
		int family, type, protocol;
		struct sockopt_values values;
	} sorts[8];
};

/* An int option of SOL_SOCKET, -1 where there is none. */
int socket_int(int fd, int name);
/* Asked once for each look at a descriptor (struct fd_view). */
struct socket_sort socket_sort_of(int fd);

/* Stores the options in which the socket differs from a fresh one of its sort, and refuses
 * sockets of other network namespaces. */
int sockopts_save(const struct fd_view *fd, struct sockopt_defaults *defaults, unsigned *len,
		  image_sockopt **val, struct fsnap_error *err);

/* `when`: one of them or both. */
int sockopts_apply(const image_file *file, int fd, unsigned len, const image_sockopt *val,
		   unsigned when, struct fsnap_error *err);

#endif
