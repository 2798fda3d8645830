/*
 * The connections of a tree, looked at together.
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
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/tcp_parts.h"
#include "engine/kinds/values.h"
#include "engine/steadfast.h"
#include "store/scope.h"

/* A peek at the send queue copies whole buffers of the kernel's, or nothing: the first may have been
 * acknowledged in part. */
#define SLACK (256 << 10)
#define PATIENCE 1000 /* looks at a queue that grows while we look */

struct look {
	image_file *file;
	image_file_tcp *state;
	struct process *process;
	int number;	/* of the descriptor there */
	int fd;		/* ours */
	int reuse;	/* SO_REUSEADDR: leaving repair mode clears it */
	struct tcp_ends ends;
	const struct look *other; /* the other end, if it is in the tree and both are kept */
};

struct scratch {
	struct sockopt_defaults defaults;
	struct look *looks;
	size_t n, room;
	bool looked, silent;
	int hold; /* passing, -1: none */
};

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

static void put_end(const union inet_address *address, uint8_t *bytes, uint16_t *port,
		    uint16_t *v6)
{
	const uint8_t *v6_bytes = address->v6.sin6_addr.s6_addr;
	*port = inet_port(address);
	*v6 = address->any.sa_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr);
	if (address->any.sa_family == AF_INET)
		memcpy(bytes, &address->v4.sin_addr, 4);
	else
		memcpy(bytes, *v6 ? v6_bytes : v6_bytes + 12, *v6 ? 16 : 4);
}

struct tcp_ends tcp_ends_of(const image_file_tcp *state)
{
	struct tcp_ends ends = { 0 };
	union inet_address local = inet_address(state->local.local_val, state->local.local_len);
	union inet_address remote = inet_address(state->remote.remote_val, state->remote.remote_len);
	put_end(&local, ends.local, &ends.local_port, &ends.v6);
	put_end(&remote, ends.remote, &ends.remote_port, &ends.v6);
	return ends;
}

static struct scratch *scratch_of(struct dump *dump, struct fsnap_error *err)
{
	void **slot = dump_scratch(dump, &kind_tcp);
	if (!*slot && !(*slot = calloc(1, sizeof(struct scratch)))) {
		no_memory(err);
		return NULL;
	}
	struct scratch *scratch = *slot;
	if (!scratch->looks)
		scratch->hold = -1;
	return scratch;
}

struct sockopt_defaults *tcp_defaults(struct dump *dump, struct fsnap_error *err)
{
	struct scratch *scratch = scratch_of(dump, err);
	return scratch ? &scratch->defaults : NULL;
}

int tcp_look_add(const struct fd_view *fd, image_file *file, image_file_tcp *state,
		 struct fsnap_error *err)
{
	struct scratch *scratch = scratch_of(fd->dump, err);
	if (!scratch)
		return -1;
	if (scratch->n == scratch->room) {
		size_t room = scratch->room * 2 + 16;
		struct look *moved = realloc(scratch->looks, room * sizeof(*moved));
		if (!moved)
			return no_memory(err);
		scratch->looks = moved;
		scratch->room = room;
	}
	int own = fcntl(fd->dup, F_DUPFD_CLOEXEC, 0);
	if (own < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "descriptor %d (%s)", fd->fd, fd->link);
	scratch->looks[scratch->n++] = (struct look){
		.file = file, .state = state, .process = fd->process, .number = fd->fd, .fd = own,
		.reuse = socket_int(own, SO_REUSEADDR), .ends = tcp_ends_of(state),
	};
	return 0;
}

/* --- which are kept --------------------------------------------------------------------- */

static bool may_repair(void)
{
	cleanup_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd >= 0 && tcp_set(fd, TCP_REPAIR, 1) == 0;
}

static int compare_ends(const void *a, const void *b)
{
	const struct look *const *left = a, *const *right = b;
	return memcmp(&(*left)->ends, &(*right)->ends, sizeof(struct tcp_ends));
}

static struct tcp_ends mirrored(const struct tcp_ends *ends)
{
	struct tcp_ends other = *ends;
	memcpy(other.local, ends->remote, sizeof(other.local));
	memcpy(other.remote, ends->local, sizeof(other.remote));
	other.local_port = ends->remote_port;
	other.remote_port = ends->local_port;
	return other;
}

/* A three-way handshake that is not over cannot be taken out of the kernel. */
static bool can_be_kept(const struct look *look)
{
	return look->state->phase != TCP_SYN_RECV && look->state->phase != TCP_CLOSE;
}

