/*
 * TCP over IPv4 and IPv6.
 *
 * Listening, bound and fresh sockets come back as they were, and so do
 * connections between two members of the tree.  A connection to the outside is
 * kept if the user wishes it (--tcp keep).  Otherwise it comes back as one that
 * the peer has reset, which every program that uses a network is prepared for.
 */
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>

#include "engine/kinds/table.h"
#include "engine/kinds/tcp_parts.h"
#include "engine/kinds/tcp_sweep.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

#define FSNAP_TCP_AO_INFO 40 /* newer than the C library's headers */
#define FSNAP_TCP_ULP_NAME 17

static bool tcp_matches(const struct fd_view *fd)
{
	int family = fd->socket.domain;
	if (family != AF_INET && family != AF_INET6)
		return false;
	return fd->socket.protocol == IPPROTO_TCP;
}

/* --- dump --------------------------------------------------------------------- */

/* What changes the protocol itself, and that no call reads or sets again as it is. */
static int refuse_additions(const struct fd_view *fd, int state, struct fsnap_error *err)
{
	char layer[FSNAP_TCP_ULP_NAME] = "";
	socklen_t size = sizeof(layer) - 1;
	if (getsockopt(fd->dup, IPPROTO_TCP, TCP_ULP, layer, &size) == 0 && layer[0])
		return refuse_fd(fd, err, "Dump before the program sets it up.",
				 "a TCP socket with the layer \"%s\" on top (TCP_ULP): its keys and records "
				 "cannot be read", layer);
	char ao[128];
	size = sizeof(ao);
	if (getsockopt(fd->dup, IPPROTO_TCP, FSNAP_TCP_AO_INFO, ao, &size) == 0)
		return refuse_fd(fd, err, "Dump before the program sets it up.",
				 "a TCP socket with authentication (TCP-AO): its keys cannot be read");
	struct tcp_diag *diag = tcp_diag_of(fd->dump, err);
	if (diag && tcp_has_md5(diag, fd->dup, fd->stat.st_ino, state))
		return refuse_fd(fd, err, "Dump before the program sets it up.",
				 "a TCP socket with MD5 signatures (TCP_MD5SIG): its keys cannot be set "
				 "on another connection");
	return diag ? 0 : -1;
}

static int listener_state(const struct fd_view *fd, const struct tcp_info *info, image_file *file,
			  image_file_tcp *state, struct fsnap_error *err)
{
	state->state = TCP_IS_LISTENING;
	state->backlog = (int)info->tcpi_sacked; /* tcp_get_info(): of a listener, its backlog */
	if (dump_options(fd->dump)->kill)
		return tcp_look_listener(fd, file, state, err);
	if (info->tcpi_unacked)
		dump_note(fd->dump, "TCP connections waiting to be accepted are not in the image: the tree goes "
				    "on, and no call reads them without taking them away");
	return 0;
}

static int connection_state(const struct fd_view *fd, const struct tcp_info *info, image_file *file,
			    image_file_tcp *state, struct fsnap_error *err)
{
	struct pollfd event = {.fd = fd->dup, .events = POLLPRI};
	state->state = TCP_IS_CONNECTION;
	state->phase = info->tcpi_state;
	state->features = info->tcpi_options;
	state->snd_wscale = info->tcpi_snd_wscale;
	state->rcv_wscale = info->tcpi_rcv_wscale;
	poll(&event, 1, 0);
	if (event.revents & POLLPRI)
		return refuse_fd(fd, err, "Dump when the program has read it.",
				 "a TCP connection with urgent data (MSG_OOB) not read yet: no call puts it "
				 "back");
	return tcp_look_add(fd, file, state, err);
}

/* getpeername(2) does not tell while a connection is only attempted (inet_getname(), net/ipv4/af_inet.c). */
static socklen_t called(const struct fd_view *fd, union inet_address *remote, struct fsnap_error *err)
{
	struct tcp_diag *diag = tcp_diag_of(fd->dump, err);
	const union inet_address *known = diag ? tcp_called(diag, fd->stat.st_ino) : NULL;
	if (!known)
		return 0;
	*remote = *known;
	return (socklen_t)inet_address_size(remote->any.sa_family);
}

