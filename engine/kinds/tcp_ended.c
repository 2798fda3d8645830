/*
 * TCP sockets whose connection is over, or was refused.
 *
 * Such a socket still has what arrived before, and the error that its program is
 * to be told behind that: a reset does not throw away what waits (tcp_reset() in
 * net/ipv4/tcp_input.c).  It is made by letting the same happen to it again, with
 * a peer of our own.
 *
 * Which error waits nobody can look up without taking it (SO_ERROR).  A connection
 * there was ends by a reset as a rule; that an attempt was answered with one shows
 * in how many segments came.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h> /* of struct tcp_info, netinet/tcp.h has the beginning only */
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/kinds/tcp_parts.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

#define FAREWELL_MS 5000
#define SPARE (256 << 10)
#define ATTEMPT 2 /* TCP_SYN_SENT */

/* --- dump --------------------------------------------------------------------- */

/* What a handshake agrees upon and what it counts is there, or not. */
static bool came_about(const struct tcp_info *info)
{
	return info->tcpi_options || info->tcpi_bytes_acked || info->tcpi_bytes_received ||
	       info->tcpi_segs_in > 1;
}

/* A socket that was connected, and whose two directions have come to their end, reads as ended; one
 * that never was does not. */
int tcp_ended_save(const struct fd_view *fd, image_file_tcp *state, struct fsnap_error *err)
{
	struct tcp_info info = {0};
	socklen_t size = sizeof(info);
	struct pollfd event = {.fd = fd->dup, .events = POLLRDHUP};
	poll(&event, 1, 0);
	state->state = event.revents & POLLRDHUP ? TCP_IS_ENDED : TCP_IS_BOUND;
	state->error = !!(event.revents & POLLERR);
	if (state->state != TCP_IS_ENDED)
		return 0;
	getsockopt(fd->dup, IPPROTO_TCP, TCP_INFO, &info, &size);
	if (came_about(&info))
		return tcp_peek(fd->dup, &state->received.received_len, &state->received.received_val, err);
	state->phase = ATTEMPT;
	if (state->error && !info.tcpi_segs_in)
		dump_note(fd->dump, "why a TCP socket's connect(2) failed will be told as ECONNREFUSED: no "
				    "call reads the error without taking it away");
	return 0;
}

/* --- restore -------------------------------------------------------------------- */

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

/* A socket with a port of its own. */
static int somewhere(int family, union inet_address *address, socklen_t *size)
{
	*size = loopback(family, address);
	cleanup_fd int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0 || bind(fd, &address->any, *size) < 0 || getsockname(fd, &address->any, size) < 0)
		return -1;
	return steal_fd(&fd);
}

/* A connection with ourselves: returns the other end. */
static int connect_with_self(int fd, int family)
{
	union inet_address address;
	socklen_t size;
	cleanup_fd int listener = somewhere(family, &address, &size);
	if (listener < 0 || listen(listener, 1) < 0 || connect(fd, &address.any, size) < 0)
		return -1;
	return accept4(listener, NULL, NULL, SOCK_CLOEXEC);
}

static bool has_arrived(int fd, int size)
{
	int waiting = 0;
	for (int i = 0; i < FAREWELL_MS && ioctl(fd, SIOCINQ, &waiting) == 0 && waiting < size; i++)
		poll(NULL, 0, 1);
	return waiting == size;
}

/* Connects, and has received again what waits. Returns the other end. */
static int connect_and_receive(int fd, const image_file_tcp *state)
{
	int size = state->state == TCP_IS_ENDED ? (int)state->received.received_len : 0;
	int room = 4 * size + SPARE; /* buffers cost more than their bytes */
	const char *bytes = state->received.received_val;
	if (size)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	cleanup_fd int other = connect_with_self(fd, state->family);
	if (other < 0)
		return -1;
	setsockopt(other, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	int left = size;
	for (ssize_t sent; left > 0; left -= (int)sent, bytes += sent)
		if ((sent = send(other, bytes, (size_t)left, MSG_DONTWAIT | MSG_NOSIGNAL)) <= 0)
			return -1;
	return has_arrived(fd, size) ? steal_fd(&other) : -1;
}

/* POLLHUP: neither direction is open any more. */
static int await_end(int fd)
{
	struct pollfd event = {.fd = fd};
	return poll(&event, 1, FAREWELL_MS) == 1 ? 0 : -1;
}

/* The other end goes away without a farewell. */
static int connect_and_reset(int fd, const image_file_tcp *state)
{
	struct linger reset = {.l_onoff = 1, .l_linger = 0};
	int other = connect_and_receive(fd, state);
	if (other < 0)
		return -1;
	setsockopt(other, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(other);
	return await_end(fd);
}

/* Both ends say goodbye, the other one first: TIME_WAIT, which its program sees as closed. */
static int connect_and_end(int fd, const image_file_tcp *state)
{
	cleanup_fd int other = connect_and_receive(fd, state);
	struct pollfd event = {.fd = fd, .events = POLLRDHUP};
	if (other < 0 || shutdown(other, SHUT_WR) < 0 || poll(&event, 1, FAREWELL_MS) != 1 ||
	    shutdown(fd, SHUT_WR) < 0)
		return -1;
	return await_end(fd);
}

/* Calls a port that is ours, so that nobody else listens there, and does not wait: who waits in
 * connect(2) is told the error, and it is gone. */
static int connect_and_fail(int fd, const image_file_tcp *state)
{
	union inet_address address;
	socklen_t size;
	cleanup_fd int deaf = somewhere(state->family, &address, &size);
	int flags = fcntl(fd, F_GETFL);
	if (deaf < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || connect(fd, &address.any, size) == 0 ||
	    errno != EINPROGRESS || await_end(fd) < 0)
		return -1;
	if (!state->error)
		socket_int(fd, SO_ERROR);
	return fcntl(fd, F_SETFL, flags);
}

static int end_again(int fd, const image_file_tcp *state)
{
	if (state->state != TCP_IS_ENDED)
		return connect_and_reset(fd, state);
	if (state->phase == ATTEMPT)
		return connect_and_fail(fd, state);
	return state->error ? connect_and_reset(fd, state) : connect_and_end(fd, state);
}

int tcp_ended_make(const image_file *file, const image_file_tcp *state, struct fsnap_error *err)
{
	cleanup_fd int fd = socket(state->family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0 || end_again(fd, state) < 0) {
		fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u (%s): a connection that has ended", file->id,
		     file->label);
		return error_hint(err, "The loopback interface must be up (ip link set lo up).");
	}
	if (state->state == TCP_IS_ENDED &&
	    sockopts_apply(file, fd, state->options.options_len, state->options.options_val, SOCKOPT_LATE,
			   err) < 0)
		return -1;
	return steal_fd(&fd);
}
