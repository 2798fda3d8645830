/*
 * tcp_parts.h - what tcp.c is made of.
 *
 *	tcp_look.c	a dump's view of all connections of the tree together
 *	tcp_read.c	what is read of each of them
 *	tcp_made.c	connections made again in repair mode (tcp(7) has nothing on it: net/ipv4/tcp.c)
 *	tcp_kept.c	which are, and their packets meanwhile
 *	tcp_waiting.c	connections not accepted yet
 *	tcp_calls.c	calls held back meanwhile, so that there are no more of those
 *	tcp_requests.c	handshakes that wait for data (TCP_DEFER_ACCEPT)
 *	tcp_ended.c	connections that are over, and attempts that failed
 *	tcp_shared.c	who else has them
 *	tcp_diag.c	what only sock_diag(7) tells
 *	tcp_forge.c	segments as the other end would send them
 *	tcp_hold.c	packets held back meanwhile, by nf_tables (nft.c)
 *	tcp_sweep.c	remains of dead connections taken away
 */
#ifndef ENGINE_KINDS_TCP_PARTS_H
#define ENGINE_KINDS_TCP_PARTS_H

#include <netinet/in.h>

#include "engine/kinds/inet_address.h"
#include "engine/kinds/kinds.h"
#include "engine/kinds/sockopt.h"
#include "engine/kinds/tcp_hold.h"

/* image_file_tcp.state */
enum { TCP_IS_LISTENING = 1, TCP_IS_CONNECTION = 2, TCP_IS_BOUND = 3, TCP_IS_ENDED = 4 };
/* image_file_tcp.kept */
enum { TCP_RESET = 0, TCP_INSIDE = 1, TCP_OUTSIDE = 2 };

/* linux/tcp.h has these; it cannot be included along with netinet/tcp.h. */
enum { TCP_NO_QUEUE_ = 0, TCP_RECEIVING = 1, TCP_SENDING = 2 };
#define TCP_REPAIR_SILENT_OFF (-1) /* TCP_REPAIR_OFF_NO_WP: no window probe */

struct tcp_window { /* struct tcp_repair_window */
	uint32_t snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup;
};

/* Was our FIN put into the send queue; did the other's arrive? */
bool tcp_sent_fin(unsigned phase);
bool tcp_got_fin(unsigned phase);

struct tcp_ends tcp_ends_of(const image_file_tcp *state);

int tcp_set(int fd, int option, int value);
int tcp_set_seq(int fd, int queue, uint32_t seq); /* in repair mode */

/* What waits to be read of the socket, malloc'ed. */
int tcp_peek(int fd, unsigned *len, char **val, struct fsnap_error *err);

/* --- dump (tcp_diag.c) ------------------------------------------------------------- */

struct tcp_found {
	uint32_t inode;
	bool keys;
	union inet_address remote;
};

/* Sockets of the network namespace of which sock_diag(7) has something to tell; begins with zeroes. */
struct tcp_diag {
	unsigned asked;	 /* states, of all sockets */
	unsigned singly; /* sockets */
	int ask;	 /* a socket to ask about single ones, +1; 0: none yet */
	size_t n;
	struct tcp_found *sockets; /* malloc'ed */
};

/* Of a family, those in these states (bits 1 << TCP_...), with what else is `wanted` (idiag_ext); `each` may end it. */
struct nlmsghdr;
struct inet_diag_msg;
typedef bool (*tcp_diag_fn)(const struct nlmsghdr *message, const struct inet_diag_msg *socket, void *arg);
void tcp_diag_ask(unsigned char family, unsigned states, unsigned wanted, tcp_diag_fn each, void *arg);

void tcp_diag_free(struct tcp_diag *found);
bool tcp_has_md5(struct tcp_diag *found, int fd, uint64_t inode, int state);
/* Whom it tries to connect to; NULL: it does not. */
const union inet_address *tcp_called(struct tcp_diag *found, uint64_t inode);

/* --- dump (tcp_look.c) ------------------------------------------------------------- */

/* Takes a connection into account; the rest is done when all are known. */
int tcp_look_add(const struct fd_view *fd, image_file *file, image_file_tcp *state,
		 struct fsnap_error *err);
