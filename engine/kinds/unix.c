/*
 * Unix sockets: pairs, listeners, datagram sockets, by name or without.
 *
 * A connection is restored when both its ends are in the tree, or when one of
 * them had been closed.  Both ends come into being together: as a socketpair,
 * or, where one has a name, through a listener of that name, so that
 * getpeername(2) says what it said.  One that leads outside must be the root's
 * stdio.  Connected datagram sockets (syslog) connect to the same name again.
 */
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "engine/kinds/table.h"
#include "engine/kinds/unix_parts.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

static bool unix_matches(const struct fd_view *fd)
{
	if (!S_ISSOCK(fd->stat.st_mode) || fd->dup < 0 || socket_int(fd->dup, SO_DOMAIN) != AF_UNIX)
		return false;
	int type = socket_int(fd->dup, SO_TYPE);
	return type == SOCK_STREAM || type == SOCK_DGRAM || type == SOCK_SEQPACKET;
}

static uint64_t unix_key(const void *state)
{
	return ((const image_file_unix *)state)->ino;
}

/* --- dump --------------------------------------------------------------------- */

static bool error_waits(int fd)
{
	struct pollfd poll_fd = {.fd = fd};
	return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & POLLERR);
}

static void save_state(const struct fd_view *fd, const struct unix_facts *facts,
		       const struct unix_scratch *scratch, image_file_unix *state)
{
	char name[128];
	socklen_t size = sizeof(name);
	state->peer = facts->peer;
	state->shutdown = facts->shutdown & 3;
	if (facts->listening) {
		state->state = UNIX_LISTENING;
		state->backlog = (int)facts->backlog;
		return;
	}
	/* Says yes also when the peer is gone: there is still somebody it was connected with. */
	if (getpeername(fd->dup, (struct sockaddr *)name, &size) < 0) {
		state->state = UNIX_SINGLE;
		return;
	}
	uint32_t listener = facts->peer ? 0 : unix_waits_at(scratch, facts->ino);
	state->state = listener ? UNIX_WAITING : UNIX_CONNECTED;
	if (listener)
		state->peer = listener;
	state->reset = !listener && !facts->peer && state->type != SOCK_DGRAM && error_waits(fd->dup);
}

static int unix_save(const struct fd_view *fd, image_file *file, void *out,
		     struct fsnap_error *err)
{
	(void)file;
	image_file_unix *state = out;
	void **slot = dump_scratch(fd->dump, &kind_unix);
	const struct unix_facts *known = unix_facts_of(slot, fd->stat.st_ino, err);
	if (!known)
		return -1;
	struct unix_facts facts = *known;
	struct unix_scratch *scratch = *slot;
	state->ino = facts.ino;
	state->type = socket_int(fd->dup, SO_TYPE);
	save_state(fd, &facts, scratch, state);
	if (unix_save_name(fd, &facts, state, err) < 0 ||
	    sockopts_save(fd, &scratch->defaults, &state->options.options_len,
			  &state->options.options_val, err) < 0)
		return -1;
	int sent = 0;
	if (state->state == UNIX_WAITING && ioctl(fd->dup, SIOCOUTQ, &sent) == 0 && sent)
		return refuse_fd(fd, err, "Dump when the connection has been accepted.",
				 "data sent on a connection that is not accepted yet");
	return state->state == UNIX_LISTENING ? 0 : unix_save_queue(fd, state, err);
}

static const image_file_unix *saved_socket(struct dump *dump, uint64_t ino)
{
	size_t at = 0;
	return dump_file_next(dump, &kind_unix, ino, &at, NULL);
}

/* Clients outside the tree that wait at a listener of the tree. */
static void note_lost_clients(struct dump *dump, const image_file_unix *listener)
{
	const struct unix_scratch *scratch = *dump_scratch(dump, &kind_unix);
	for (size_t i = 0; scratch && i < scratch->n; i++)
		if (scratch->facts[i].waits_at == listener->ino &&
		    !saved_socket(dump, scratch->facts[i].ino))
			dump_note(dump, "connections of other processes that wait to be accepted are "
					"not in the image");
}

static int unix_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_unix *state = out;
	if (state->state == UNIX_LISTENING)
		note_lost_clients(dump, state);
	if (state->state == UNIX_LISTENING || state->state == UNIX_SINGLE || !state->peer ||
	    saved_socket(dump, state->peer))
		return 0;
	if (state->type == SOCK_DGRAM && state->remote.remote_len)
		return 0;
	int number = stdio_number(dump, file);
	if (number < 0)
		return refuse_outside(dump, file, err, "a Unix socket connected to a process outside the tree");
	if (state->queue.queue_len)
		dump_note(dump, "data waiting on standard stream %d is not in the image", number);
	return stdio_become(file, state, number, err);
}

/* --- restore: one socket ----------------------------------------------------------- */

static int failed(const image_file *file, struct fsnap_error *err, const char *step)
{
	return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u (%s): %s", file->id, file->label, step);
}

