/*
 * Connections made again.
 *
 *	make	in repair mode: sequence numbers, connect(2) without a packet, queues
 *	connect	when all are there: ends of streams, windows, options
 *	release	when nothing can fail any more: packets may pass, repair mode ends,
 *		what was never sent is sent
 *
 * A socket in repair mode is closed silently: a restore that fails leaves the
 * other end waiting, and another restore may follow.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/tcp_parts.h"
#include "engine/kinds/tcp_sweep.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

#define FSNAP_SO_BUF_LOCK 72
#define CHUNK (32 << 10)   /* of a receive queue: what the kernel finds room for in one buffer */
#define ROOM (256 << 10)   /* beside what waits: buffers cost more than their bytes */

/* --- make ------------------------------------------------------------------------------ */

static int cannot(const image_file_tcp *state, const char *what, struct fsnap_error *err)
{
	int sys = errno;
	char local[80], remote[80];
	union inet_address here = inet_address(state->local.local_val, state->local.local_len);
	union inet_address there = inet_address(state->remote.remote_val, state->remote.remote_len);
	inet_describe("TCP", &here, local, sizeof(local));
	inet_describe("to", &there, remote, sizeof(remote));
	if (sys == EADDRINUSE || (sys == EADDRNOTAVAIL && strcmp(what, "connect") == 0)) {
		fail(err, FSNAP_E_ADDRESS_TAKEN, 0, "the connection %s %s is in use", local, remote);
		return error_hint(err, "Perhaps the process that was saved still runs; `ss -tap` shows who has "
				       "it. --tcp reset restores without connections to the outside; a copy can "
				       "have its own ports (--listen) or a network of its own (--net-ns).");
	}
	fail(err, FSNAP_E_RESTORE_STEP, sys, "%s %s: %s", local, remote, what);
	if (sys == EADDRNOTAVAIL)
		return error_hint(err, "This machine has no such address: add it to an interface, or restore "
				       "with --tcp reset.");
	return -1;
}

int tcp_set_seq(int fd, int queue, uint32_t seq)
{
	return tcp_set(fd, TCP_REPAIR_QUEUE, queue) < 0 ||
	       setsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &seq, sizeof(seq)) < 0 ? -1 : 0;
}

/* The kernel doubles what it is given. */
static void set_room(int fd, int option, unsigned size)
{
	int half = (int)(size / 2);
	setsockopt(fd, SOL_SOCKET, option, &half, sizeof(half));
}

static void unlock_room(int fd, int locks)
{
	setsockopt(fd, SOL_SOCKET, FSNAP_SO_BUF_LOCK, &locks, sizeof(locks));
}

static int try_connect(int fd, const image_file_tcp *state)
{
	const struct sockaddr *local = (void *)state->local.local_val;
	const struct sockaddr *remote = (void *)state->remote.remote_val;
	union inet_address address = inet_address(state->local.local_val, state->local.local_len);
	if (bind(fd, local, state->local.local_len) < 0)
		return -1;
	if (connect(fd, remote, state->remote.remote_len) == 0)
		return 0;
	/* What is left of the connection itself, perhaps: its program was killed and it not kept. */
	if (errno != EADDRNOTAVAIL || !tcp_sweep(inet_port(&address)))
		return -1;
	return connect(fd, remote, state->remote.remote_len);
}

static int agree(int fd, const image_file_tcp *state)
{
	uint32_t options[4][2];
	size_t n = 0;
	options[n][0] = TCPOPT_MAXSEG, options[n++][1] = state->mss;
	if (state->features & TCPI_OPT_WSCALE)
		options[n][0] = TCPOPT_WINDOW,
		options[n++][1] = state->snd_wscale | state->rcv_wscale << 16;
	if (state->features & TCPI_OPT_SACK)
		options[n][0] = TCPOPT_SACK_PERMITTED, options[n++][1] = 0;
	if (state->features & TCPI_OPT_TIMESTAMPS)
		options[n][0] = TCPOPT_TIMESTAMP, options[n++][1] = 0;
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, options, (socklen_t)(n * sizeof(*options))) < 0)
		return -1;
	return tcp_set(fd, TCP_TIMESTAMP, (int)state->timestamp);
}

