/*
 * unix_parts.h - what unix.c is made of: the kernel's answers about Unix sockets,
 * their names in the file system, their queues.
 */
#ifndef ENGINE_KINDS_UNIX_PARTS_H
#define ENGINE_KINDS_UNIX_PARTS_H

#include "engine/kinds/kinds.h"
#include "engine/kinds/sockopt.h"

enum { UNIX_LISTENING = 1, UNIX_CONNECTED = 2, UNIX_SINGLE = 3, UNIX_WAITING = 4 };

/* --- unix_diag.c: sock_diag(7) ------------------------------------------------ */

struct unix_facts {
	uint32_t ino;
	uint32_t peer;	   /* 0: none, or none that a descriptor leads to */
	uint32_t file_ino; /* of the socket's file, 0: it never had one */
	uint32_t backlog;  /* of a listener */
	uint32_t waits_at; /* nonzero: this entry says that `ino` waits to be accepted there */
	uint8_t shutdown;
	bool listening;
};

/* All of a dump's scratch for this kind, in one block. */
struct unix_scratch {
	struct sockopt_defaults defaults;
	size_t n, room;
	struct unix_facts facts[];
};

/* The kernel is asked once per dump, for all sockets; *slot is what dump_scratch() gave. */
const struct unix_facts *unix_facts_of(void **slot, uint64_t ino, struct fsnap_error *err);

/* The listener at which a socket waits to be accepted, 0: at none. */
uint32_t unix_waits_at(const struct unix_scratch *scratch, uint64_t ino);

/* --- unix_name.c: addresses ------------------------------------------------------ */

/* address, remote, directory, mode, uid, gid. */
int unix_save_name(const struct fd_view *fd, const struct unix_facts *facts, image_file_unix *state,
		   struct fsnap_error *err);

/* Binds as recorded; a socket file nobody listens on any more gives way. */
int unix_bind(const image_file *file, const image_file_unix *state, int fd, struct fsnap_error *err);

/* connect(2) to the name that `to` is bound to; 0, or -1 with errno. */
int unix_connect(int fd, const image_file_unix *to);

/* Removes the socket's file where the original had lost it; not before others have used it. */
void unix_forget_name(const image_file_unix *state);

/* --map: names that are paths. */
int unix_remap(struct restore *restore, image_file_unix *state, struct fsnap_error *err);

bool unix_same_name(const image_file_unix *a, const image_file_unix *b);

/* --- unix_queue.c: what is waiting to be received ------------------------------------ */

int unix_save_queue(const struct fd_view *fd, image_file_unix *state, struct fsnap_error *err);

/* Sends what is recorded for `receiver` from `sender`: to its peer, or to the address. With
 * restore, each datagram is sent by the socket that sent it, if the image has that. */
int unix_fill_queue(struct restore *restore, const image_file *file, const image_file_unix *state,
		    int receiver, int sender, struct fsnap_error *err);

#endif