static int find_pairs(struct scratch *scratch, struct fsnap_error *err)
{
	size_t n = scratch->n;
	cleanup_free struct look **sorted = calloc(n, sizeof(*sorted));
	if (!sorted)
		return no_memory(err);
	for (size_t i = 0; i < n; i++)
		sorted[i] = &scratch->looks[i];
	qsort(sorted, n, sizeof(*sorted), compare_ends);
	for (size_t i = 0; i < n; i++) {
		struct look other = { .ends = mirrored(&sorted[i]->ends) }, *key = &other;
		struct look **found = bsearch(&key, sorted, n, sizeof(*sorted), compare_ends);
		if (found && can_be_kept(sorted[i]) && can_be_kept(*found)) {
			sorted[i]->state->kept = TCP_INSIDE;
			sorted[i]->other = *found;
		}
	}
	return 0;
}

/* Which are kept, and how many there are of each fate. */
static int decide(struct dump *dump, struct scratch *scratch, size_t fates[3], struct fsnap_error *err)
{
	bool keep = dump_options(dump)->tcp == FSNAP_TCP_KEEP;
	if (!may_repair()) {
		if (!keep)
			goto count;
		fail(err, FSNAP_E_PERMISSION, 0, "TCP connections cannot be kept by this user");
		return error_hint(err, "Run as root (CAP_NET_ADMIN), or leave --tcp keep out.");
	}
	if (find_pairs(scratch, err) < 0)
		return -1;
	for (size_t i = 0; i < scratch->n; i++)
		if (keep && scratch->looks[i].state->kept == TCP_RESET && can_be_kept(&scratch->looks[i]))
			scratch->looks[i].state->kept = TCP_OUTSIDE;
count:
	for (size_t i = 0; i < scratch->n; i++) {
		const struct look *look = &scratch->looks[i];
		if (look->state->kept != TCP_RESET)
			fates[look->state->kept]++;
		else if (look->state->phase != TCP_SYN_SENT && stdio_number(dump, look->file) < 0)
			fates[TCP_RESET]++;
	}
	return 0;
}

/* --- holding back --------------------------------------------------------------------------- */

/* Connections to the outside; the list is the caller's to free. */
static struct tcp_ends *outside(const struct scratch *scratch, size_t *n, struct fsnap_error *err)
{
	struct tcp_ends *list = calloc(scratch->n + 1, sizeof(*list));
	*n = 0;
	if (!list)
		no_memory(err);
	for (size_t i = 0; list && i < scratch->n; i++)
		if (scratch->looks[i].state->kept == TCP_OUTSIDE)
			list[(*n)++] = scratch->looks[i].ends;
	return list;
}

static void name_hold(char *name)
{
	uint64_t number = 0;
	if (getrandom(&number, sizeof(number), 0) < 0)
		number = (uint64_t)getpid();
	snprintf(name, TCP_HOLD_NAME, "fsnap-%016llx", (unsigned long long)number);
}

/* Until the tree has been killed the hold dies with us: then the tree runs on. */
static int hold_for_now(struct dump *dump, struct scratch *scratch, struct fsnap_error *err)
{
	char name[TCP_HOLD_NAME + 8];
	size_t n;
	cleanup_free struct tcp_ends *list = outside(scratch, &n, err);
	if (!list)
		return -1;
	name_hold(dump_hold(dump));
	snprintf(name, sizeof(name), "%s-dump", dump_hold(dump));
	scratch->hold = tcp_hold(name, true, list, n, err);
	return scratch->hold < 0 ? -1 : 0;
}

static int hold_for_good(struct dump *dump, struct scratch *scratch, struct fsnap_error *err)
{
	size_t n;
	cleanup_free struct tcp_ends *list = outside(scratch, &n, err);
	cleanup_fd int hold = list ? tcp_hold(dump_hold(dump), false, list, n, err) : -1;
	return hold < 0 ? -1 : 0;
}

/* --- the send side, in repair mode -------------------------------------------------------------- */

static int get(int fd, int option, void *value, socklen_t size)
{
	return getsockopt(fd, IPPROTO_TCP, option, value, &size);
}

static int peek_sent(const struct look *look)
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

