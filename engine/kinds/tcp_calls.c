/*
 * Who calls while the tree stands still.
 *
 * For a listener the kernel answers calls by itself, whoever is frozen.  What comes
 * about after its queue was looked at is in no image, and would be reset when the
 * tree is killed; so would be whoever is in the midst of a handshake, which is a
 * request and in no queue yet (net/ipv4/inet_connection_sock.c,
 * inet_csk_listen_stop()).  So where connections to the outside are kept, calls are
 * held back first: TCP calls again after a second.  Then handshakes that have begun
 * are waited for: they lack one segment, and that one passes.  What is in the queues
 * then is all there is.
 */
#include <linux/inet_diag.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kinds/tcp_look.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

#define PATIENCE_MS 200 /* farther ends answer sooner, or not at all */

static struct tcp_door door_of(const struct tcp_listener *listener)
{
	union inet_address local = inet_address(listener->state->local.local_val, listener->state->local.local_len);
	struct tcp_door door = { .port = inet_port(&local), .v6 = local.any.sa_family == AF_INET6,
				 .any = inet_is_any(&local) };
	int only = 0;
	socklen_t size = sizeof(only);
	if (!door.v6) {
		memcpy(door.address, &local.v4.sin_addr, 4);
		return door;
	}
	getsockopt(listener->fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &size);
	door.both = door.any && !only;
	bool mapped = IN6_IS_ADDR_V4MAPPED(&local.v6.sin6_addr);
	if (mapped)
		door.v6 = false;
	memcpy(door.address, local.v6.sin6_addr.s6_addr + (mapped ? 12 : 0), mapped ? 4 : 16);
	return door;
}

/* --- handshakes ------------------------------------------------------------------------- */

struct count {
	const struct tcp_door *doors;
	size_t n_doors;
	unsigned n;
};

static bool count_one(const struct nlmsghdr *message, const struct inet_diag_msg *request, void *arg)
{
	struct count *count = arg;
	(void)message;
	for (size_t i = 0; i < count->n_doors; i++)
		if (count->doors[i].port == request->id.idiag_sport) {
			count->n++;
			break;
		}
	return true;
}

static unsigned handshakes(const struct tcp_door *doors, size_t n)
{
	struct count count = { doors, n, 0 };
	tcp_diag_ask(AF_INET, 1u << TCP_SYN_RECV, 0, count_one, &count);
	tcp_diag_ask(AF_INET6, 1u << TCP_SYN_RECV, 0, count_one, &count);
	return count.n;
}

static int await_handshakes(struct tcp_looks *looks, const struct tcp_door *doors, struct fsnap_error *err)
{
	unsigned n = handshakes(doors, looks->n_listeners);
	if (n && tcp_requests_end(looks, err) < 0)
		return -1;
	for (int ms = 0; ms < PATIENCE_MS && (n = handshakes(doors, looks->n_listeners)); ms++)
		poll(NULL, 0, 1);
	if (n)
		dump_note(looks->dump, "%u TCP connection%s whose handshake does not end may be reset: the other end has "
				       "not answered, or the listener waits for data (TCP_DEFER_ACCEPT)", n,
			  n == 1 ? "" : "s");
	return 0;
}

/* --- the whole -------------------------------------------------------------------------- */

int tcp_calls_hold(struct tcp_looks *looks, struct fsnap_error *err)
{
	size_t n = looks->n_listeners;
	if (!n || dump_options(looks->dump)->tcp != FSNAP_TCP_KEEP)
		return 0;
	cleanup_free struct tcp_door *doors = calloc(n, sizeof(*doors));
	if (!doors)
		return no_memory(err);
	for (size_t i = 0; i < n; i++)
		doors[i] = door_of(&looks->listeners[i]);
	/* Where connections must be held back, too, that fails again, and is an error. */
	struct fsnap_error why = { 0 };
	if (tcp_look_hold(looks, &why) < 0 || tcp_hold_calls(looks->hold, looks->hold_name, doors, n, &why) < 0)
		dump_note(looks->dump, "who calls while the tree stands still may be reset: %s", why.message);
	return await_handshakes(looks, doors, err);
}
