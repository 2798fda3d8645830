/*
 * unix_parts.h - what the kind of Unix sockets is made of.
 *
 *	unix.c		the kind; the dump half
 *	unix_diag.c	what the kernel says about all of them
 *	unix_queue.c	what waits in one, looked at
 *	unix_waiting.c	who waits to be accepted, and what he has sent
 *	unix_name.c	names, saved and bound again
 *	unix_bench.c	the restore half: every socket of the image, found by inode or name
 *	unix_connect.c	connections, made by whom they were made
 *	unix_listen.c	listeners, and those that wait there
 *	unix_job.c	what these two have in common
 *	unix_fill.c	what waited in one, sent again
 */
#ifndef ENGINE_KINDS_UNIX_PARTS_H
#define ENGINE_KINDS_UNIX_PARTS_H

#include "engine/kinds/kinds.h"
#include "engine/kinds/sockopt.h"

enum { UNIX_LISTENING = 1, UNIX_CONNECTED = 2, UNIX_SINGLE = 3, UNIX_WAITING = 4 };

/* --- unix_diag.c: sock_diag(7) ------------------------------------------------ */

enum unix_facts_about {
	UNIX_FACTS_SOCKET, /* `ino` itself */
	UNIX_FACTS_QUEUE,  /* in the backlog of `ino`, `peer` is number `place`; 0: it has closed */
	UNIX_FACTS_WAITS,  /* `ino` waits to be accepted by `peer` */
};

struct unix_facts {
	enum unix_facts_about about;
	uint32_t ino;
	uint32_t place;
	uint32_t peer;	   /* 0: none, or none that a descriptor leads to */
	uint32_t file_ino; /* of the socket's file, 0: it never had one */
	uint32_t backlog;  /* of a listener */
	unsigned file;	   /* image_file it was saved as, 0: not yet */
	uint8_t shutdown;
	bool listening;
	bool sent; /* waits to be accepted and has sent something */
};

/* All of a dump's scratch for this kind, in one block; facts are sorted by what they are about. */
struct unix_scratch {
	struct sockopt_defaults defaults;
	size_t n, room;
	struct unix_facts facts[];
};

/* The kernel is asked once per dump, for all sockets; *slot is what dump_scratch() gave. Good until
 * the next call. */
struct unix_facts *unix_facts_of(void **slot, uint64_t ino, struct fsnap_error *err);

/* The image_file of a socket, 0: not saved. */
unsigned unix_saved_as(struct unix_scratch *scratch, uint64_t ino);

/* Of one that waits to be accepted, and is saved: has it sent something? */
bool unix_has_sent(struct unix_scratch *scratch, uint64_t ino);

/* The listener at which a socket waits to be accepted, 0: at none. */
uint32_t unix_waits_at(struct unix_scratch *scratch, uint64_t ino);

/* Who waits at a listener, in their order; their inodes are `peer`. */
const struct unix_facts *unix_waiting(struct unix_scratch *scratch, uint64_t listener, size_t *n);

/* --- unix_queue.c --------------------------------------------------------------- */

/* queue: messages with their bytes, senders, credentials and descriptors. */
int unix_save_queue(const struct fd_view *fd, image_file_unix *state, struct fsnap_error *err);

/* --- unix_waiting.c --------------------------------------------------------------- */

/* waiting of a listener: everybody; and, when all are saved, those that are in the image, with what
 * they have sent. */
int unix_save_waiting(struct unix_scratch *scratch, image_file_unix *listener, struct fsnap_error *err);
int unix_settle_waiting(struct dump *dump, struct unix_scratch *scratch, const image_file *file,
			image_file_unix *listener, struct fsnap_error *err);

/* --- unix_name.c: addresses ------------------------------------------------------ */

/* A struct sockaddr_un, as long as the kernel says; no bytes: unbound. */
struct unix_address {
	const char *bytes;
	unsigned length;
};

static inline struct unix_address unix_address(const image_file_unix *state)
{
	return (struct unix_address){state->address.address_val, state->address.address_len};
}

bool unix_is_abstract(struct unix_address name);

/* Is it bound in the shadow (see below)? Its file is gone, or another socket's. */
bool unix_in_shadow(const image_file_unix *state);

