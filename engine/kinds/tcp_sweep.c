/*
 * What is left of the connections of a tree that was killed stands for a minute
 * in TIME_WAIT, without a process, and may keep its listener's address from being
 * bound again: SO_REUSEADDR helps only if those connections had it, too.  The
 * kernel lets an administrator take such remains away.
 */
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "engine/kinds/tcp_sweep.h"
#include "store/scope.h"

/* States of a connection whose program has closed it. Never one that a living listener holds. */
#define CLOSING_STATES                                                                          \
	(1u << TCP_FIN_WAIT1 | 1u << TCP_FIN_WAIT2 | 1u << TCP_CLOSING | 1u << TCP_LAST_ACK | \
	 1u << TCP_TIME_WAIT)

struct question {
	struct nlmsghdr header;
	struct inet_diag_req_v2 request;
};

static bool ask(int diag, unsigned short type, unsigned short flags, struct question *question)
{
	question->header = (struct nlmsghdr){.nlmsg_len = sizeof(*question), .nlmsg_type = type,
					     .nlmsg_flags = NLM_F_REQUEST | flags};
	return send(diag, question, sizeof(*question), 0) == (ssize_t)sizeof(*question);
}

static bool destroy(const struct inet_diag_msg *remains)
{
	struct question question = {.request = {.sdiag_family = remains->idiag_family,
						.sdiag_protocol = IPPROTO_TCP,
						.id = remains->id}};
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		struct question echo;
	} answer;
	cleanup_fd int diag = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	return diag >= 0 && ask(diag, SOCK_DESTROY, NLM_F_ACK, &question) &&
	       recv(diag, &answer, sizeof(answer), 0) > 0 &&
	       answer.header.nlmsg_type == NLMSG_ERROR && answer.error.error == 0;
}

static int sweep_family(unsigned char family, unsigned short port)
{
	struct question question = {.request = {.sdiag_family = family,
						.sdiag_protocol = IPPROTO_TCP,
						.idiag_states = CLOSING_STATES,
						.id.idiag_sport = port}};
	_Alignas(struct nlmsghdr) char answer[16384];
	int swept = 0;
	cleanup_fd int diag = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (diag < 0 || !ask(diag, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &question))
		return 0;
	for (;;) {
		ssize_t size = recv(diag, answer, sizeof(answer), 0);
		if (size <= 0)
			return swept;
		for (struct nlmsghdr *at = (void *)answer; NLMSG_OK(at, size);
		     at = NLMSG_NEXT(at, size)) {
			if (at->nlmsg_type == NLMSG_DONE || at->nlmsg_type == NLMSG_ERROR)
				return swept;
			const struct inet_diag_msg *remains = NLMSG_DATA(at);
			if (!remains->idiag_inode && remains->id.idiag_sport == port)
				swept += destroy(remains);
		}
	}
}

int tcp_sweep(unsigned short port)
{
	return sweep_family(AF_INET, port) + sweep_family(AF_INET6, port);
}