/* A listener of a tree that is going to be killed. */
int tcp_look_listener(const struct fd_view *fd, image_file *file, image_file_tcp *state, struct fsnap_error *err);
/* Fills addresses and phase of a connection, and takes it into account (tcp.c). */
int tcp_fill(const struct fd_view *fd, image_file *file, image_file_tcp *state, struct fsnap_error *err);
/* All connections, once: which can be kept, and their state. */
int tcp_look_at_all(struct dump *dump, struct fsnap_error *err);
/* See struct file_kind. */
int tcp_silence(struct dump *dump, struct fsnap_error *err);
void tcp_dump_end(void *scratch);
/* For sockopts_save() and tcp_diag.c. NULL with *err set: no memory. */
struct sockopt_defaults *tcp_defaults(struct dump *dump, struct fsnap_error *err);
struct tcp_diag *tcp_diag_of(struct dump *dump, struct fsnap_error *err);

/* --- restore (tcp_kept.c) ------------------------------------------------------------ */

struct tcp_kept {
	int hold; /* passing: while our sockets are not all there, nobody may answer for them; -1: none */
	char name[TCP_HOLD_NAME + 10];
	bool outside; /* connections to the outside are kept */
	unsigned *files; /* that were made; there is room for all */
	size_t n;
};

/* Decided once; from then on their packets are held. NULL: *err is set. */
struct tcp_kept *tcp_kept_of(struct restore *restore, struct fsnap_error *err);
bool tcp_is_kept(const struct tcp_kept *kept, unsigned how); /* image_file_tcp.kept */
void tcp_kept_let_pass(struct restore *restore, struct tcp_kept *kept);
void tcp_restore_end(void *kept);

/* --- restore (tcp_made.c) ------------------------------------------------------------ */

/* Makes one that is kept; -1 with *err set. *reset: it cannot be, and should come back reset. */
int tcp_made(struct restore *restore, const image_file *file, const image_file_tcp *state,
	     bool *reset, struct fsnap_error *err);
int tcp_made_connect(struct restore *restore, const image_file *file, const image_file_tcp *state,
		     int fd, struct fsnap_error *err);
void tcp_made_release(struct restore *restore);

/* --- tcp_waiting.c: connections that wait to be accepted ------------------------------- */

unsigned tcp_queue_length(int listener);

struct tcp_ends tcp_waiting_ends(const image_tcp_waiting *waiting);
/* Puts one into the queue of a listener. */
int tcp_waiting_restore(const image_file *file, const image_file_tcp *listener, unsigned index, int fd,
			struct fsnap_error *err);
/* All of a listener's that are kept (tcp_made.c). */
int tcp_made_waiting(struct restore *restore, const image_file *file, const image_file_tcp *listener,
		     int fd, struct fsnap_error *err);

/* Binds and, if it is a listener, listens (tcp.c). */
int tcp_bind(const struct restore *restore, int fd, const image_file_tcp *state, struct fsnap_error *err);

/* --- tcp_ended.c: sockets whose connection is over ---------------------------------------- */

/* Of a socket in TCP_CLOSE: has it ended, or was it never connected? */
int tcp_ended_save(const struct fd_view *fd, image_file_tcp *state, struct fsnap_error *err);
/* One that has ended; of a connection that cannot be kept, one that its peer has reset. */
int tcp_ended_make(const image_file *file, const image_file_tcp *state, struct fsnap_error *err);

/* --- tcp_forge.c ------------------------------------------------------------------------ */

enum { TCP_FORGE_FIN = 0x01, TCP_FORGE_SYN = 0x02, TCP_FORGE_ACK = 0x10 };
enum { TCP_FORGE_OPTIONS = 40, TCP_FORGE_DATA = 1400 }; /* at most, bytes */

struct tcp_segment {
	uint32_t seq, ack;
	unsigned flags;
	const uint8_t *options; /* filled up to a multiple of 4 */
	size_t n_options;
	const char *data;
	size_t size;
};

/* Delivers a segment to our end of a connection as if its other end had sent it. */
int tcp_forge_segment(const struct tcp_ends *ends, const struct tcp_segment *segment);
int tcp_forge(const struct tcp_ends *ends, uint32_t seq, uint32_t ack, unsigned flags);

#endif
