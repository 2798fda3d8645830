/*
 * What is read of a connection that is kept.
 *
 * What repair mode must tell (sequence numbers, windows, what was sent and not
 * acknowledged) is read in one steadfast step, a few microseconds per connection:
 * while a socket is in repair mode its program would get EPERM, so it must leave
 * that mode even if we are killed (window W5 in engine/place.h).  The receive
 * side is read afterwards and without: TCP_QUEUE_SEQ asks only which queue was
 * chosen last.
 *
 * Two ends in the tree are read in this order, all send queues before all receive
 * queues: nobody runs, but what is under way between them may still arrive.  Then
 * it is in both, and the receiver's sequence number says so.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "engine/kinds/tcp_look.h"
#include "engine/kinds/values.h"
#include "engine/steadfast.h"
#include "store/scope.h"

/* A peek at the send queue copies whole buffers of the kernel's, or nothing: the first may have been
 * acknowledged in part. */
#define SLACK (256 << 10)
#define PATIENCE 1000 /* looks at a queue that grows while we look */

bool tcp_sent_fin(unsigned phase)
{
	return phase == TCP_FIN_WAIT1 || phase == TCP_FIN_WAIT2 || phase == TCP_CLOSING ||
	       phase == TCP_LAST_ACK;
}

bool tcp_got_fin(unsigned phase)
{
	return phase == TCP_CLOSE_WAIT || phase == TCP_CLOSING || phase == TCP_LAST_ACK;
}

int tcp_set(int fd, int option, int value)
{
	return setsockopt(fd, IPPROTO_TCP, option, &value, sizeof(value));
}

/* A program's own place for peeking (SO_PEEK_OFF) would move with ours. */
int tcp_peek(int fd, unsigned *len, char **val, struct fsnap_error *err)
{
	int waiting = 0, start = socket_int(fd, SO_PEEK_OFF), none = -1;
	*len = 0;
	if (ioctl(fd, SIOCINQ, &waiting) < 0 || waiting <= 0)
		return 0;
	if (!(*val = malloc((size_t)waiting)))
		return no_memory(err);
	if (start >= 0)
		setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &none, sizeof(none));
	ssize_t size = recv(fd, *val, (size_t)waiting, MSG_PEEK | MSG_DONTWAIT);
	if (start >= 0)
		setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &start, sizeof(start));
	*len = size < 0 ? 0 : (unsigned)size;
	return size < 0 ? fail(err, FSNAP_E_SYSTEM, errno, "what waits in a TCP socket") : 0;
}

/* --- the send side, in repair mode -------------------------------------------------------------- */

static int get(int fd, int option, void *value, socklen_t size)
{
	return getsockopt(fd, IPPROTO_TCP, option, value, &size);
}

static int peek_sent(const struct tcp_look *look)
{
	int queued = 0, unsent = 0;
	if (look->state->phase == TCP_SYN_SENT)
		return 0;
	if (ioctl(look->fd, SIOCOUTQ, &queued) < 0)
		return -1;
	char *bytes = malloc((size_t)queued + SLACK);
	ssize_t size = bytes ? recv(look->fd, bytes, (size_t)queued + SLACK, MSG_PEEK | MSG_DONTWAIT) : -1;
	/* Behind the peek: what has been sent by then counts as sent. */
	if (size < 0 || ioctl(look->fd, SIOCOUTQNSD, &unsent) < 0) {
		free(bytes);
		return -1;
	}
	bool fin = unsent && tcp_sent_fin(look->state->phase);
	look->state->sent.sent_val = bytes;
	look->state->sent.sent_len = (u_int)size;
	look->state->unsent = (u_int)(unsent - fin);
	return 0;
}

static int read_in_repair(const struct tcp_look *look)
{
	image_file_tcp *state = look->state;
	if (tcp_set(look->fd, TCP_REPAIR_QUEUE, TCP_SENDING) < 0 ||
	    get(look->fd, TCP_QUEUE_SEQ, &state->write_seq, sizeof(state->write_seq)) < 0 ||
	    peek_sent(look) < 0 || tcp_set(look->fd, TCP_REPAIR_QUEUE, TCP_RECEIVING) < 0)
		return -1;
	struct tcp_window window;
	if (get(look->fd, TCP_MAXSEG, &state->mss, sizeof(state->mss)) < 0 ||
	    get(look->fd, TCP_TIMESTAMP, &state->timestamp, sizeof(state->timestamp)) < 0 ||
	    get(look->fd, TCP_REPAIR_WINDOW, &window, sizeof(window)) < 0)
		return -1;
	memcpy(state->window, &window, sizeof(window));
	return 0;
}

/* Steadfast. */
static int read_sent(void *arg)
{
	const struct tcp_looks *scratch = arg;
	int result = 0;
	for (size_t i = 0; i < scratch->n && result == 0; i++) {
		const struct tcp_look *look = &scratch->looks[i];
		if (look->state->kept == TCP_RESET)
			continue;
		if (tcp_set(look->fd, TCP_REPAIR, 1) < 0)
			return -1;
		result = read_in_repair(look);
		tcp_set(look->fd, TCP_REPAIR, TCP_REPAIR_SILENT_OFF);
		setsockopt(look->fd, SOL_SOCKET, SO_REUSEADDR, &look->reuse, sizeof(look->reuse));
	}
	return result;
}

