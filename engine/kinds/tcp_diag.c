/*
 * What only sock_diag(7) tells, of all TCP sockets at once: who has keys of RFC
 * 2385 (TCP_MD5SIG; an administrator is told, of sockets that listen or are
 * connected), and whom a socket that still tries to connect has called.
 */
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "engine/kinds/tcp_parts.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

#define MD5SIG 18 /* INET_DIAG_MD5SIG: newer than some headers */

static bool has_keys(const struct nlmsghdr *message, const struct inet_diag_msg *socket)
{
	int left = (int)(message->nlmsg_len - NLMSG_LENGTH(sizeof(*socket)));
	for (struct rtattr *at = (struct rtattr *)(socket + 1); RTA_OK(at, left); at = RTA_NEXT(at, left))
		if (at->rta_type == MD5SIG)
			return true;
	return false;
}

static bool add(struct tcp_diag *found, const struct inet_diag_msg *socket, bool keys)
{
	struct tcp_found *moved = realloc(found->sockets, (found->n + 1) * sizeof(*moved));
	if (!moved)
		return false;
	found->sockets = moved;
	struct tcp_found *one = &moved[found->n++];
	*one = (struct tcp_found){ .inode = socket->idiag_inode, .keys = keys };
	one->remote.any.sa_family = socket->idiag_family;
	if (socket->idiag_family == AF_INET6) {
		one->remote.v6.sin6_port = socket->id.idiag_dport;
		memcpy(&one->remote.v6.sin6_addr, socket->id.idiag_dst, 16);
		if (IN6_IS_ADDR_LINKLOCAL(&one->remote.v6.sin6_addr))
			one->remote.v6.sin6_scope_id = socket->id.idiag_if;
	} else {
		one->remote.v4.sin_port = socket->id.idiag_dport;
		memcpy(&one->remote.v4.sin_addr, socket->id.idiag_dst, 4);
	}
	return true;
}

/* One answer of several messages; false when there are no more. */
static bool take_answer(int diag, tcp_diag_fn each, void *arg)
{
	_Alignas(struct nlmsghdr) char answer[32768];
	ssize_t size = recv(diag, answer, sizeof(answer), 0);
	if (size <= 0)
		return false;
	for (struct nlmsghdr *at = (void *)answer; NLMSG_OK(at, size); at = NLMSG_NEXT(at, size))
		if (at->nlmsg_type == NLMSG_DONE || at->nlmsg_type == NLMSG_ERROR || !each(at, NLMSG_DATA(at), arg))
			return false;
	return true;
}

void tcp_diag_ask(unsigned char family, unsigned states, unsigned wanted, tcp_diag_fn each, void *arg)
{
	struct {
		struct nlmsghdr header;
		struct inet_diag_req_v2 request;
	} question = {
		.header = { .nlmsg_len = sizeof(question), .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			    .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.request = { .sdiag_family = family, .sdiag_protocol = IPPROTO_TCP,
			     .idiag_ext = (uint8_t)wanted, .idiag_states = states },
	};
	cleanup_fd int diag = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (diag < 0 || send(diag, &question, sizeof(question), 0) != (ssize_t)sizeof(question))
		return;
	while (take_answer(diag, each, arg))
		;
}

static bool look_at(const struct nlmsghdr *message, const struct inet_diag_msg *socket, void *found)
{
	bool keys = has_keys(message, socket);
	return (!keys && socket->idiag_state != TCP_SYN_SENT) || add(found, socket, keys);
}

static const struct tcp_found *find(struct tcp_diag *found, uint64_t inode)
{
	if (!found->asked) {
		/* Linux 6.18 adds the keys to the answer only where all of TCP_INFO is wanted. */
		const unsigned states = ~(1u << TCP_TIME_WAIT | 1u << TCP_SYN_RECV), all = 1u << (INET_DIAG_INFO - 1);
		found->asked = true;
		tcp_diag_ask(AF_INET, states, all, look_at, found);
		tcp_diag_ask(AF_INET6, states, all, look_at, found);
	}
	for (size_t i = 0; i < found->n; i++)
		if (found->sockets[i].inode == inode)
			return &found->sockets[i];
	return NULL;
}

bool tcp_has_md5(struct tcp_diag *found, uint64_t inode)
{
	const struct tcp_found *one = find(found, inode);
	return one && one->keys;
}

const union inet_address *tcp_called(struct tcp_diag *found, uint64_t inode)
{
	const struct tcp_found *one = find(found, inode);
	return one ? &one->remote : NULL;
}
