/*
 * Connections that wait to be accepted.
 *
 * No call reads one in its queue, and none puts one back.  So they are read only
 * where the tree is about to be killed: accepted through our own duplicate of the
 * listener, last of all that is collected, and read as all others are (window
 * W6 in engine/place.h).
 *
 * A restored listener gets them by the handshake that made them, with the other
 * end's segments forged.  The kernel chooses the number it answers with, but for
 * one case: who calls again while the last connection between the same ends is
 * in TIME_WAIT is answered with that connection's last number and 65537
 * (tcp_timewait_state_process(), since Linux 2.4).  So that is laid first.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/tcp_look.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

#define BEYOND_LAST 65537 /* tw_snd_nxt + 65535 + 2 */
#define EARLIER 1000	  /* the connection laid first was over before this one began */
#define PIECE 1200	  /* of data, fits any device */
#define PATIENCE_MS 1000

unsigned tcp_queue_length(int listener)
{
	struct tcp_info info = { 0 };
	socklen_t size = sizeof(info);
	getsockopt(listener, IPPROTO_TCP, TCP_INFO, &info, &size);
	return info.tcpi_unacked;
}

/* --- dump ------------------------------------------------------------------------- */

static int accept_one(struct tcp_looks *looks, const struct tcp_listener *listener,
		      struct fsnap_error *err)
{
	struct pollfd event = { .fd = listener->fd, .events = POLLIN };
	if (poll(&event, 1, 0) != 1)
		return 0;
	cleanup_fd int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
	image_file_tcp *state = fd < 0 ? NULL : calloc(1, sizeof(*state));
	if (!state)
		return fd < 0 ? 0 : no_memory(err);
	struct fd_view view = { .dump = looks->dump, .process = listener->process, .fd = listener->number,
				.dup = fd, .link = listener->file->label, .socket = socket_sort_of(fd) };
	looks->waiting[looks->n_waiting++] = (struct tcp_waiting){ listener, state };
	return tcp_fill(&view, listener->file, state, err) < 0 ? -1 : 1;
}

int tcp_waiting_accept(struct tcp_looks *looks, struct fsnap_error *err)
{
	for (size_t i = 0; i < looks->n_listeners; i++) {
		unsigned n = tcp_queue_length(looks->listeners[i].fd);
		struct tcp_waiting *moved = n ? realloc(looks->waiting, (looks->n_waiting + n) * sizeof(*moved)) : NULL;
		if (n && !moved)
			return no_memory(err);
		if (n)
			looks->waiting = moved;
		while (n--)
			if (accept_one(looks, &looks->listeners[i], err) < 0)
				return -1;
	}
	return 0;
}

/* Has it sent nothing to a listener that defers? Then it comes back as the request that it was. But what somebody
 * outside sends tells time stamps of its first answer, which those of another one must include (tcp_check_req(), since
 * Linux 6.15): he waits to be accepted instead. */
static bool is_request(const struct tcp_looks *looks, const image_file_tcp *state)
{
	struct tcp_ends ends = tcp_ends_of(state);
	for (size_t i = 0; i < looks->n_deferred; i++)
		if (memcmp(&looks->deferred[i], &ends, sizeof(ends)) == 0)
			return state->kept == TCP_INSIDE && state->phase == TCP_ESTABLISHED && !state->received.received_len;
	return false;
}

/* What the image keeps of it; its buffers go along. */
static int hand_over(const struct tcp_looks *looks, const struct tcp_waiting *waiting, struct fsnap_error *err)
{
	image_file_tcp *from = waiting->state, *listener = waiting->listener->state;
	image_tcp_waiting *to = append(listener->waiting, waiting);
	if (!to)
		return no_memory(err);
	*to = (image_tcp_waiting){
		.kept = from->kept, .phase = is_request(looks, from) ? TCP_SYN_RECV : from->phase, .write_seq = from->write_seq,
		.rcv_nxt = from->rcv_nxt, .mss = from->mss, .features = from->features,
		.snd_wscale = from->snd_wscale,
		.local = { from->local.local_len, from->local.local_val },
		.remote = { from->remote.remote_len, from->remote.remote_val },
		.received = { from->received.received_len, from->received.received_val },
	};
	from->local.local_val = from->remote.remote_val = from->received.received_val = NULL;
	from->local.local_len = from->remote.remote_len = from->received.received_len = 0;
	return 0;
}

int tcp_waiting_keep(struct tcp_looks *looks, struct fsnap_error *err)
{
	for (size_t i = 0; i < looks->n_waiting; i++) {
		const image_file_tcp *state = looks->waiting[i].state;
		bool whole = state->phase == TCP_ESTABLISHED || state->phase == TCP_CLOSE_WAIT;
		if (state->kept != TCP_RESET && whole && hand_over(looks, &looks->waiting[i], err) < 0)
			return -1;
	}
	return 0;
}

/* --- restore ------------------------------------------------------------------------ */

struct tcp_ends tcp_waiting_ends(const image_tcp_waiting *waiting)
{
	image_file_tcp state = {
		.local = { waiting->local.local_len, waiting->local.local_val },
		.remote = { waiting->remote.remote_len, waiting->remote.remote_val },
	};
	return tcp_ends_of(&state);
}