/* --- the receive side ---------------------------------------------------------------------------- */

static unsigned phase_of(int fd)
{
	struct tcp_info info = { 0 };
	get(fd, TCP_INFO, &info, sizeof(info));
	return info.tcpi_state;
}

static int peek_received(struct tcp_look *look, struct fsnap_error *err)
{
	image_file_tcp *state = look->state;
	free(state->received.received_val);
	state->received.received_val = NULL;
	return tcp_peek(look->fd, &state->received.received_len, &state->received.received_val, err);
}

/* Until nothing has arrived while we looked. */
static int read_received(struct tcp_look *look, struct fsnap_error *err)
{
	image_file_tcp *state = look->state;
	if (state->phase == TCP_SYN_SENT)
		return 0;
	for (int i = 0; i < PATIENCE; i++) {
		uint32_t before = 0, after = 1;
		state->phase = phase_of(look->fd);
		if (get(look->fd, TCP_QUEUE_SEQ, &before, sizeof(before)) < 0 || peek_received(look, err) < 0 ||
		    get(look->fd, TCP_QUEUE_SEQ, &after, sizeof(after)) < 0)
			break;
		state->rcv_nxt = after;
		if (before == after && state->phase == phase_of(look->fd))
			return 0;
	}
	return error_is_set(err) ? -1 :
				   fail(err, FSNAP_E_TARGET_BUSY, 0, "a TCP connection does not hold still: %s",
					look->file->label);
}

/* Timers of the kernel's go on sending (probes, paced data): what the other end in the tree has, was
 * sent by now. It would have no answer for one that says it was not. */
static void count_arrived(struct tcp_look *look)
{
	image_file_tcp *state = look->state;
	const image_file_tcp *other = look->other->state;
	uint32_t end = state->write_seq - tcp_sent_fin(state->phase);
	int32_t missing = (int32_t)(end - (other->rcv_nxt - tcp_got_fin(other->phase)));
	if (missing < 0)
		missing = 0;
	if (state->unsent > (unsigned)missing)
		state->unsent = (unsigned)missing;
}

/* What can be said only before connect(2), or means something else afterwards. */
static void drop_beginnings(image_file_tcp *state)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < state->options.options_len; i++) {
		image_sockopt *option = &state->options.options_val[i];
		if (option->level == IPPROTO_TCP &&
		    (option->name == TCP_MAXSEG || option->name == TCP_FASTOPEN_CONNECT ||
		     option->name == TCP_FASTOPEN_NO_COOKIE || option->name == TCP_FASTOPEN_KEY))
			xdr_free((xdrproc_t)xdr_image_sockopt, (char *)option);
		else
			state->options.options_val[kept++] = *option;
	}
	state->options.options_len = kept;
}

static int read_options(struct dump *dump, struct tcp_looks *scratch, struct tcp_look *look, struct fsnap_error *err)
{
	image_file_tcp *state = look->state;
		struct fd_view view = { .dump = dump, .process = look->process, .pid = look->process->pid,
				.fd = look->number, .dup = look->fd, .link = look->file->label };
	struct pollfd event = { .fd = look->fd, .events = POLLRDHUP };
	view.socket = socket_sort_of(look->fd);
	state->sndbuf = (u_int)socket_int(look->fd, SO_SNDBUF);
	state->rcvbuf = (u_int)socket_int(look->fd, SO_RCVBUF);
	/* shutdown(SHUT_RD) is the socket's own affair: no FIN has come, and yet it reads as ended. */
	poll(&event, 1, 0);
	state->deaf = event.revents & POLLRDHUP && !tcp_got_fin(state->phase);
	if (sockopts_save(&view, &scratch->defaults, &state->options.options_len,
			  &state->options.options_val, err) < 0)
		return -1;
	drop_beginnings(state);
	return 0;
}

int tcp_read_all(struct dump *dump, struct tcp_looks *scratch, struct fsnap_error *err)
{
	for (size_t i = 0; i < scratch->n; i++)
		if (scratch->looks[i].state->kept != TCP_RESET && !scratch->looks[i].waiting &&
		    read_options(dump, scratch, &scratch->looks[i], err) < 0)
			return -1;
	if (steadfast(read_sent, scratch, err) < 0)
		return error_is_set(err) ? -1 : fail(err, FSNAP_E_SYSTEM, errno, "TCP_REPAIR");
	for (size_t i = 0; i < scratch->n; i++)
		if (scratch->looks[i].state->kept != TCP_RESET &&
		    read_received(&scratch->looks[i], err) < 0)
			return -1;
	for (size_t i = 0; i < scratch->n; i++)
		if (scratch->looks[i].other)
			count_arrived(&scratch->looks[i]);
	return 0;
}
