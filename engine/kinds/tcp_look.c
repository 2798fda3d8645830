/*
 * The connections of a tree, looked at together: which are kept, whose packets
 * are held back, and how their sockets die silently.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "engine/kinds/table.h"
#include "engine/kinds/tcp_look.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

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

static struct tcp_looks *scratch_of(struct dump *dump, struct fsnap_error *err)
{
	void **slot = dump_scratch(dump, &kind_tcp);
	if (*slot)
		return *slot;
	struct tcp_looks *scratch = *slot = calloc(1, sizeof(*scratch));
	if (!scratch) {
		no_memory(err);
		return NULL;
	}
	scratch->dump = dump;
	scratch->hold = -1;
	return scratch;
}

struct sockopt_defaults *tcp_defaults(struct dump *dump, struct fsnap_error *err)
{
	struct tcp_looks *scratch = scratch_of(dump, err);
	return scratch ? &scratch->defaults : NULL;
}

struct tcp_diag *tcp_diag_of(struct dump *dump, struct fsnap_error *err)
{
	struct tcp_looks *scratch = scratch_of(dump, err);
	return scratch ? &scratch->diag : NULL;
}

int tcp_look_add(const struct fd_view *fd, image_file *file, image_file_tcp *state,
		 struct fsnap_error *err)
{
	struct tcp_looks *scratch = scratch_of(fd->dump, err);
	if (!scratch)
		return -1;
	if (scratch->n == scratch->room) {
		size_t room = scratch->room * 2 + 16;
		struct tcp_look *moved = realloc(scratch->looks, room * sizeof(*moved));
		if (!moved)
			return no_memory(err);
		scratch->looks = moved;
		scratch->room = room;
	}
	int own = fcntl(fd->dup, F_DUPFD_CLOEXEC, 0);
	if (own < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "descriptor %d (%s)", fd->fd, fd->link);
	scratch->looks[scratch->n++] = (struct tcp_look){
		.file = file, .state = state, .process = fd->process, .number = fd->fd, .fd = own,
		.reuse = socket_int(own, SO_REUSEADDR), .ends = tcp_ends_of(state),
	};
	return 0;
}

int tcp_look_listener(const struct fd_view *fd, image_file *file, image_file_tcp *state, struct fsnap_error *err)
{
	struct tcp_looks *scratch = scratch_of(fd->dump, err);
	struct tcp_listener *moved = scratch ? realloc(scratch->listeners, (scratch->n_listeners + 1) *
								       sizeof(*moved)) : NULL;
	if (!moved)
		return no_memory(err);
	scratch->listeners = moved;
	moved[scratch->n_listeners++] = (struct tcp_listener){
		.file = file, .state = state, .process = fd->process, .number = fd->fd,
		.fd = fcntl(fd->dup, F_DUPFD_CLOEXEC, 0),
	};
	return moved[scratch->n_listeners - 1].fd >= 0 ? 0 :
		       fail(err, FSNAP_E_SYSTEM, errno, "descriptor %d (%s)", fd->fd, fd->link);
}

/* --- which are kept --------------------------------------------------------------------- */

static bool may_repair(void)
{
	cleanup_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return fd >= 0 && tcp_set(fd, TCP_REPAIR, 1) == 0;
}

static int compare_ends(const void *a, const void *b)
{
	const struct tcp_look *const *left = a, *const *right = b;
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
static bool can_be_kept(const struct tcp_look *look)
{
	return look->state->phase != TCP_SYN_RECV && look->state->phase != TCP_CLOSE;
}

static int find_pairs(struct tcp_looks *scratch, struct fsnap_error *err)
{
	size_t n = scratch->n;
	cleanup_free struct tcp_look **sorted = calloc(n, sizeof(*sorted));
	if (!sorted)
		return no_memory(err);
	for (size_t i = 0; i < n; i++)
		sorted[i] = &scratch->looks[i];
	qsort(sorted, n, sizeof(*sorted), compare_ends);
	for (size_t i = 0; i < n; i++) {
		struct tcp_look other = { .ends = mirrored(&sorted[i]->ends) }, *key = &other;
		struct tcp_look **found = bsearch(&key, sorted, n, sizeof(*sorted), compare_ends);
		if (found && can_be_kept(sorted[i]) && can_be_kept(*found)) {
			sorted[i]->state->kept = TCP_INSIDE;
			sorted[i]->other = *found;
		}
	}
	return 0;
}

/* Which are kept, and how many there are of each fate. */
static int decide(struct dump *dump, struct tcp_looks *scratch, size_t fates[3], struct fsnap_error *err)
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
		const struct tcp_look *look = &scratch->looks[i];
		if (look->state->kept != TCP_RESET)
			fates[look->state->kept]++;
		else if (look->state->phase != TCP_SYN_SENT && !look->waiting && stdio_number(dump, look->file) < 0)
			fates[TCP_RESET]++;
	}
	return 0;
}

/* --- holding back --------------------------------------------------------------------------- */

