/*
 * UDP over IPv4 and IPv6.
 *
 * Sockets come back bound and connected as they were. Datagrams not read yet are
 * lost, as the network may lose them.
 */
#include <linux/sockios.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>

#include "engine/kinds/inet_address.h"
#include "engine/kinds/sockopt.h"
#include "engine/kinds/table.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

enum { INET_BOUND = 3, INET_CONNECTED = 4 };

static bool inet_matches(const struct fd_view *fd)
{
	if (!S_ISSOCK(fd->stat.st_mode) || fd->dup < 0)
		return false;
	int family = socket_int(fd->dup, SO_DOMAIN);
	if (family != AF_INET && family != AF_INET6)
		return false;
	return socket_int(fd->dup, SO_PROTOCOL) == IPPROTO_UDP;
}

/* --- dump --------------------------------------------------------------------- */

static void udp_state(const struct fd_view *fd, image_file_inet *state)
{
	int waiting = 0;
	state->state = state->remote.remote_len ? INET_CONNECTED : INET_BOUND;
	if (ioctl(fd->dup, SIOCINQ, &waiting) == 0 && waiting)
		dump_note(fd->dump, "UDP datagrams not read yet are not in the image");
}

static int inet_save(const struct fd_view *fd, image_file *file, void *out,
		     struct fsnap_error *err)
{
	(void)file;
	image_file_inet *state = out;
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
	state->type = socket_int(fd->dup, SO_TYPE);
	state->protocol = socket_int(fd->dup, SO_PROTOCOL);
	udp_state(fd, state);

	void **defaults = dump_scratch(fd->dump, &kind_inet);
	if (!*defaults && !(*defaults = calloc(1, sizeof(struct sockopt_defaults))))
		return no_memory(err);
	return sockopts_save(fd, *defaults, &state->options.options_len, &state->options.options_val,
			     err);
}

/* --- restore -------------------------------------------------------------------- */

static int bind_local(int fd, const image_file_inet *state, struct fsnap_error *err)
{
	union inet_address local = inet_address(state->local.local_val, state->local.local_len);
	if (!inet_port(&local) || bind(fd, &local.any, state->local.local_len) == 0)
		return 0;
	/* The sender's address of a connected socket was the route's choice; another one does. */
	if (errno == EADDRNOTAVAIL && state->state == INET_CONNECTED)
		return 0;
	return inet_refused_bind("UDP", &local, errno, err);
}

static int make_bound(struct restore *restore, const image_file *file, const image_file_inet *state,
		      struct fsnap_error *err)
{
	cleanup_fd int fd = socket(state->family, state->type | SOCK_CLOEXEC, state->protocol);
	if (fd < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u (%s): socket", file->id,
			    file->label);
	unsigned n = state->options.options_len;
	if (sockopts_apply(file, fd, n, state->options.options_val, SOCKOPT_EARLY, err) < 0 ||
	    bind_local(fd, state, err) < 0)
		return -1;
	if (state->state == INET_CONNECTED &&
	    connect(fd, (struct sockaddr *)state->remote.remote_val, state->remote.remote_len) < 0)
		restore_note(restore, "a UDP socket is not connected any more: %s", strerror(errno));
	if (sockopts_apply(file, fd, n, state->options.options_val, SOCKOPT_LATE, err) < 0)
		return -1;
	return steal_fd(&fd);
}

static int inet_make(struct restore *restore, const image_file *file, const void *in,
		     struct fsnap_error *err)
{
	const image_file_inet *state = in;
	if (state->local.local_len < inet_address_size(state->family))
		return fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "file %u: its address is too short",
			    file->id);
	return make_bound(restore, file, state, err);
}

const struct file_kind kind_inet = {
	.name = "inet",
	.keeps = "UDP sockets, addresses, options",
	.refuses = "eBPF filters, sockets of another network namespace",
	.shown_by = "socket_udp",
	.xdr = (xdrproc_t)xdr_image_file_inet,
	.matches = inet_matches,
	.save = inet_save,
	.make = inet_make,
};
