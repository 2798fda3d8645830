/*
 * Unix sockets: pairs, listeners, datagram sockets, by name or without.
 *
 * A connection is restored when both its ends are in the image, or when one of
 * them had been closed; an end may be one that only a message still holds.  One
 * that leads outside must be the root's stdio.  Connected datagram sockets
 * (syslog) connect to the same name again.
 */
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "engine/kinds/maker.h"
#include "engine/kinds/table.h"
#include "engine/kinds/unix_parts.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

static bool unix_matches(const struct fd_view *fd)
{
	if (fd->socket.domain != AF_UNIX)
		return false;
	int type = fd->socket.type;
	return type == SOCK_STREAM || type == SOCK_DGRAM || type == SOCK_SEQPACKET;
}

static uint64_t unix_key(const void *state)
{
	return ((const image_file_unix *)state)->ino;
}

/* --- dump: one socket --------------------------------------------------------------- */

static bool error_waits(int fd)
{
	struct pollfd poll_fd = {.fd = fd};
	return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & POLLERR);
}

static void save_state(const struct fd_view *fd, const struct unix_facts *facts,
		       struct unix_scratch *scratch, image_file_unix *state)
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
	if (state->type == SOCK_DGRAM && error_waits(fd->dup))
		dump_note(fd->dump, "an error that waits to be told by a Unix datagram socket "
				    "(its peer has turned away) is not in the image");
}