static int fill(int fd, int queue, const char *bytes, size_t size, size_t chunk)
{
	if (tcp_set(fd, TCP_REPAIR_QUEUE, queue) < 0)
		return -1;
	while (size) {
		ssize_t sent = send(fd, bytes, size < chunk ? size : chunk, MSG_DONTWAIT);
		if (sent <= 0)
			return -1;
		bytes += sent;
		size -= (size_t)sent;
	}
	return tcp_set(fd, TCP_REPAIR_QUEUE, TCP_NO_QUEUE_);
}

/* Sequence numbers in front of the queues: data and FINs count up from there. */
static uint32_t first_sent(const image_file_tcp *state)
{
	return state->write_seq - tcp_sent_fin(state->phase) - state->sent.sent_len;
}

static uint32_t first_received(const image_file_tcp *state)
{
	return state->rcv_nxt - tcp_got_fin(state->phase) - state->received.received_len;
}

static int make_connection(int fd, const image_file_tcp *state, struct fsnap_error *err)
{
	unsigned sent = state->sent.sent_len, received = state->received.received_len;
	if (tcp_set_seq(fd, TCP_SENDING, first_sent(state)) < 0 ||
	    tcp_set_seq(fd, TCP_RECEIVING, first_received(state)) < 0)
		return cannot(state, "sequence numbers", err);
	if (try_connect(fd, state) < 0)
		return cannot(state, "connect", err);
	if (agree(fd, state) < 0)
		return cannot(state, "options agreed upon", err);
	set_room(fd, SO_SNDBUFFORCE, state->sndbuf + 4 * sent + ROOM);
	set_room(fd, SO_RCVBUFFORCE, state->rcvbuf + 4 * received + ROOM);
	if (fill(fd, TCP_RECEIVING, state->received.received_val, received, CHUNK) < 0)
		return cannot(state, "its receive queue", err);
	if (fill(fd, TCP_SENDING, state->sent.sent_val, sent - state->unsent, sent) < 0)
		return cannot(state, "its send queue", err);
	return 0;
}

/* It will ask again, with the number it began with: the answer may be under way. */
static int make_asking(const struct restore *restore, int fd, const image_file_tcp *state, struct fsnap_error *err)
{
	if (state->kept != TCP_RESET && tcp_set_seq(fd, TCP_SENDING, state->write_seq - 1) < 0)
		return cannot(state, "sequence numbers", err);
	if (tcp_set(fd, TCP_REPAIR, TCP_REPAIR_SILENT_OFF) < 0)
		return cannot(state, "the end of its repair", err);
	return tcp_bind(restore, fd, state, err);
}

static int own_socket(const image_file *file, const image_file_tcp *state, struct fsnap_error *err)
{
	cleanup_fd int fd = socket(state->family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno, "file %u (%s): socket", file->id, file->label);
	if (sockopts_apply(file, fd, state->options.options_len, state->options.options_val, SOCKOPT_EARLY,
			   err) < 0)
		return -1;
	return steal_fd(&fd);
}

int tcp_made(struct restore *restore, const image_file *file, const image_file_tcp *state, bool *reset,
	     struct fsnap_error *err)
{
	struct tcp_kept *kept = tcp_kept_of(restore, err);
	if (!kept)
		return -1;
	bool asking = state->phase == TCP_SYN_SENT;
	*reset = !asking && !tcp_is_kept(kept, state->kept);
	if (*reset && state->kept == TCP_OUTSIDE)
		restore_note(restore, "TCP connections to the outside come back as reset by the peer: %s",
			     restore_options(restore)->tcp == FSNAP_TCP_RESET ? "--tcp reset" :
			     "nobody has held their packets back since the dump (--tcp keep tries it)");
	if (*reset)
		return -1;
	cleanup_fd int fd = own_socket(file, state, err);
	if (fd < 0)
		return -1;
	*reset = tcp_set(fd, TCP_REPAIR, 1) < 0 && !asking;
	if (*reset)
		restore_note(restore, "TCP connections come back as reset by the peer: this user may not make "
				      "them (CAP_NET_ADMIN)");
	if (*reset || (asking ? make_asking(restore, fd, state, err) : make_connection(fd, state, err)) < 0)
		return -1;
	kept->files[kept->n++] = file->id;
	return steal_fd(&fd);
}