/* A connection between the same ends that is over, whose last number was `last`. */
static int lay_time_wait(int family, const image_tcp_waiting *waiting, const struct tcp_ends *ends,
			 uint32_t last, uint32_t received)
{
	cleanup_fd int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0 || tcp_set(fd, TCP_REPAIR, 1) < 0 || tcp_set_seq(fd, TCP_SENDING, last - 1) < 0 ||
	    tcp_set_seq(fd, TCP_RECEIVING, received) < 0 ||
	    bind(fd, (void *)waiting->local.local_val, waiting->local.local_len) < 0 ||
	    connect(fd, (void *)waiting->remote.remote_val, waiting->remote.remote_len) < 0 ||
	    tcp_set(fd, TCP_REPAIR_QUEUE, TCP_SENDING) < 0 || shutdown(fd, SHUT_WR) < 0)
		return -1;
	return tcp_forge(ends, received, last, TCP_FORGE_ACK) < 0 ||
			       tcp_forge(ends, received, last, TCP_FORGE_FIN | TCP_FORGE_ACK) < 0 ? -1 : 0;
}

/* The options of a SYN that led to what was agreed upon, filled up with NOPs. A time stamp of 0 is
 * never newer than the other end's own. */
static size_t call_options(const image_tcp_waiting *waiting, uint8_t *options)
{
	size_t n = 0;
	options[n++] = TCPOPT_MAXSEG, options[n++] = TCPOLEN_MAXSEG;
	options[n++] = (uint8_t)(waiting->mss >> 8), options[n++] = (uint8_t)waiting->mss;
	if (waiting->features & TCPI_OPT_WSCALE) {
		options[n++] = TCPOPT_WINDOW, options[n++] = TCPOLEN_WINDOW;
		options[n++] = (uint8_t)waiting->snd_wscale;
	}
	if (waiting->features & TCPI_OPT_SACK)
		options[n++] = TCPOPT_SACK_PERMITTED, options[n++] = TCPOLEN_SACK_PERMITTED;
	if (waiting->features & TCPI_OPT_TIMESTAMPS) {
		options[n++] = TCPOPT_TIMESTAMP, options[n++] = TCPOLEN_TIMESTAMP;
		memset(options + n, 0, 8);
		n += 8;
	}
	while (n % 4)
		options[n++] = TCPOPT_NOP;
	return n;
}

static int call(const image_tcp_waiting *waiting, const struct tcp_ends *ends, uint32_t first)
{
	uint8_t options[TCP_FORGE_OPTIONS];
	struct tcp_segment syn = { .seq = first, .flags = TCP_FORGE_SYN, .options = options };
	syn.n_options = call_options(waiting, options);
	if (tcp_forge_segment(ends, &syn) < 0 ||
	    tcp_forge(ends, first + 1, waiting->write_seq, TCP_FORGE_ACK) < 0)
		return -1;
	const char *bytes = waiting->received.received_val;
	for (uint32_t left = waiting->received.received_len, at = first + 1; left;) {
		uint32_t n = left < PIECE ? left : PIECE;
		struct tcp_segment data = { .seq = at, .ack = waiting->write_seq, .flags = TCP_FORGE_ACK,
					    .data = bytes, .size = n };
		if (tcp_forge_segment(ends, &data) < 0)
			return -1;
		bytes += n, at += n, left -= n;
	}
	if (waiting->phase == TCP_CLOSE_WAIT)
		return tcp_forge(ends, waiting->rcv_nxt - 1, waiting->write_seq, TCP_FORGE_FIN | TCP_FORGE_ACK);
	return 0;
}

int tcp_waiting_restore(const image_file *file, const image_file_tcp *listener, unsigned index, int fd,
			struct fsnap_error *err)
{
	const image_tcp_waiting *waiting = &listener->waiting.waiting_val[index];
	struct tcp_ends ends = tcp_waiting_ends(waiting);
	unsigned before = tcp_queue_length(fd);
	uint32_t first = waiting->rcv_nxt - tcp_got_fin(waiting->phase) - waiting->received.received_len - 1;
	if (lay_time_wait(listener->family, waiting, &ends, waiting->write_seq - 1 - BEYOND_LAST,
			  first - EARLIER) < 0 ||
	    call(waiting, &ends, first) < 0)
		return fail(err, FSNAP_E_RESTORE_STEP, errno,
			    "file %u (%s): a connection that waits to be accepted", file->id, file->label);
	if (waiting->phase == TCP_SYN_RECV)
		return 0;
	for (int i = 0; tcp_queue_length(fd) == before && i < PATIENCE_MS; i++)
		poll(NULL, 0, 1);
	if (tcp_queue_length(fd) != before)
		return 0;
	fail(err, FSNAP_E_RESTORE_STEP, 0, "file %u (%s): a connection that waits to be accepted does not come "
	     "back", file->id, file->label);
	return error_hint(err, "A firewall may be in the way on the loopback device. --tcp reset restores "
			       "without those to the outside.");
}