static int save_addresses(const struct fd_view *fd, const struct tcp_info *info, image_file_tcp *state,
			  struct fsnap_error *err)
{
	union inet_address local = {0}, remote = {0};
	socklen_t local_size = sizeof(local), remote_size = sizeof(remote);
	if (getsockname(fd->dup, &local.any, &local_size) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "descriptor %d (%s)", fd->fd, fd->link);
	if (getpeername(fd->dup, &remote.any, &remote_size) < 0)
		remote_size = info->tcpi_state == TCP_SYN_SENT ? called(fd, &remote, err) : 0;
	if (set_bytes(&state->local.local_len, &state->local.local_val, local.bytes, local_size,
		      err) < 0)
		return -1;
	return set_bytes(&state->remote.remote_len, &state->remote.remote_val, remote.bytes,
			 remote_size, err);
}

int tcp_fill(const struct fd_view *fd, image_file *file, image_file_tcp *state, struct fsnap_error *err)
{
	struct tcp_info info = {0};
	socklen_t size = sizeof(info);
	getsockopt(fd->dup, IPPROTO_TCP, TCP_INFO, &info, &size);
	state->family = fd->socket.domain;
	return save_addresses(fd, &info, state, err) < 0 ? -1 : connection_state(fd, &info, file, state, err);
}

static int tcp_save(const struct fd_view *fd, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_tcp *state = out;
	struct tcp_info info = {0};
	socklen_t size = sizeof(info);
	state->family = fd->socket.domain;
	state->uid = fd->stat.st_uid;
	state->gid = fd->stat.st_gid;
	getsockopt(fd->dup, IPPROTO_TCP, TCP_INFO, &info, &size);
	if (refuse_additions(fd, info.tcpi_state, err) < 0 || save_addresses(fd, &info, state, err) < 0)
		return -1;
	if (info.tcpi_state == TCP_LISTEN && listener_state(fd, &info, file, state, err) < 0)
		return -1;
	if (info.tcpi_state == TCP_LISTEN)
		; /* and its options */
	else if (info.tcpi_state != TCP_CLOSE)
		return connection_state(fd, &info, file, state, err);
	else if (tcp_ended_save(fd, state, err) < 0)
		return -1;
	struct sockopt_defaults *defaults = tcp_defaults(fd->dump, err);
	return defaults ? sockopts_save(fd, defaults, &state->options.options_len,
					&state->options.options_val, err) : -1;
}

static int tcp_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_tcp *state = out;
	if (tcp_look_at_all(dump, err) < 0)
		return -1;
	if (state->state != TCP_IS_CONNECTION)
		return 0;
	int number = state->kept == TCP_RESET ? stdio_number(dump, file) : -1;
	return number < 0 ? 0 : stdio_become(file, state, number, err);
}

/* --- restore -------------------------------------------------------------------- */

static int try_bind(int fd, const image_file_tcp *state)
{
	return bind(fd, (struct sockaddr *)state->local.local_val, state->local.local_len) < 0 ? errno :
												 0;
}

/* A killed tree leaves its connections behind in TIME_WAIT: SO_REUSEADDR lets a listener come
 * back nevertheless, and does not let it take an address from another listener. */
int tcp_bind(const struct restore *restore, int fd, const image_file_tcp *state, struct fsnap_error *err)
{
	union inet_address local = inet_address(state->local.local_val, state->local.local_len);
	int on = 1, before = socket_int(fd, SO_REUSEADDR);
	if (!inet_port(&local))
		return 0;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	int sys = try_bind(fd, state);
	if (sys == EADDRINUSE && tcp_sweep(inet_port(&local)))
		sys = try_bind(fd, state);
	if (!sys && state->state == TCP_IS_LISTENING && listen(fd, state->backlog) < 0)
		sys = errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &before, sizeof(before));
	return sys ? inet_refused_bind(restore, "TCP", &local, sys, err) : 0;
}

