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
	bool waiting;	/* we have accepted it: no descriptor of the tree */
};

struct tcp_listener {
	image_file *file;
	image_file_tcp *state;
	struct process *process;
	int number, fd;
};

/* One of a listener's, that we have accepted. */
struct tcp_waiting {
	const struct tcp_listener *listener;
	image_file_tcp *state; /* malloc'ed */
};

struct tcp_looks {
	struct sockopt_defaults defaults;
	struct tcp_diag diag;
	struct tcp_look *looks;
	size_t n, room;
	struct dump *dump;
	struct tcp_listener *listeners;
	size_t n_listeners;
	struct tcp_waiting *waiting;
	size_t n_waiting;
	struct tcp_ends *deferred; /* of these, those that would wait for data (tcp_requests.c) */
	size_t n_deferred;
	bool looked;
	int hold; /* passing, -1: none */
	char hold_name[TCP_HOLD_NAME + 8];
};

/* The passing hold, made when it is first wanted. Until the tree has been killed it dies with us: then the tree
 * runs on. */
int tcp_look_hold(struct tcp_looks *looks, struct fsnap_error *err);

/* Fills the state of all that are kept (tcp_read.c). */
int tcp_read_all(struct dump *dump, struct tcp_looks *looks, struct fsnap_error *err);

/* tcp_waiting.c: takes those that wait out of the queues of listeners, to be read; then moves those
 * that are kept into the listeners' states. */
int tcp_waiting_accept(struct tcp_looks *looks, struct fsnap_error *err);
int tcp_waiting_keep(struct tcp_looks *looks, struct fsnap_error *err);

/* tcp_calls.c: from here on, nobody comes into a queue of the tree's listeners. */
int tcp_calls_hold(struct tcp_looks *looks, struct fsnap_error *err);

/* tcp_requests.c: has handshakes come to their end that only wait for data (TCP_DEFER_ACCEPT). */
int tcp_requests_end(struct tcp_looks *looks, struct fsnap_error *err);

/* tcp_shared.c: closes our duplicates of those that somebody outside has, too; steadfast. */
void tcp_spare_shared(struct tcp_looks *looks);

#endif