static int apply(const image_file *file, const image_file_unix *state, int fd, unsigned when,
		 struct fsnap_error *err)
{
	return sockopts_apply(file, fd, state->options.options_len, state->options.options_val, when,
			      err);
}

/* What comes last: it would get in the way of everything else. */
static int finish(const image_file *file, const image_file_unix *state, int fd,
		  struct fsnap_error *err)
{
	/* ENOTCONN: the peer is closed, and everything is shut down as it is. */
	if (state->shutdown && shutdown(fd, (int)state->shutdown - 1) < 0 && errno != ENOTCONN)
		return failed(file, err, "shutdown");
	return apply(file, state, fd, SOCKOPT_LATE, err);
}

static int make_single(const image_file *file, const image_file_unix *state,
		       struct fsnap_error *err)
{
	cleanup_fd int fd = socket(AF_UNIX, state->type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return failed(file, err, "socket");
	if (apply(file, state, fd, SOCKOPT_EARLY, err) < 0 || unix_bind(file, state, fd, err) < 0)
		return -1;
	if (state->state == UNIX_LISTENING && listen(fd, state->backlog) < 0)
		return failed(file, err, "listen");
	return steal_fd(&fd);
}

/* --- restore: two sockets ------------------------------------------------------------ */

struct end {
	const image_file *file;
	const image_file_unix *state; /* NULL: it had been closed */
	int fd;
};

static struct end find_end(struct restore *restore, uint64_t ino)
{
	struct end end = {.fd = -1};
	size_t at = 0;
	end.state = ino ? restore_file_next(restore, &kind_unix, ino, &at, &end.file) : NULL;
	return end;
}

/* The listener that accepted: the image's own, made now if it is not yet; else -1 and no error. */
static int listener_for(struct restore *restore, const image_file_unix *accepted,
			struct fsnap_error *err)
{
	const image_file *file;
	const image_file_unix *other;
	for (size_t i = 0; (other = restore_file_state(restore, "unix", i, &file)); i++) {
		if (other->state != UNIX_LISTENING || other->type != accepted->type ||
		    !unix_same_name(other, accepted))
			continue;
		int fd = restore_fd(restore, file->id);
		if (fd >= 0 || (fd = make_single(file, other, err)) < 0)
			return fd;
		restore_give(restore, file->id, fd); /* which moves it */
		return restore_fd(restore, file->id);
	}
	return -1;
}

static bool has_name(const struct end *end)
{
	return end->state && end->state->address.address_len;
}

static int name_end(const struct end *end, struct fsnap_error *err)
{
	if (!has_name(end))
		return 0;
	if (unix_bind(end->file, end->state, end->fd, err) < 0)
		return -1;
	unix_forget_name(end->state);
	return 0;
}

/* One end connects to the name of the other. False: it cannot be done so; that is no error. */
static bool connect_by_name(struct restore *restore, struct end *client, struct end *server,
			    struct fsnap_error *err)
{
	struct fsnap_error ignored = {0};
	cleanup_fd int own = -1;
	int listener = listener_for(restore, server->state, err);
	if (listener < 0 && !error_is_set(err)) {
		image_file_unix gone = *server->state;
		gone.state = UNIX_LISTENING;
		gone.backlog = 1;
		listener = own = make_single(server->file, &gone, &ignored);
	}
	cleanup_fd int fd = socket(AF_UNIX, server->state->type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	client->fd = fd;
	bool ok = listener >= 0 && fd >= 0 && name_end(client, &ignored) == 0 &&
		  unix_connect(fd, server->state) == 0;
	if (own >= 0)
		unix_forget_name(server->state);
	server->fd = ok ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;
	client->fd = server->fd < 0 ? -1 : steal_fd(&fd);
	return server->fd >= 0;
}

static bool has_listener(struct restore *restore, const struct end *end)
{
	const image_file *ignored;
	const image_file_unix *other;
	for (size_t i = 0; (other = restore_file_state(restore, "unix", i, &ignored)); i++)
		if (other->state == UNIX_LISTENING && unix_same_name(other, end->state))
			return true;
	return false;
}

/* The end that has a name accepted; if both have one, that of a listener. One that was connected
 * to a name did not. */
static struct end *acceptor(struct restore *restore, struct end *a, struct end *b)
{
	if (a->state->type == SOCK_DGRAM)
		return NULL;
	if (has_name(a) && has_name(b))
		return has_listener(restore, a) ? a : b;
	if (has_name(b))
		return b;
	return has_name(a) && !a->state->remote.remote_len ? a : NULL;
}

static int connect_ends(struct restore *restore, struct end *a, struct end *b,
			struct fsnap_error *err)
{
	struct end *server = acceptor(restore, a, b);
	if (server && connect_by_name(restore, server == a ? b : a, server, err))
		return 0;
	if (error_is_set(err))
		return -1;
	if (server)
		restore_note(restore, "a Unix connection has lost the name of its listener");
	int fds[2];
	if (socketpair(AF_UNIX, a->state->type | SOCK_CLOEXEC, 0, fds) < 0)
		return failed(a->file, err, "socketpair");
	a->fd = fds[0];
	b->fd = fds[1];
	if (server != a && name_end(a, err) < 0)
		return -1;
	return server != b ? name_end(b, err) : 0;
}

/* Queues first, while both ends can still send; then what limits them. */
static int furnish(struct end *a, struct end *b, struct fsnap_error *err)
{
	if (unix_fill_queue(NULL, a->file, a->state, a->fd, b->fd, err) < 0)
		return -1;
	if (!b->state) {
		/* Closing with something unread is what tells the other end ECONNRESET. */
		if (a->state->reset && send(a->fd, "", 1, MSG_NOSIGNAL) < 0)
			return failed(a->file, err, "send");
		close(b->fd);
		b->fd = -1;
		return finish(a->file, a->state, a->fd, err);
	}
	if (unix_fill_queue(NULL, b->file, b->state, b->fd, a->fd, err) < 0 ||
	    finish(a->file, a->state, a->fd, err) < 0)
		return -1;
	return finish(b->file, b->state, b->fd, err);
}

static int make_pair(struct restore *restore, struct end a, struct fsnap_error *err)
{
	struct end b = find_end(restore, a.state->peer);
	bool ok = connect_ends(restore, &a, &b, err) == 0 && furnish(&a, &b, err) == 0;
	cleanup_fd int fd = a.fd, other = b.fd;
	if (!ok)
		return -1;
	if (b.state)
		restore_give(restore, b.file->id, steal_fd(&other));
	return steal_fd(&fd);
}

/* Two datagram sockets that are each other's peer can be a pair; one that is merely connected to
 * a name connects to it later. */
static bool is_pair(struct restore *restore, const image_file_unix *state)
{
	if (state->state != UNIX_CONNECTED || state->peer == state->ino)
		return false;
	if (state->type != SOCK_DGRAM)
		return true;
	struct end peer = find_end(restore, state->peer);
	return peer.state ? peer.state->peer == state->ino : !state->remote.remote_len;
}

static int unix_remap_file(struct restore *restore, void *state, struct fsnap_error *err)
{
	return unix_remap(restore, state, err);
}

static int unix_make(struct restore *restore, const image_file *file, const void *in,
		     struct fsnap_error *err)
{
	const image_file_unix *state = in;
	if (is_pair(restore, state))
		return make_pair(restore, (struct end){file, state, -1}, err);
	return make_single(file, state, err);
}

/* --- restore: when all sockets are there ------------------------------------------------- */

static int connect_listener(struct restore *restore, const image_file *file,
			    const image_file_unix *state, int fd, struct fsnap_error *err)
{
	const image_file *waiting;
	const image_file_unix *other;
	for (size_t i = 0; (other = restore_file_state(restore, "unix", i, &waiting)); i++)
		if (other->state == UNIX_WAITING && other->peer == state->ino &&
		    unix_connect(restore_fd(restore, waiting->id), state) < 0)
			return failed(file, err, "a connection waiting to be accepted");
	unix_forget_name(state);
	return apply(file, state, fd, SOCKOPT_LATE, err);
}

static int connect_datagrams(struct restore *restore, const image_file *file,
			     const image_file_unix *state, int fd, struct fsnap_error *err)
{
	cleanup_fd int stranger = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (stranger < 0)
		return failed(file, err, "socket");
	/* Before connecting: from then on only the peer may send. */
	if (unix_fill_queue(restore, file, state, fd, stranger, err) < 0)
		return -1;
	image_file_unix peer = {
		.address = {state->remote.remote_len, state->remote.remote_val},
		.directory = state->directory,
	};
	if (state->state == UNIX_CONNECTED && unix_connect(fd, &peer) < 0)
		restore_note(restore, "a Unix datagram socket is not connected any more: %s",
			     strerror(errno));
	unix_forget_name(state);
	return finish(file, state, fd, err);
}

static int unix_connect_file(struct restore *restore, const image_file *file, const void *in, int fd,
			     struct fsnap_error *err)
{
	const image_file_unix *state = in;
	if (state->state == UNIX_LISTENING)
		return connect_listener(restore, file, state, fd, err);
	if (is_pair(restore, state))
		return 0; /* all done */
	if (state->type == SOCK_DGRAM)
		return connect_datagrams(restore, file, state, fd, err);
	return apply(file, state, fd, SOCKOPT_LATE, err);
}

const struct file_kind kind_unix = {
	.name = "unix",
	.keeps = "pairs and connections within the tree with what waits in them, "
		 "listeners, datagram sockets, options",
	.refuses = "an end outside the tree, descriptors under way, data before accept",
	.shown_by = "socket_pair* socket_unix_listen",
	.xdr = (xdrproc_t)xdr_image_file_unix,
	.key = unix_key,
	.matches = unix_matches,
	.save = unix_save,
	.save_links = unix_save_links,
	.remap = unix_remap_file,
	.make = unix_make,
	.connect = unix_connect_file,
};
