/*
 * Handshakes that wait for data.
 *
 * With TCP_DEFER_ACCEPT a client whose handshake is over, but who has sent nothing
 * yet, is a request still: it is in no queue, and would be reset when the tree is
 * killed.  The kernel makes a connection of it at the next segment, if the listener
 * does not defer any more (net/ipv4/tcp_minisocks.c, tcp_check_req()).  So that is
 * turned off for a moment, and the client's last segment repeated in its name.  Its
 * numbers are in the kernel's memory only (peek.h): in the table of all connections.
 */
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kinds/peek.h"
#include "engine/kinds/tcp_look.h"
#include "engine/kinds/values.h"
#include "engine/steadfast.h"
#include "store/scope.h"

enum { REQUEST = 12, ACKED = 1 << 12, MOST_BUCKETS = 1 << 22, MOST_REQUESTS = 4096, ARRIVAL_MS = 50 };

enum where {
	SOCKET_SK, SK_NET, NET_TABLE, TABLE_HASH, TABLE_MASK, NODE, STATE, FAMILY, OUR_PORT, OUR_V4, OUR_V6, PORT, V4, V6,
	FLAGS, THEIR_NUMBER, OUR_NUMBER, WHERES,
};

struct request {
	struct tcp_ends ends;
	uint32_t theirs, ours; /* the numbers that both begin with */
};

struct search {
	struct peek *peek;
	struct peek_member at[WHERES];
	const struct tcp_looks *looks;
	struct request *found; /* malloc'ed */
	size_t n;
};

static bool prepare(struct search *search, struct tcp_looks *looks)
{
	*search = (struct search){ .peek = dump_peek(looks->dump), .looks = looks, .at = {
		[SOCKET_SK] = { "socket", "sk", 0 },
		[SK_NET] = { "sock_common", "skc_net.net", 0 },
		[NET_TABLE] = { "net", "ipv4.tcp_death_row.hashinfo", 0 },
		[TABLE_HASH] = { "inet_hashinfo", "ehash", 0 },
		[TABLE_MASK] = { "inet_hashinfo", "ehash_mask", 0 },
		[NODE] = { "sock_common", "skc_nulls_node", 0 },
		[STATE] = { "sock_common", "skc_state", 0 },
		[FAMILY] = { "sock_common", "skc_family", 0 },
		[OUR_PORT] = { "sock_common", "skc_num", 0 },
		[OUR_V4] = { "sock_common", "skc_rcv_saddr", 0 },
		[OUR_V6] = { "sock_common", "skc_v6_rcv_saddr", 0 },
		[PORT] = { "sock_common", "skc_dport", 0 },
		[V4] = { "sock_common", "skc_daddr", 0 },
		[V6] = { "sock_common", "skc_v6_daddr", 0 },
		[FLAGS] = { "inet_request_sock", "snd_wscale", 0 }, /* the first of 16 bits */
		[THEIR_NUMBER] = { "tcp_request_sock", "rcv_isn", 0 },
		[OUR_NUMBER] = { "tcp_request_sock", "snt_isn", 0 },
	} };
	return search->peek && peek_layout(search->peek, search->at, WHERES);
}

static uint64_t word(const struct search *search, uint64_t address, enum where where)
{
	return address ? peek_word(search->peek, address, search->at[where].offset) : 0;
}

static uint32_t half(const struct search *search, uint64_t address, enum where where)
{
	return peek_half(search->peek, address, search->at[where].offset);
}

static bool is_deferred(const struct tcp_listener *listener)
{
	int seconds = 0;
	socklen_t size = sizeof(seconds);
	return getsockopt(listener->fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, &size) == 0 && seconds;
}

/* At the port of a listener of ours that defers. */
static bool is_ours(const struct search *search, uint16_t port)
{
	for (size_t i = 0; i < search->looks->n_listeners; i++) {
		const image_file_tcp *state = search->looks->listeners[i].state;
		union inet_address local = inet_address(state->local.local_val, state->local.local_len);
		if (inet_port(&local) == port && is_deferred(&search->looks->listeners[i]))
			return true;
	}
	return false;
}

static bool is_mapped(const uint8_t *address)
{
	static const uint8_t head[12] = { [10] = 0xff, [11] = 0xff };
	return memcmp(address, head, sizeof(head)) == 0;
}

