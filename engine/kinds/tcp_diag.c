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
#include <unistd.h>

#include "engine/kinds/tcp_parts.h"
#include "engine/kinds/values.h"
#include "store/scope.h"

#define MD5SIG 18 /* INET_DIAG_MD5SIG: newer than some headers */
#define SINGLY_MOST 50 /* sockets that are asked for one by one, 3 us each */

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

struct question {
	struct nlmsghdr header;
	struct inet_diag_req_v2 request;
};

static struct question question_of(unsigned char family, unsigned states, unsigned wanted, unsigned flags)
{
	return (struct question){
		.header = { .nlmsg_len = sizeof(struct question), .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			    .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags) },
		.request = { .sdiag_family = family, .sdiag_protocol = IPPROTO_TCP,
			     .idiag_ext = (uint8_t)wanted, .idiag_states = states },
	};
}

static int open_diag(void)
{
	return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
}

static bool put_question(int diag, const struct question *question)
{
	return diag >= 0 && send(diag, question, sizeof(*question), 0) == (ssize_t)sizeof(*question);
}

void tcp_diag_ask(unsigned char family, unsigned states, unsigned wanted, tcp_diag_fn each, void *arg)
{
	struct question question = question_of(family, states, wanted, NLM_F_DUMP);
	cleanup_fd int diag = open_diag();
	if (put_question(diag, &question))
		while (take_answer(diag, each, arg))
			;
}

/* Linux 6.18 adds the keys to the answer only where all of TCP_INFO is wanted. */
#define ALL (1u << (INET_DIAG_INFO - 1))

/* --- one that is connected, or listens -------------------------------------------------------- */

/* A listener is found as by a call from nowhere; where several share a port it may be another one. */
static bool name_ends(int fd, bool listens, struct inet_diag_req_v2 *request)
{
	union inet_address local = {0}, remote = {0};
	socklen_t size = sizeof(local), other = sizeof(remote);
	if (getsockname(fd, &local.any, &size) < 0 || (!listens && getpeername(fd, &remote.any, &other) < 0))
		return false;
	request->id.idiag_cookie[0] = request->id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	request->id.idiag_sport = inet_port(&local);
	request->id.idiag_dport = inet_port(&remote);
	request->sdiag_family = (uint8_t)local.any.sa_family;
	if (local.any.sa_family == AF_INET6) {
		memcpy(request->id.idiag_src, &local.v6.sin6_addr, 16);
		memcpy(request->id.idiag_dst, &remote.v6.sin6_addr, 16);
	} else {
		memcpy(request->id.idiag_src, &local.v4.sin_addr, 4);
		memcpy(request->id.idiag_dst, &remote.v4.sin_addr, 4);
	}
	return true;
}

/* 1, 0: it has keys, or none; -1: it was not found (bound to a device, say). */
static int ask_one(struct tcp_diag *found, int fd, uint64_t inode, bool listens)
{
	_Alignas(struct nlmsghdr) char answer[4096];
	struct question question = question_of(AF_INET, ~0u, ALL, 0);
	if (!found->ask)
		found->ask = open_diag() + 1;
	bool asked = name_ends(fd, listens, &question.request) && put_question(found->ask - 1, &question);
	ssize_t size = asked ? recv(found->ask - 1, answer, sizeof(answer), 0) : -1;
	const struct nlmsghdr *message = (void *)answer;
	if (size <= 0 || !NLMSG_OK(message, size) || message->nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return -1;
	const struct inet_diag_msg *socket = NLMSG_DATA(message);
	return socket->idiag_inode == inode ? has_keys(message, socket) : -1;
}

/* --- all of them ----------------------------------------------------------------------------- */

static bool look_at(const struct nlmsghdr *message, const struct inet_diag_msg *socket, void *found)
{
	bool keys = has_keys(message, socket);
	return (!keys && socket->idiag_state != TCP_SYN_SENT) || add(found, socket, keys);
}

#define BOUND (1u << TCP_CLOSE | 1u << 13) /* TCP_BOUND_INACTIVE, since Linux 6.8 */
#define OTHERS ~(BOUND | 1u << TCP_LISTEN | 1u << TCP_TIME_WAIT | 1u << TCP_SYN_RECV)

/* Who is connected, or tries to be, lies in a table that takes 0.2 ms to go through, however few there are. */
static const struct tcp_found *find(struct tcp_diag *found, unsigned states, uint64_t inode)
{
	if (states & ~found->asked) {
		found->asked |= states;
		tcp_diag_ask(AF_INET, states, ALL, look_at, found);
		tcp_diag_ask(AF_INET6, states, ALL, look_at, found);
	}
	for (size_t i = 0; i < found->n; i++)
		if (found->sockets[i].inode == inode)
			return &found->sockets[i];
	return NULL;
}

bool tcp_has_md5(struct tcp_diag *found, int fd, uint64_t inode, int state)
{
	unsigned states = state == TCP_LISTEN ? 1u << TCP_LISTEN : state == TCP_CLOSE ? BOUND : OTHERS;
	if (state != TCP_CLOSE && !(found->asked & states) && found->singly < SINGLY_MOST) {
		int has = ask_one(found, fd, inode, state == TCP_LISTEN);
		found->singly++;
		if (has >= 0)
			return has;
	}
	const struct tcp_found *one = find(found, states, inode);
	return one && one->keys;
}

const union inet_address *tcp_called(struct tcp_diag *found, uint64_t inode)
{
	const struct tcp_found *one = find(found, OTHERS, inode);
	return one ? &one->remote : NULL;
}

void tcp_diag_free(struct tcp_diag *found)
{
	if (found->ask)
		close(found->ask - 1);
	free(found->sockets);
}