static int make_bound(const struct restore *restore, const image_file *file, const image_file_tcp *state,
		      struct fsnap_error *err)
{
	cleanup_fd int fd = socket(state->family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u (%s): socket", file->id,
			    file->label);
	unsigned n = state->options.options_len;
	if (sockopts_apply(file, fd, n, state->options.options_val, SOCKOPT_EARLY, err) < 0 ||
	    tcp_bind(restore, fd, state, err) < 0 ||
	    sockopts_apply(file, fd, n, state->options.options_val, SOCKOPT_LATE, err) < 0)
		return -1;
	return steal_fd(&fd);
}

static int tcp_make(struct restore *restore, const image_file *file, const void *in,
		    struct fsnap_error *err)
{
	const image_file_tcp *state = in;
	bool reset = false;
	size_t least = inet_address_size(state->family);
	if (state->local.local_len < least ||
	    (state->state == TCP_IS_CONNECTION && state->remote.remote_len < least) ||
	    state->unsent > state->sent.sent_len)
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "file %u: its address or queue is too short",
			    file->id);
	int fd = -1;
	if (state->state == TCP_IS_CONNECTION)
		fd = tcp_made(restore, file, state, &reset, err);
	else if (state->state != TCP_IS_ENDED)
		fd = make_bound(restore, file, state, err);
	if (reset || state->state == TCP_IS_ENDED)
		fd = tcp_ended_make(file, state, err);
	if (fd >= 0 && fchown(fd, state->uid, state->gid) < 0 && errno != EPERM) {
		close(fd);
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u (%s): its owner", file->id,
			    file->label);
	}
	return fd;
}

static int tcp_connect(struct restore *restore, const image_file *file, const void *in, int fd,
		       struct fsnap_error *err)
{
	const image_file_tcp *state = in;
	int repair = 0;
	socklen_t size = sizeof(repair);
	if (state->state == TCP_IS_LISTENING && state->waiting.waiting_len)
		return tcp_made_waiting(restore, file, state, fd, err);
	if (state->state != TCP_IS_CONNECTION)
		return 0;
	getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &repair, &size);
	if (!repair && state->phase != TCP_SYN_SENT)
		return 0; /* it came back as reset */
	return tcp_made_connect(restore, file, state, fd, err);
}

/* Of a connection to somebody outside, neither end can have another port. */
static int tcp_remap(struct restore *restore, void *in, struct fsnap_error *err)
{
	(void)err;
	image_file_tcp *state = in;
	if (state->state != TCP_IS_CONNECTION || state->kept != TCP_OUTSIDE)
		restore_move_port(restore, state->local.local_val, state->local.local_len);
	if (state->state == TCP_IS_CONNECTION && state->kept == TCP_INSIDE)
		restore_move_port(restore, state->remote.remote_val, state->remote.remote_len);
	return 0;
}

const struct file_kind kind_tcp = {
	.name = "tcp",
	.keeps = "listeners, bound sockets; connections within the tree with all that is under way, "
		 "half-closed ones, too; connections to the outside with --tcp keep, else they come "
		 "back as reset; with --kill those that wait to be accepted; options",
	.refuses = "TLS and other layers in the kernel (TCP_ULP), MD5 and AO keys, unread urgent data, "
		   "eBPF filters, sockets of another network namespace",
	.shown_by = "socket_tcp_*",
	.xdr = (xdrproc_t)xdr_image_file_tcp,
	.matches = tcp_matches,
	.save = tcp_save,
	.save_links = tcp_save_links,
	.remap = tcp_remap,
	.make = tcp_make,
	.connect = tcp_connect,
	.silence = tcp_silence,
	.dump_end = tcp_dump_end,
	.restore_end = tcp_restore_end,
	.release = tcp_made_release,
};