/* Whom the program will be told by SO_PEERCRED and SO_PEERGROUPS. */
static int save_maker(const struct fd_view *fd, image_maker *maker, struct fsnap_error *err)
{
	struct ucred creds;
	gid_t groups[32]; /* nearly always enough */
	socklen_t size = sizeof(creds);
	if (getsockopt(fd->dup, SOL_SOCKET, SO_PEERCRED, &creds, &size) < 0 || creds.uid == (uid_t)-1)
		return 0;
	maker->pid = creds.pid;
	maker->uid = creds.uid;
	maker->gid = creds.gid;
	size = sizeof(groups);
	cleanup_free gid_t *many = NULL;
	gid_t *given = groups;
	if (getsockopt(fd->dup, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0) {
		if (errno != ERANGE)
			return 0;
		if (!(given = many = malloc(size)))
			return no_memory(err);
		if (getsockopt(fd->dup, SOL_SOCKET, SO_PEERGROUPS, many, &size) < 0)
			return 0;
	}
	return set_bytes(&maker->groups.groups_len, (char **)&maker->groups.groups_val, given, size, err) < 0
		       ? -1
		       : (maker->groups.groups_len /= (unsigned)sizeof(gid_t), 0);
}

/* What was sent lies in a socket that has no descriptor before accept(2): see unix_waiting.c. */
static int save_client(const struct fd_view *fd, void **slot, image_file_unix *state, struct fsnap_error *err)
{
	int sent = 0;
	struct unix_facts *facts = unix_facts_of(slot, state->ino, err);
	if (!facts)
		return -1;
	facts->sent = ioctl(fd->dup, SIOCOUTQ, &sent) == 0 && sent;
	/* Nobody is told before accept(2) who has connected: we take it that it is who holds the socket. */
	return maker_of(fd, &state->maker, err);
}

static int unix_save(const struct fd_view *fd, image_file *file, void *out,
		     struct fsnap_error *err)
{
	image_file_unix *state = out;
	void **slot = dump_scratch(fd->dump, &kind_unix);
	struct unix_facts *known = unix_facts_of(slot, fd->stat.st_ino, err);
	if (!known)
		return -1;
	known->file = file->id;
	struct unix_facts facts = *known;
	struct unix_scratch *scratch = *slot;
	state->ino = facts.ino;
	state->type = fd->socket.type;
	save_state(fd, &facts, scratch, state);
	if (unix_save_name(fd, &facts, state, err) < 0 || save_maker(fd, &state->peer_maker, err) < 0 ||
	    sockopts_save(fd, &scratch->defaults, &state->options.options_len,
			  &state->options.options_val, err) < 0)
		return -1;
	if (state->state == UNIX_LISTENING)
		return unix_save_waiting(scratch, state, err);
	if (state->state == UNIX_WAITING && save_client(fd, slot, state, err) < 0)
		return -1;
	return unix_save_queue(fd, state, err);
}

/* --- dump: when all are known ---------------------------------------------------------- */

static int unix_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_unix *state = out;
	struct unix_scratch *scratch = *dump_scratch(dump, &kind_unix);
	if (state->state == UNIX_LISTENING)
		return unix_settle_waiting(dump, scratch, file, state, err);
	if (state->state == UNIX_SINGLE || !state->peer ||
	    unix_saved_as(scratch, state->peer))
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

/* --- restore ------------------------------------------------------------------------------ */

static int apply(const struct unix_end *end, int fd, unsigned when, struct fsnap_error *err)
{
	return sockopts_apply(end->file, fd, end->state->options.options_len, end->state->options.options_val,
			      when, err);
}

static int make_single(struct unix_bench *bench, const struct unix_end *end, struct fsnap_error *err)
{
	cleanup_fd int fd = socket(AF_UNIX, end->state->type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return unix_failed(end->file, err, "socket");
	if (apply(end, fd, SOCKOPT_EARLY, err) < 0 ||
	    unix_bind(&bench->shadow, end->file, end->state, fd, err) < 0)
		return -1;
	return steal_fd(&fd);
}

static int unix_remap_file(struct restore *restore, void *state, struct fsnap_error *err)
{
	return unix_remap(restore, state, err);
}

/* All connections and listeners come into being with the first socket: see unix_connect.c. */
static int unix_make(struct restore *restore, const image_file *file, const void *in,
		     struct fsnap_error *err)
{
	const image_file_unix *state = in;
	struct unix_bench *bench = unix_bench_of(restore, err);
	if (!bench)
		return -1;
	if (!bench->ready) {
		bench->making = file;
		if (unix_connect_all(restore, bench, err) < 0)
			return -1;
	}
	int made = bench->made;
	bench->made = -1;
	return made >= 0 ? made : make_single(bench, unix_end_of(bench, state->ino), err);
}

/* What comes last: it would get in the way of everything else. */
static int finish(const struct unix_end *end, int fd, struct fsnap_error *err)
{
	const image_file_unix *state = end->state;
	/* ENOTCONN: the peer is closed, and everything is shut down as it is. */
	if (state->shutdown && shutdown(fd, (int)state->shutdown - 1) < 0 && errno != ENOTCONN)
		return unix_failed(end->file, err, "shutdown");
	return apply(end, fd, SOCKOPT_LATE, err);
}

/* Queues first, while both ends can still send; then what limits them. */
static int furnish_pair(struct restore *restore, struct unix_end *a, struct fsnap_error *err)
{
	struct unix_end *b = a->peer;
	int a_fd = restore_fd(restore, a->file->id);
	int b_fd = b ? restore_fd(restore, b->file->id) : a->orphan;
	a->furnished = true;
	if (unix_fill_stream(restore, a, b_fd, err) < 0)
		return -1;
	if (!b) {
		/* Closing with something unread is what tells the other end ECONNRESET. */
		if (a->state->reset && send(a_fd, "", 1, MSG_NOSIGNAL) < 0)
			return unix_failed(a->file, err, "send");
		close(a->orphan);
		a->orphan = -1;
		return finish(a, a_fd, err);
	}
	b->furnished = true;
	if (unix_fill_stream(restore, b, a_fd, err) < 0 || finish(a, a_fd, err) < 0)
		return -1;
	return finish(b, b_fd, err);
}

static int connect_datagrams(struct restore *restore, struct unix_bench *bench, struct unix_end *end, int fd,
			     struct fsnap_error *err)
{
	const image_file_unix *state = end->state;
	/* Before connecting: from then on only the peer may send. */
	if (unix_fill_datagrams(restore, bench, end, err) < 0)
		return -1;
	const struct unix_end *known = unix_end_of(bench, state->peer);
	image_file_unix peer = {
		.address = {state->remote.remote_len, state->remote.remote_val},
		.directory = known ? known->state->directory : state->directory,
		.mode = known ? known->state->mode : S_IFSOCK,
	};
	if (state->state == UNIX_CONNECTED && unix_connect(&bench->shadow, fd, &peer) < 0)
		restore_note(restore, "a Unix datagram socket is not connected any more: %s",
			     strerror(errno));
	return finish(end, fd, err);
}

/* Options first: who connects inherits some. */
static int open_listener(struct restore *restore, struct unix_bench *bench, struct unix_end *end, int fd,
			 struct fsnap_error *err)
{
	if (apply(end, fd, SOCKOPT_LATE, err) < 0 || unix_refill_backlog(restore, bench, end, err) < 0)
		return -1;
	for (unsigned i = 0; i < end->state->waiting.waiting_len; i++) {
		const struct unix_end *client = unix_end_of(bench, end->state->waiting.waiting_val[i]);
		if (client && finish(client, restore_fd(restore, client->file->id), err) < 0)
			return -1;
	}
	return 0;
}

/* Does a message in its queue have what can only be made when the tree is there? */
static bool is_late(struct restore *restore, const struct unix_end *end)
{
	const image_file_unix *state = end->state;
	for (unsigned i = 0; i < state->queue.queue_len; i++)
		for (unsigned j = 0; j < state->queue.queue_val[i].rights.rights_len; j++)
			if (restore_is_late(restore, state->queue.queue_val[i].rights.rights_val[j]))
				return true;
	return false;
}

static int unix_connect_file(struct restore *restore, const image_file *file, const void *in, int fd,
			     struct fsnap_error *err)
{
	const image_file_unix *state = in;
	struct unix_bench *bench = unix_bench_of(restore, err);
	struct unix_end *end = bench ? unix_end_of(bench, state->ino) : NULL;
	(void)file;
	if (!end)
		return -1;
	if (state->state == UNIX_LISTENING)
		return open_listener(restore, bench, end, fd, err);
	if (state->state == UNIX_WAITING)
		return 0; /* its listener sees to it */
	end->late = is_late(restore, end) || (end->peer && is_late(restore, end->peer));
	if (end->late)
		return 0;
	if (end->paired)
		return end->furnished ? 0 : furnish_pair(restore, end, err);
	if (state->type == SOCK_DGRAM)
		return connect_datagrams(restore, bench, end, fd, err);
	return finish(end, fd, err);
}

static int bring_rights(struct restore *restore, const struct unix_end *end, struct fsnap_error *err)
{
	const image_file_unix *state = end->state;
	for (unsigned i = 0; i < state->queue.queue_len; i++)
		for (unsigned j = 0; j < state->queue.queue_val[i].rights.rights_len; j++)
			if (restore_arrived(restore, state->queue.queue_val[i].rights.rights_val[j], end->file->id,
					    err) < 0)
				return -1;
	return 0;
}

static int unix_complete(struct restore *restore, struct fsnap_error *err)
{
	struct unix_bench *bench = unix_bench_of(restore, err);
	for (size_t i = 0; i < bench->n; i++)
		if (bench->ends[i].late && bring_rights(restore, &bench->ends[i], err) < 0)
			return -1;
	for (size_t i = 0; i < bench->n; i++) {
		struct unix_end *end = &bench->ends[i];
		if (!end->late || end->furnished)
			continue;
		int fd = restore_fd(restore, end->file->id);
		if ((end->paired ? furnish_pair(restore, end, err) : connect_datagrams(restore, bench, end, fd, err)) < 0)
			return restore_blame(restore, end->file, err);
	}
	return 0;
}

const struct file_kind kind_unix = {
	.name = "unix",
	.keeps = "pairs and connections within the tree with what waits in them, descriptors under way "
		 "included; listeners with who waits there; datagram sockets; credentials, options",
	.refuses = "an end outside the tree; data sent before accept, where the kernel does not let us look; "
		   "userfaultfds under way",
	.shown_by = "socket_pair* socket_unix_*",
	.xdr = (xdrproc_t)xdr_image_file_unix,
	.key = unix_key,
	.matches = unix_matches,
	.save = unix_save,
	.save_links = unix_save_links,
	.remap = unix_remap_file,
	.make = unix_make,
	.connect = unix_connect_file,
	.complete = unix_complete,
	.restore_end = unix_bench_close,
};