static int read_in_repair(const struct look *look)
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
	const struct scratch *scratch = arg;
	int result = 0;
	for (size_t i = 0; i < scratch->n && result == 0; i++) {
		const struct look *look = &scratch->looks[i];
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

static int peek_received(struct look *look, struct fsnap_error *err)
{
	image_file_tcp *state = look->state;
	free(state->received.received_val);
	state->received.received_val = NULL;
	return tcp_peek(look->fd, &state->received.received_len, &state->received.received_val, err);
}

/* Until nothing has arrived while we looked. */
static int read_received(struct look *look, struct fsnap_error *err)
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
static void count_arrived(struct look *look)
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

static int read_options(struct dump *dump, struct look *look, struct fsnap_error *err)
{
	image_file_tcp *state = look->state;
	struct scratch *scratch = scratch_of(dump, err);
	struct fd_view view = { .dump = dump, .process = look->process, .pid = look->process->pid,
				.fd = look->number, .dup = look->fd, .link = look->file->label };
	struct pollfd event = { .fd = look->fd, .events = POLLRDHUP };
	state->sndbuf = (u_int)socket_int(look->fd, SO_SNDBUF);
	state->rcvbuf = (u_int)socket_int(look->fd, SO_RCVBUF);
	/* shutdown(SHUT_RD) is the socket's own affair: no FIN has come, and yet it reads as ended. */
	poll(&event, 1, 0);
	state->deaf = event.revents & POLLRDHUP && !tcp_got_fin(state->phase);
	if (get(look->fd, TCP_WINDOW_CLAMP, &state->clamp, sizeof(state->clamp)) < 0)
		state->clamp = 0;
	return sockopts_save(&view, &scratch->defaults, &state->options.options_len,
			     &state->options.options_val, err);
}

/* --- the whole ---------------------------------------------------------------------------------------- */

static void forget_fds(struct scratch *scratch, bool all)
{
	for (size_t i = 0; i < scratch->n; i++) {
		struct look *look = &scratch->looks[i];
		if (look->fd >= 0 && (all || look->state->kept == TCP_RESET)) {
			close(look->fd);
			look->fd = -1;
		}
	}
}

static int read_all(struct dump *dump, struct scratch *scratch, struct fsnap_error *err)
{
	for (size_t i = 0; i < scratch->n; i++)
		if (scratch->looks[i].state->kept != TCP_RESET &&
		    read_options(dump, &scratch->looks[i], err) < 0)
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

static void note(struct dump *dump, const size_t fates[3])
{
	bool kill = dump_options(dump)->kill;
	if (fates[TCP_RESET])
		dump_note(dump, "%zu TCP connection%s will come back as reset by the peer",
			  fates[TCP_RESET], fates[TCP_RESET] == 1 ? "" : "s");
	if (fates[TCP_OUTSIDE] && kill)
		dump_note(dump, "packets of %zu TCP connection%s are held back until the restore; to give "
				"them up: nft delete table inet %s", fates[TCP_OUTSIDE],
			  fates[TCP_OUTSIDE] == 1 ? "" : "s", dump_hold(dump));
	else if (fates[TCP_OUTSIDE])
		dump_note(dump, "%zu TCP connection%s will come back as reset by the peer, as the tree goes on "
				"using them (unless restored with --tcp keep)", fates[TCP_OUTSIDE],
			  fates[TCP_OUTSIDE] == 1 ? "" : "s");
}

int tcp_look_at_all(struct dump *dump, struct fsnap_error *err)
{
	struct scratch *scratch = scratch_of(dump, err);
	size_t fates[3] = { 0 };
	if (!scratch || scratch->looked)
		return scratch ? 0 : -1;
	scratch->looked = true;
	if (!scratch->n)
		return 0;
	if (decide(dump, scratch, fates, err) < 0)
		return -1;
	bool kill = dump_options(dump)->kill;
	if (fates[TCP_OUTSIDE] && kill && hold_for_now(dump, scratch, err) < 0)
		return -1;
	if (fates[TCP_INSIDE] + fates[TCP_OUTSIDE] && read_all(dump, scratch, err) < 0)
		return -1;
	forget_fds(scratch, !kill);
	note(dump, fates);
	return 0;
}

/* Steadfast. Once in repair mode, a socket is closed without a word. */
int tcp_silence(struct dump *dump, struct fsnap_error *err)
{
	struct scratch *scratch = scratch_of(dump, err);
	if (!scratch)
		return -1;
	if (scratch->hold >= 0 && hold_for_good(dump, scratch, err) < 0)
		return -1;
	for (size_t i = 0; i < scratch->n; i++)
		if (scratch->looks[i].fd >= 0)
			tcp_set(scratch->looks[i].fd, TCP_REPAIR, 1);
	return 0;
}

void tcp_dump_end(void *of)
{
	struct scratch *scratch = of;
	forget_fds(scratch, true);
	if (scratch->looks && scratch->hold >= 0)
		close(scratch->hold);
	free(scratch->looks);
}