/* address, remote, directory, mode, uid, gid. */
int unix_save_name(const struct fd_view *fd, const struct unix_facts *facts, image_file_unix *state,
		   struct fsnap_error *err);

/* An empty file system that nobody else can see, for names that must not appear in the real one: a
 * detached mount, gone with its descriptor. -1: none yet, or none to be had without CAP_SYS_ADMIN. */
struct unix_shadow {
	struct restore *restore;
	int fd;
	bool tried;
};

/* Binds as recorded; a socket file nobody listens on any more gives way. A name whose file is gone
 * is bound in the shadow, where it harms nobody. */
int unix_bind(struct unix_shadow *shadow, const image_file *file, const image_file_unix *state, int fd,
	      struct fsnap_error *err);

/* --map: names that are paths. */
int unix_remap(struct restore *restore, image_file_unix *state, struct fsnap_error *err);

/* The root directory of the shadow, made now if it is not yet; -1: the real one must do. */
int unix_shadow_root(struct unix_shadow *shadow);

/* In an errand (engine/errand.h) whose root is unix_shadow_root(): binds a socket of our own to the
 * name of another, so that those who connect to it see that name. 0, or -1 with errno. */
int unix_bind_here(struct unix_address name, int fd);

/* Takes the name away where it was bound, if it is a path. */
void unix_unbind_here(struct unix_address name);

/* connect(2) to the name that `to` is bound to, in the shadow where that was bound there. 0, or -1
 * with errno. */
int unix_connect(struct unix_shadow *shadow, int fd, const image_file_unix *to);

/* --- unix_bench.c ------------------------------------------------------------------ */

/* A socket of the image during a restore. */
struct unix_end {
	const image_file *file;
	const image_file_unix *state;
	struct unix_end *peer; /* other end of its connection */
	int orphan;	       /* connected: our own descriptor of the other end, which nobody has any
				* more; -1: none */
	bool paired;	       /* made by unix_connect_all(), filled along with its peer */
	bool furnished;
	bool late;	       /* to be furnished when the tree is there: a message has what needs it */
};

struct unix_bench {
	struct unix_shadow shadow;
	bool ready; /* connections and listeners are made */
	const image_file *making; /* the file whose descriptor make() returns itself, in `made` */
	int made;
	size_t n;
	struct unix_end **by_name; /* of those that have one */
	size_t n_named;
	struct unix_end ends[]; /* by inode */
};

struct unix_bench *unix_bench_of(struct restore *restore, struct fsnap_error *err);
struct unix_end *unix_end_of(struct unix_bench *bench, uint64_t ino);

/* A socket of this type that is bound to the same name as `like`, in this state (0: any), or NULL. */
struct unix_end *unix_end_named(struct unix_bench *bench, int type, const image_file_unix *like,
				unsigned state);

/* What the restore must not leave behind when it fails. */
void unix_bench_close(void *scratch);

int unix_failed(const image_file *file, struct fsnap_error *err, const char *step);

/* --- unix_connect.c ------------------------------------------------------------------ */

/* Makes every connection and every listener of the image. */
int unix_connect_all(struct restore *restore, struct unix_bench *bench, struct fsnap_error *err);

/* --- unix_listen.c ------------------------------------------------------------------- */

/* A listener's backlog, as it was. Those that wait are bound, and not finished yet. */
int unix_refill_backlog(struct restore *restore, struct unix_bench *bench, struct unix_end *listener,
			struct fsnap_error *err);

/* --- unix_fill.c ------------------------------------------------------------------------ */

/* Sends what is recorded for `end` through `sender`, its peer. */
int unix_fill_stream(struct restore *restore, struct unix_end *end, int sender, struct fsnap_error *err);

/* Sends what somebody at `place` in a listener's backlog had sent before it was accepted. */
int unix_fill_early(struct restore *restore, struct unix_end *listener, unsigned place, int sender,
		    struct fsnap_error *err);

/* Each datagram is sent to the name of `end`, by the socket that sent it if the image has that, else
 * by one of the same name. */
int unix_fill_datagrams(struct restore *restore, struct unix_bench *bench, struct unix_end *end,
			struct fsnap_error *err);

#endif
