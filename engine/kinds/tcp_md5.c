/*
 * Keys of RFC 2385 (TCP_MD5SIG): no socket option tells that there are any.  An
 * administrator is told by sock_diag(7) (INET_DIAG_MD5SIG), of sockets that
 * listen or are connected; all are asked for at once.
 */
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <stdlib.h>
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

static bool add(struct tcp_md5 *found, uint32_t inode)
{
	uint32_t *moved = realloc(found->inodes, (found->n + 1) * sizeof(*moved));
	if (!moved)
		return false;
	found->inodes = moved;
	found->inodes[found->n++] = inode;
	return true;
}

/* One answer of several messages; false when there are no more. */
static bool take_answer(int diag, struct tcp_md5 *found)
{
	_Alignas(struct nlmsghdr) char answer[32768];
	ssize_t size = recv(diag, answer, sizeof(answer), 0);
	if (size <= 0)
		return false;
	for (struct nlmsghdr *at = (void *)answer; NLMSG_OK(at, size); at = NLMSG_NEXT(at, size)) {
		if (at->nlmsg_type == NLMSG_DONE || at->nlmsg_type == NLMSG_ERROR)
			return false;
		const struct inet_diag_msg *socket = NLMSG_DATA(at);
		if (has_keys(at, socket) && !add(found, socket->idiag_inode))
			return false;
	}
	return true;
}

static void ask_family(unsigned char family, struct tcp_md5 *found)
{
	struct {
		struct nlmsghdr header;
		struct inet_diag_req_v2 request;
	} question = {
		.header = { .nlmsg_len = sizeof(question), .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			    .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		/* Linux 6.18 adds the keys to the answer only where all of TCP_INFO is wanted. */
		.request = { .sdiag_family = family, .sdiag_protocol = IPPROTO_TCP,
			     .idiag_ext = 1u << (INET_DIAG_INFO - 1),
			     .idiag_states = ~(1u << TCP_TIME_WAIT | 1u << TCP_SYN_RECV) },
	};
	cleanup_fd int diag = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (diag < 0 || send(diag, &question, sizeof(question), 0) != (ssize_t)sizeof(question))
		return;
	while (take_answer(diag, found))
		;
}

bool tcp_has_md5(struct tcp_md5 *found, uint64_t inode)
{
	if (!found->asked) {
		found->asked = true;
		ask_family(AF_INET, found);
		ask_family(AF_INET6, found);
	}
	for (size_t i = 0; i < found->n; i++)
		if (found->inodes[i] == inode)
			return true;
	return false;
}
