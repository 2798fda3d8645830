/*
 * Datagrams over IPv4 and IPv6: UDP, UDP-Lite, ICMP echo, and raw sockets of any
 * protocol.
 *
 * They come back bound, connected and members of their multicast groups, with
 * their options; what waits in UDP sockets is delivered again (inet_queue.c).
 */
#include <netinet/in.h>
#include <string.h>

#include "engine/kinds/inet_address.h"
#include "engine/kinds/inet_parts.h"
#include "engine/kinds/maker.h"
#include "engine/kinds/membership.h"
#include "engine/kinds/sockopt.h"
#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

enum { INET_BOUND = 3, INET_CONNECTED = 4 };

struct inet_scratch {
	struct sockopt_defaults defaults;
	struct memberships *groups; /* NULL: not read yet */
};

static bool is_echo(int type, int protocol)
{
	return type == SOCK_DGRAM && (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6);
}

static bool is_udp(int type, int protocol)
{
	return type == SOCK_DGRAM && (protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE);
}

static bool inet_matches(const struct fd_view *fd)
{
	int family = fd->socket.domain;
	if (family != AF_INET && family != AF_INET6)
		return false;
	int type = fd->socket.type, protocol = fd->socket.protocol;
	return type == SOCK_RAW || is_udp(type, protocol) || is_echo(type, protocol);
}

static const char *what_is(const image_file_inet *state)
{
	return state->type == SOCK_RAW		      ? "a raw socket" :
	       is_echo(state->type, state->protocol)  ? "ICMP" :
	       state->protocol == IPPROTO_UDPLITE     ? "UDP-Lite" :
							"UDP";
}

/* --- dump --------------------------------------------------------------------- */

static struct inet_scratch *scratch_of(const struct fd_view *fd, struct fsnap_error *err)
{
	void **slot = dump_scratch(fd->dump, &kind_inet);
	if (!*slot && !(*slot = calloc(1, sizeof(struct inet_scratch))))
		no_memory(err);
	struct inet_scratch *scratch = *slot;
	if (scratch && !scratch->groups && !(scratch->groups = memberships_read(err)))
		return NULL;
	return scratch;
}

static void inet_dump_end(void *scratch)
{
	free(((struct inet_scratch *)scratch)->groups);
}

static int save_addresses(const struct fd_view *fd, image_file_inet *state, struct fsnap_error *err)
{
	union inet_address local = {0}, remote = {0};
	socklen_t local_size = sizeof(local), remote_size = sizeof(remote);
	if (getsockname(fd->dup, &local.any, &local_size) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "descriptor %d (%s)", fd->fd, fd->link);
	if (getpeername(fd->dup, &remote.any, &remote_size) < 0)
		remote_size = 0;
	state->state = remote_size ? INET_CONNECTED : INET_BOUND;
	if (set_bytes(&state->local.local_len, &state->local.local_val, local.bytes, local_size, err) < 0)
		return -1;
	return set_bytes(&state->remote.remote_len, &state->remote.remote_val, remote.bytes, remote_size, err);
}

static int inet_save(const struct fd_view *fd, image_file *file, void *out,
		     struct fsnap_error *err)
{
	(void)file;
	image_file_inet *state = out;
	struct inet_scratch *scratch = scratch_of(fd, err);
	if (!scratch || save_addresses(fd, state, err) < 0)
		return -1;
	state->family = fd->socket.domain;
	state->type = fd->socket.type;
	state->protocol = fd->socket.protocol;
	if (inet_save_held(fd, state, err) < 0 || sockopts_save(fd, &scratch->defaults, &state->options.options_len, &state->options.options_val,
			  err) < 0 ||
	    memberships_save(fd, scratch->groups, state->family, state, err) < 0 ||
	    (is_echo(state->type, state->protocol) && maker_of(fd, &state->maker, err) < 0))
		return -1;
	return inet_save_queue(fd, state, err);
}

static const image_sockopt *has_option(const image_file_inet *state, int name)
{
	for (unsigned i = 0; i < state->options.options_len; i++)
		if (state->options.options_val[i].level == SOL_SOCKET &&
		    state->options.options_val[i].name == name)
			return &state->options.options_val[i];
	return NULL;
}