/* --- connect ------------------------------------------------------------------------------ */

/* With bytes still to send, our FIN comes behind them, and one that met it behind it: when packets may
 * pass. */
static bool ends_later(const image_file_tcp *state)
{
	return state->unsent && tcp_sent_fin(state->phase);
}

static bool got_fin_before(const image_file_tcp *state)
{
	return tcp_got_fin(state->phase) && !(state->phase == TCP_CLOSING && ends_later(state));
}

static int forge_fin(const image_file_tcp *state, const struct tcp_ends *ends)
{
	return tcp_forge(ends, state->rcv_nxt - 1, first_sent(state), TCP_FORGE_FIN | TCP_FORGE_ACK);
}

/* Ends of the two streams, in the order that leads to the state the connection was in. */
static int end_streams(int fd, const image_file_tcp *state, const struct tcp_ends *ends)
{
	bool ours = tcp_sent_fin(state->phase) && !state->unsent;
	if (ours && state->phase != TCP_LAST_ACK &&
	    (tcp_set(fd, TCP_REPAIR_QUEUE, TCP_SENDING) < 0 || shutdown(fd, SHUT_WR) < 0))
		return -1;
	if (got_fin_before(state) && forge_fin(state, ends) < 0)
		return -1;
	if (ours && state->phase == TCP_LAST_ACK &&
	    (tcp_set(fd, TCP_REPAIR_QUEUE, TCP_SENDING) < 0 || shutdown(fd, SHUT_WR) < 0))
		return -1;
	if (state->phase == TCP_FIN_WAIT2 &&
	    tcp_forge(ends, state->rcv_nxt, state->write_seq, TCP_FORGE_ACK) < 0)
		return -1;
	if (state->deaf && shutdown(fd, SHUT_RD) < 0)
		return -1;
	return tcp_set(fd, TCP_REPAIR_QUEUE, TCP_NO_QUEUE_);
}

static int set_window(int fd, const struct tcp_window *window)
{
	return setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, window, sizeof(*window));
}

/* Open, so that the forged segment is welcome whatever was advertised. */
static struct tcp_window open_window(const image_file_tcp *state)
{
	return (struct tcp_window){ .snd_wl1 = state->rcv_nxt - 1, .snd_wnd = 65535, .max_window = 65535,
				    .rcv_wnd = 65535,
				    .rcv_wup = state->rcv_nxt - tcp_got_fin(state->phase) };
}

static unsigned phase_of(int fd)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof(info);
	getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size);
	return info.tcpi_state;
}

int tcp_made_connect(struct restore *restore, const image_file *file, const image_file_tcp *state, int fd,
		     struct fsnap_error *err)
{
	(void)restore;
	struct tcp_ends ends = tcp_ends_of(state);
	struct tcp_window window, wide = open_window(state);
	memcpy(&window, state->window, sizeof(window));
	if (tcp_got_fin(state->phase) && !got_fin_before(state) && window.rcv_wup == state->rcv_nxt)
		window.rcv_wup--;
	if (state->phase != TCP_SYN_SENT) {
		if (set_window(fd, &wide) < 0 || end_streams(fd, state, &ends) < 0)
			return cannot(state, "the ends of its streams", err);
		if (!ends_later(state) && phase_of(fd) != state->phase)
			return fail(err, FSNAP_E_RESTORE_STEP, 0,
				    "file %u (%s): a TCP connection in state %u: a firewall may be in the way "
				    "on the loopback device", file->id, file->label, state->phase);
		if (set_window(fd, &window) < 0)
			return cannot(state, "its windows", err);
		set_room(fd, SO_SNDBUFFORCE, state->sndbuf);
		set_room(fd, SO_RCVBUFFORCE, state->rcvbuf);
		unlock_room(fd, 0);
	}
	if (sockopts_apply(file, fd, state->options.options_len, state->options.options_val, SOCKOPT_LATE,
			   err) < 0)
		return -1;
	return 0;
}