/* Connections to the outside; the list is the caller's to free. */
static struct tcp_ends *outside(const struct tcp_looks *scratch, size_t *n, struct fsnap_error *err)
{
	struct tcp_ends *list = calloc(scratch->n + 1, sizeof(*list));
	*n = 0;
	if (!list)
		no_memory(err);
	for (size_t i = 0; list && i < scratch->n; i++)
		if (scratch->looks[i].state->kept == TCP_OUTSIDE && scratch->looks[i].fd >= 0)
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

int tcp_look_hold(struct tcp_looks *looks, struct fsnap_error *err)
{
	char name[TCP_HOLD_NAME];
	if (looks->hold >= 0)
		return 0;
	name_hold(name);
	snprintf(looks->hold_name, sizeof(looks->hold_name), "%s-dump", name);
	looks->hold = tcp_hold(looks->hold_name, true, NULL, 0, err);
	return looks->hold < 0 ? -1 : 0;
}

static int hold_for_now(struct dump *dump, struct tcp_looks *scratch, struct fsnap_error *err)
{
	size_t n;
	cleanup_free struct tcp_ends *list = outside(scratch, &n, err);
	if (!list || tcp_look_hold(scratch, err) < 0 ||
	    tcp_hold_more(scratch->hold, scratch->hold_name, list, n, err) < 0)
		return -1;
	name_hold(dump_hold(dump));
	return 0;
}

static int hold_for_good(struct dump *dump, struct tcp_looks *scratch, struct fsnap_error *err)
{
	size_t n;
	cleanup_free struct tcp_ends *list = outside(scratch, &n, err);
	cleanup_fd int hold = list ? tcp_hold(dump_hold(dump), false, list, n, err) : -1;
	return hold < 0 ? -1 : 0;
}

/* --- the whole ---------------------------------------------------------------------------------------- */

static void forget_fds(struct tcp_looks *scratch, bool all)
{
	for (size_t i = 0; i < scratch->n; i++) {
		struct tcp_look *look = &scratch->looks[i];
		if (look->fd >= 0 && (all || look->state->kept == TCP_RESET)) {
			close(look->fd);
			look->fd = -1;
		}
	}
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

/* What they add to scratch->looks may move it; nothing points there yet. */
static int accept_waiting(struct tcp_looks *scratch, struct fsnap_error *err)
{
	size_t first = scratch->n;
	if (tcp_waiting_accept(scratch, err) < 0)
		return -1;
	for (size_t i = first; i < scratch->n; i++)
		scratch->looks[i].waiting = true;
	return 0;
}

int tcp_look_at_all(struct dump *dump, struct fsnap_error *err)
{
	struct tcp_looks *scratch = scratch_of(dump, err);
	size_t fates[3] = { 0 };
	if (!scratch || scratch->looked)
		return scratch ? 0 : -1;
	scratch->looked = true;
	bool kill = dump_options(dump)->kill;
	if (kill && may_repair() && (tcp_calls_hold(scratch, err) < 0 || accept_waiting(scratch, err) < 0))
		return -1;
	if (!scratch->n)
		return 0;
	if (decide(dump, scratch, fates, err) < 0)
		return -1;
	if (fates[TCP_OUTSIDE] && kill && hold_for_now(dump, scratch, err) < 0)
		return -1;
	if (fates[TCP_INSIDE] + fates[TCP_OUTSIDE] && tcp_read_all(dump, scratch, err) < 0)
		return -1;
	if (tcp_waiting_keep(scratch, err) < 0)
		return -1;
	forget_fds(scratch, !kill);
	note(dump, fates);
	return 0;
}

/* Steadfast. Once in repair mode, a socket is closed without a word. */
int tcp_silence(struct dump *dump, struct fsnap_error *err)
{
	struct tcp_looks *scratch = scratch_of(dump, err);
	if (!scratch)
		return -1;
	tcp_spare_shared(scratch);
	if (dump_hold(dump)[0] && hold_for_good(dump, scratch, err) < 0)
		return -1;
	for (size_t i = 0; i < scratch->n; i++)
		if (scratch->looks[i].fd >= 0)
			tcp_set(scratch->looks[i].fd, TCP_REPAIR, 1);
	return 0;
}

void tcp_dump_end(void *of)
{
	struct tcp_looks *scratch = of;
	forget_fds(scratch, true);
	/* The hold last: of a tree that was killed, ours are the last that listen, and whoever gets through to
	 * them is reset when they end.  Removing a table takes long (synchronize_rcu() in nft_rcv_nl_event()). */
	for (size_t i = 0; i < scratch->n_listeners; i++)
		if (scratch->listeners[i].fd >= 0)
			close(scratch->listeners[i].fd);
	if (scratch->hold >= 0)
		close(scratch->hold);
	for (size_t i = 0; i < scratch->n_waiting; i++) {
		xdr_free((xdrproc_t)xdr_image_file_tcp, (char *)scratch->waiting[i].state);
		free(scratch->waiting[i].state);
	}
	free(scratch->waiting);
	free(scratch->deferred);
	free(scratch->listeners);
	free(scratch->looks);
	tcp_diag_free(&scratch->diag);
}
