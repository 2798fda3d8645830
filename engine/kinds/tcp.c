/*
 * TCP over IPv4 and IPv6.
 *
 * Listening, bound and fresh sockets come back as they were.  The other end of
 * an established connection is another machine's, or a process that was not
 * saved: it comes back as one that the peer has reset, which every program that
 * uses a network is prepared for.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

#include "engine/kinds/inet_address.h"
#include "engine/kinds/sockopt.h"
#include "engine/kinds/table.h"
#include "engine/kinds/tcp_sweep.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

enum { INET_LISTENING = 1, INET_ESTABLISHED = 2, INET_BOUND = 3 };

static bool tcp_matches(const struct fd_view *fd)
{
	if (!S_ISSOCK(fd->stat.st_mode) || fd->dup < 0)
		return false;
	int family = socket_int(fd->dup, SO_DOMAIN);
	if (family != AF_INET && family != AF_INET6)
		return false;
	return socket_int(fd->dup, SO_PROTOCOL) == IPPROTO_TCP;
}

/* --- dump --------------------------------------------------------------------- */

static void tcp_state(const struct fd_view *fd, image_file_tcp *state)
{
	struct tcp_info info = {0};
	socklen_t size = sizeof(info);
	getsockopt(fd->dup, IPPROTO_TCP, TCP_INFO, &info, &size);
	state->state = info.tcpi_state == TCP_LISTEN ? INET_LISTENING :
		       info.tcpi_state == TCP_CLOSE  ? INET_BOUND :
						       INET_ESTABLISHED;
	if (state->state != INET_LISTENING)
		return;
	state->backlog = (int)info.tcpi_sacked; /* tcp_get_info(): of a listener, its backlog */
	if (info.tcpi_unacked)
		dump_note(fd->dump, "connections waiting to be accepted are not in the image: their "
				    "clients see no answer after a restore");
}

static int tcp_save(const struct fd_view *fd, image_file *file, void *out,
		     struct fsnap_error *err)
{
	(void)file;
	image_file_tcp *state = out;
	union inet_address local = {0}, remote = {0};
	socklen_t local_size = sizeof(local), remote_size = sizeof(remote);
	if (getsockname(fd->dup, &local.any, &local_size) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "descriptor %d (%s)", fd->fd, fd->link);
	if (getpeername(fd->dup, &remote.any, &remote_size) < 0)
		remote_size = 0;
	if (set_bytes(&state->local.local_len, &state->local.local_val, local.bytes, local_size,
		      err) < 0 ||
	    set_bytes(&state->remote.remote_len, &state->remote.remote_val, remote.bytes,
		      remote_size, err) < 0)
		return -1;
	state->family = socket_int(fd->dup, SO_DOMAIN);
	tcp_state(fd, state);

	/* Whoever finds his connection reset closes it: its options (13 us, and there may be thousands)
	 * are not worth the time the tree is frozen. */
	if (state->state == INET_ESTABLISHED)
		return 0;
	void **defaults = dump_scratch(fd->dump, &kind_tcp);
	if (!*defaults && !(*defaults = calloc(1, sizeof(struct sockopt_defaults))))
		return no_memory(err);
	return sockopts_save(fd, *defaults, &state->options.options_len, &state->options.options_val,
			     err);
}

static int tcp_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err)
{
	image_file_tcp *state = out, *other;
	image_file *ignored;
	unsigned count = 0;
	if (state->state != INET_ESTABLISHED)
		return 0;
	int number = stdio_number(dump, file);
	if (number >= 0)
		return stdio_become(file, state, number, err);
	for (size_t i = 0; (other = dump_file_state(dump, "tcp", i, &ignored)); i++)
		count += other->state == INET_ESTABLISHED && stdio_number(dump, ignored) < 0;
	dump_note(dump, "%u TCP connection%s will come back as reset by the peer", count,
		  count == 1 ? "" : "s");
	return 0;
}

/* --- restore -------------------------------------------------------------------- */

static int try_bind(int fd, const image_file_tcp *state)
{
	return bind(fd, (struct sockaddr *)state->local.local_val, state->local.local_len) < 0 ? errno :
												 0;
}

/* A killed tree leaves its connections behind in TIME_WAIT: SO_REUSEADDR lets a listener come
 * back nevertheless, and does not let it take an address from another listener. */
static int bind_local(int fd, const image_file_tcp *state, struct fsnap_error *err)
{
	union inet_address local = inet_address(state->local.local_val, state->local.local_len);
	int on = 1, before = socket_int(fd, SO_REUSEADDR);
	if (!inet_port(&local))
		return 0;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	int sys = try_bind(fd, state);
	if (sys == EADDRINUSE && tcp_sweep(inet_port(&local)))
		sys = try_bind(fd, state);
	if (!sys && state->state == INET_LISTENING && listen(fd, state->backlog) < 0)
		sys = errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &before, sizeof(before));
	return sys ? inet_refused_bind("TCP", &local, sys, err) : 0;
}

static int make_bound(const image_file *file, const image_file_tcp *state, struct fsnap_error *err)
{
	cleanup_fd int fd = socket(state->family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u (%s): socket", file->id,
			    file->label);
	unsigned n = state->options.options_len;
	if (sockopts_apply(file, fd, n, state->options.options_val, SOCKOPT_EARLY, err) < 0 ||
	    bind_local(fd, state, err) < 0 ||
	    sockopts_apply(file, fd, n, state->options.options_val, SOCKOPT_LATE, err) < 0)
		return -1;
	return steal_fd(&fd);
}

static socklen_t loopback(int family, union inet_address *address)
{
	memset(address, 0, sizeof(*address));
	address->any.sa_family = (sa_family_t)family;
	if (family == AF_INET6) {
		address->v6.sin6_addr = in6addr_loopback;
		return sizeof(address->v6);
	}
	address->v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return sizeof(address->v4);
}

/* A connection with ourselves, whose other end goes away without a farewell. */
static int connect_and_reset(int fd, int family)
{
	union inet_address address;
	socklen_t size = loopback(family, &address);
	struct linger reset = {.l_onoff = 1, .l_linger = 0};
	cleanup_fd int listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, &address.any, size) < 0 || listen(listener, 1) < 0 ||
	    getsockname(listener, &address.any, &size) < 0 || connect(fd, &address.any, size) < 0)
		return -1;
	cleanup_fd int other = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	return other < 0 ? -1 : setsockopt(other, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
}

static int make_reset(const image_file *file, const image_file_tcp *state, struct fsnap_error *err)
{
	cleanup_fd int fd = socket(state->family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0 || connect_and_reset(fd, state->family) < 0) {
		fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u (%s): a connection to reset", file->id,
		     file->label);
		return error_hint(err, "The loopback interface must be up (ip link set lo up).");
	}
	return steal_fd(&fd);
}

static int tcp_make(struct restore *restore, const image_file *file, const void *in,
		    struct fsnap_error *err)
{
	(void)restore;
	const image_file_tcp *state = in;
	if (state->local.local_len < inet_address_size(state->family))
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "file %u: its address is too short",
			    file->id);
	return state->state == INET_ESTABLISHED ? make_reset(file, state, err) :
						  make_bound(file, state, err);
}

const struct file_kind kind_tcp = {
	.name = "tcp",
	.keeps = "listeners, bound sockets, options; a connection comes back as reset",
	.refuses = "eBPF filters, sockets of another network namespace",
	.shown_by = "socket_tcp_*",
	.xdr = (xdrproc_t)xdr_image_file_tcp,
	.matches = tcp_matches,
	.save = tcp_save,
	.save_links = tcp_save_links,
	.make = tcp_make,
};