int tcp_made_waiting(struct restore *restore, const image_file *file, const image_file_tcp *listener,
		     int fd, struct fsnap_error *err)
{
	struct tcp_kept *kept = tcp_kept_of(restore, err);
	int deferred = 0, result = kept ? 0 : -1;
	socklen_t size = sizeof(deferred);
	/* Who has sent nothing is a request still, or has waited for so long that this did not count any more. */
	getsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &deferred, &size);
	for (u_int i = 0; result == 0 && i < listener->waiting.waiting_len; i++) {
		const image_tcp_waiting *waiting = &listener->waiting.waiting_val[i];
		if (!tcp_is_kept(kept, waiting->kept))
			continue;
		if (deferred)
			tcp_set(fd, TCP_DEFER_ACCEPT, waiting->phase == TCP_SYN_RECV ? deferred : 0);
		result = tcp_waiting_restore(file, listener, i, fd, err);
	}
	if (deferred)
		tcp_set(fd, TCP_DEFER_ACCEPT, deferred);
	return result;
}

/* --- release --------------------------------------------------------------------------------- */

static int wanted_reuse(const image_file_tcp *state)
{
	int value = 0;
	for (unsigned i = 0; i < state->options.options_len; i++) {
		const image_sockopt *option = &state->options.options_val[i];
		if (option->level == SOL_SOCKET && option->name == SO_REUSEADDR &&
		    option->value.value_len >= sizeof(value))
			memcpy(&value, option->value.value_val, sizeof(value));
	}
	return value;
}

static void send_unsent(int fd, const image_file_tcp *state)
{
	unsigned kept = state->sent.sent_len - state->unsent;
	int locks = socket_int(fd, FSNAP_SO_BUF_LOCK);
	set_room(fd, SO_SNDBUFFORCE, state->sndbuf + 4 * state->sent.sent_len + ROOM);
	for (size_t done = 0; done < state->unsent;) {
		ssize_t sent = send(fd, state->sent.sent_val + kept + done, state->unsent - done,
				    MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent <= 0)
			break;
		done += (size_t)sent;
	}
	set_room(fd, SO_SNDBUFFORCE, state->sndbuf);
	unlock_room(fd, locks);
}

static void ask_again(int fd, const image_file_tcp *state)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0)
		return; /* it would come back asynchronous */
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	(void)!connect(fd, (void *)state->remote.remote_val, state->remote.remote_len); /* it is under way */
	fcntl(fd, F_SETFL, flags);
}

static void release_one(struct restore *restore, int fd, const image_file *file, const image_file_tcp *state)
{
	int reuse = wanted_reuse(state);
	if (state->phase == TCP_SYN_SENT) {
		ask_again(fd, state);
		return;
	}
	if (tcp_set(fd, TCP_REPAIR, 0) < 0) /* and ask the other end where it stands */
		restore_note(restore, "file %u (%s): its connection says nothing any more: %s", file->id, file->label,
			     strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
	if (state->unsent)
		send_unsent(fd, state);
	if (ends_later(state)) {
		struct tcp_ends ends = tcp_ends_of(state);
		shutdown(fd, SHUT_WR);
		if (!got_fin_before(state) && tcp_got_fin(state->phase))
			forge_fin(state, &ends);
	}
}

void tcp_made_release(struct restore *restore)
{
	struct tcp_kept *kept = *restore_scratch(restore, &kind_tcp);
	tcp_kept_let_pass(restore, kept); /* our sockets are there now to answer */
	for (size_t i = 0; i < kept->n; i++) {
		const image_file *file;
		const image_file_tcp *state = restore_file_by_id(restore, kept->files[i], &file);
		release_one(restore, restore_fd(restore, file->id), file, state);
	}
}