static bool read_ends(const struct search *search, uint64_t request, struct tcp_ends *ends)
{
	bool v6 = (half(search, request, FAMILY) & 0xffff) == AF_INET6;
	ends->remote_port = (uint16_t)half(search, request, PORT);
	if (v6 && (!peek_bytes(search->peek, request + search->at[OUR_V6].offset, ends->local, 16) ||
		   !peek_bytes(search->peek, request + search->at[V6].offset, ends->remote, 16)))
		return false;
	ends->v6 = v6 && !is_mapped(ends->local);
	if (ends->v6)
		return true;
	memset(ends->local, 0, sizeof(ends->local));
	memset(ends->remote, 0, sizeof(ends->remote));
	return peek_bytes(search->peek, request + search->at[OUR_V4].offset, ends->local, 4) &&
	       peek_bytes(search->peek, request + search->at[V4].offset, ends->remote, 4);
}

static void look_at(struct search *search, uint64_t sk)
{
	struct request request = { .ends.local_port = htons((uint16_t)half(search, sk, OUR_PORT)) };
	if ((half(search, sk, STATE) & 0xff) != REQUEST || !is_ours(search, request.ends.local_port) ||
	    !(half(search, sk, FLAGS) & ACKED) || !read_ends(search, sk, &request.ends) || search->n == MOST_REQUESTS)
		return;
	request.theirs = half(search, sk, THEIR_NUMBER);
	request.ours = half(search, sk, OUR_NUMBER);
	struct request *moved = realloc(search->found, (search->n + 1) * sizeof(*moved));
	if (!moved)
		return;
	search->found = moved;
	moved[search->n++] = request;
}

/* A chain ends with an odd number (linux/list_nulls.h). */
static void look_at_chain(struct search *search, uint64_t node)
{
	for (int i = 0; node && !(node & 1) && i < MOST_REQUESTS; i++, node = peek_word(search->peek, node, 0))
		look_at(search, node - search->at[NODE].offset);
}

static void find_all(struct search *search, int listener)
{
	uint64_t socket = peek_private(search->peek, listener), net = word(search, word(search, socket, SOCKET_SK), SK_NET);
	uint64_t table = word(search, net, NET_TABLE), hash = word(search, table, TABLE_HASH);
	uint64_t buckets = table ? half(search, table, TABLE_MASK) + 1ull : 0, chains[1024];
	if (buckets > MOST_BUCKETS)
		return;
	for (uint64_t i = 0; i < buckets; i += 1024) {
		size_t n = buckets - i < 1024 ? (size_t)(buckets - i) : 1024;
		if (!peek_bytes(search->peek, hash + i * sizeof(*chains), chains, n * sizeof(*chains)))
			return;
		for (size_t j = 0; j < n; j++)
			look_at_chain(search, chains[j]);
	}
}

static unsigned queued(const struct tcp_looks *looks)
{
	unsigned n = 0;
	for (size_t i = 0; i < looks->n_listeners; i++)
		n += tcp_queue_length(looks->listeners[i].fd);
	return n;
}

/* Steadfast: listeners defer again, whatever happens to us. */
static int repeat_segments(void *arg)
{
	const struct search *search = arg;
	const struct tcp_looks *looks = search->looks;
	cleanup_free int *seconds = calloc(looks->n_listeners, sizeof(*seconds));
	if (!seconds)
		return -1;
	for (size_t i = 0; i < looks->n_listeners; i++) {
		socklen_t size = sizeof(*seconds);
		if (getsockopt(looks->listeners[i].fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds[i], &size) == 0 && seconds[i])
			tcp_set(looks->listeners[i].fd, TCP_DEFER_ACCEPT, 0);
	}
	unsigned before = queued(looks);
	for (size_t i = 0; i < search->n; i++)
		tcp_forge(&search->found[i].ends, search->found[i].theirs + 1, search->found[i].ours + 1, TCP_FORGE_ACK);
	for (int ms = 0; ms < ARRIVAL_MS && queued(looks) < before + search->n; ms++)
		poll(NULL, 0, 1);
	for (size_t i = 0; i < looks->n_listeners; i++)
		if (seconds[i])
			tcp_set(looks->listeners[i].fd, TCP_DEFER_ACCEPT, seconds[i]);
	return 0;
}

int tcp_requests_end(struct tcp_looks *looks, struct fsnap_error *err)
{
	struct search search;
	bool deferred = false;
	for (size_t i = 0; i < looks->n_listeners && !deferred; i++)
		deferred = is_deferred(&looks->listeners[i]);
	if (!deferred || !prepare(&search, looks))
		return 0;
	find_all(&search, looks->listeners[0].fd);
	looks->deferred = calloc(search.n + 1, sizeof(*looks->deferred));
	for (; looks->deferred && looks->n_deferred < search.n; looks->n_deferred++)
		looks->deferred[looks->n_deferred] = search.found[looks->n_deferred].ends;
	int result = search.n && looks->deferred ? steadfast(repeat_segments, &search, err) : 0;
	free(search.found);
	return result < 0 && error_is_set(err) ? -1 : 0;
}