/* No call tells whether a group of sockets has a program that chooses among them. */
static int inet_save_links(struct dump *dump, image_file *file, void *out, struct fsnap_error *err)
{
	(void)file;
	(void)err;
	if (has_option(out, SO_REUSEPORT))
		dump_note(dump, "a program that distributes packets among sockets of SO_REUSEPORT, if there was "
				"one, is not in the image: the kernel does not show it");
	return 0;
}

/* --- restore -------------------------------------------------------------------- */

/* A raw socket's port is its protocol, which it has already. */
static bool is_bound(const image_file_inet *state, const union inet_address *local)
{
	return state->type == SOCK_RAW ? !inet_is_any(local) : inet_port(local) != 0;
}

static int bind_local(const struct restore *restore, int fd, const image_file_inet *state, struct fsnap_error *err)
{
	union inet_address local = inet_address(state->local.local_val, state->local.local_len);
	if (!is_bound(state, &local) || bind(fd, &local.any, state->local.local_len) == 0)
		return 0;
	/* The sender's address of a connected socket was the route's choice; another one does. */
	if (errno == EADDRNOTAVAIL && state->state == INET_CONNECTED)
		return 0;
	return inet_refused_bind(restore, what_is(state), &local, errno, err);
}

static int make_socket(const image_file_inet *state)
{
	int fd = socket(state->family, state->type | SOCK_CLOEXEC, state->protocol);
	if (fd < 0 && errno == EACCES && is_echo(state->type, state->protocol))
		fd = socket_as(&state->maker, state->family, state->type, state->protocol);
	return fd;
}

static int make_failed(const image_file *file, const image_file_inet *state, struct fsnap_error *err)
{
	int sys = errno;
	fail(err, sys == EPERM ? FSNAP_E_PERMISSION : FSNAP_E_RESTORE_STEP, sys, "file %u (%s): socket of %s",
	     file->id, file->label, what_is(state));
	return sys == EPERM ? error_hint(err, "Restore as root: raw sockets need CAP_NET_RAW.") : -1;
}

static int inet_make(struct restore *restore, const image_file *file, const void *in,
		     struct fsnap_error *err)
{
	const image_file_inet *state = in;
	if (state->local.local_len < inet_address_size(state->family))
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "file %u: its address is too short",
			    file->id);
	cleanup_fd int fd = make_socket(state);
	if (fd < 0)
		return make_failed(file, state, err);
	unsigned n = state->options.options_len;
	if (sockopts_apply(file, fd, n, state->options.options_val, SOCKOPT_EARLY, err) < 0 ||
	    bind_local(restore, fd, state, err) < 0)
		return -1;
	inet_fill_queue(restore, state, fd);
	if (state->state == INET_CONNECTED &&
	    connect(fd, (struct sockaddr *)state->remote.remote_val, state->remote.remote_len) < 0)
		restore_note(restore, "a socket of %s is not connected any more: %s", what_is(state),
			     strerror(errno));
	memberships_apply(restore, state, fd);
	if (sockopts_apply(file, fd, n, state->options.options_val, SOCKOPT_LATE, err) < 0)
		return -1;
	inet_hold_again(restore, state, fd);
	return steal_fd(&fd);
}

static int inet_remap(struct restore *restore, void *in, struct fsnap_error *err)
{
	(void)err;
	image_file_inet *state = in;
	if (state->type == SOCK_DGRAM)
		restore_move_port(restore, state->local.local_val, state->local.local_len);
	return 0;
}

const struct file_kind kind_inet = {
	.name = "inet",
	.keeps = "UDP, UDP-Lite, ICMP echo and raw sockets: addresses, options, filters, multicast groups; "
		 "UDP datagrams not read yet, and those that are not sent yet (MSG_MORE, UDP_CORK)",
	.refuses = "eBPF filters, sockets of another network namespace; datagrams not sent yet, where the kernel does "
		   "not let us look",
	.shown_by = "socket_udp* socket_icmp",
	.xdr = (xdrproc_t)xdr_image_file_inet,
	.matches = inet_matches,
	.save = inet_save,
	.save_links = inet_save_links,
	.remap = inet_remap,
	.make = inet_make,
	.dump_end = inet_dump_end,
};
