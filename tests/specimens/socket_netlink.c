/*
 * Netlink sockets: one with a port of its own answers; one that has joined groups,
 * by number and by mask, hears of an event (an interface that comes and goes), and
 * one with a filter that lets nothing pass does not.  One to write into the audit log,
 * as login and dbus-daemon have it, is a socket like any other.
 *
 * harness: root
 */
#include "specimen.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/ioctl.h>

static int opened(unsigned groups, unsigned *port)
{
	int fd = MUST(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
	struct sockaddr_nl own = { .nl_family = AF_NETLINK, .nl_groups = groups };
	socklen_t size = sizeof(own);
	MUST(bind(fd, (struct sockaddr *)&own, sizeof(own)));
	MUST(getsockname(fd, (struct sockaddr *)&own, &size));
	*port = own.nl_pid;
	return fd;
}

static void expect_port(int fd, unsigned port)
{
	struct sockaddr_nl own = { 0 };
	socklen_t size = sizeof(own);
	MUST(getsockname(fd, (struct sockaddr *)&own, &size));
	expect_int("port", port, own.nl_pid);
}

/* The loopback interface gets another length of queue: an event. */
static void event(int length)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_qlen = length };
	int fd = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	expect_ok("changing lo", ioctl(fd, SIOCSIFTXQLEN, &request));
	close(fd);
}

static void expect_event(const char *what, int fd, int expected)
{
	_Alignas(struct nlmsghdr) char buffer[8192];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	expect_int(what, expected, poll(&p, 1, expected ? 2000 : 50));
	ssize_t size = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
	if (expected)
		expect_int("what about", RTM_NEWLINK, size > 0 ? ((struct nlmsghdr *)buffer)->nlmsg_type : 0);
	while (recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT) > 0)
		;
}

static void expect_answer(int fd)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg message;
	} question = { .header = { .nlmsg_len = sizeof(question), .nlmsg_type = RTM_GETLINK,
				   .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = 77 },
		       .message = { .ifi_index = (int)if_nametoindex("lo") } };
	_Alignas(struct nlmsghdr) char buffer[8192];
	expect_int("a question", sizeof(question), send(fd, &question, sizeof(question), 0));
	expect_between("an answer", 16, 8192, recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT));
	expect_int("to it", 77, ((struct nlmsghdr *)buffer)->nlmsg_seq);
}

/* -1: a kernel without audit. */
static int for_audit(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT);
	if (fd < 0 && errno != EPROTONOSUPPORT)
		MUST(fd);
	return fd;
}

/* The kernel answers, if only that nobody may ask from in here. */
static void expect_audit_answer(int fd)
{
	struct nlmsghdr question = { .nlmsg_len = sizeof(question), .nlmsg_type = AUDIT_GET,
				     .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK, .nlmsg_seq = 78 };
	_Alignas(struct nlmsghdr) char buffer[8192];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	expect_int("a question to audit", sizeof(question), send(fd, &question, sizeof(question), 0));
	expect_int("an answer comes", 1, poll(&p, 1, 2000));
	expect_between("an answer of audit", 16, 8192, recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT));
	expect_int("to its question", 78, ((struct nlmsghdr *)buffer)->nlmsg_seq);
	for (; poll(&p, 1, 20) > 0; recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT))
		;
}

int main(void)
{
	int audit = for_audit();
	unsigned ports[4];
	int asks = opened(0, &ports[0]), by_mask = opened(RTMGRP_LINK, &ports[1]);
	int by_number = opened(0, &ports[2]), deaf = opened(RTMGRP_LINK, &ports[3]);
	int group = RTNLGRP_LINK, on = 1, seen = 0;
	struct sock_filter code[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
	struct sock_fprog none = { .len = 1, .filter = code };
	MUST(setsockopt(by_number, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)));
	MUST(setsockopt(deaf, SOL_SOCKET, SO_ATTACH_FILTER, &none, sizeof(none)));
	MUST(setsockopt(deaf, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof(on)));
	MUST(setsockopt(asks, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on)));
	int length = 1000;
	while (specimen_round()) {
		specimen_ready();
		int fds[] = { asks, by_mask, by_number, deaf };
		for (int i = 0; i < 4; i++)
			expect_port(fds[i], ports[i]);
		event(++length);
		expect_event("an event, by mask", by_mask, 1);
		expect_event("an event, by number", by_number, 1);
		expect_event("no event through the filter", deaf, 0);
		expect_event("no event without a group", asks, 0);
		expect_answer(asks);
		if (audit >= 0)
			expect_audit_answer(audit);
		socklen_t size = sizeof(seen);
		MUST(getsockopt(asks, SOL_NETLINK, NETLINK_EXT_ACK, &seen, &size));
		expect_int("NETLINK_EXT_ACK", 1, seen);
		expect_errno("the filter is locked", EPERM, setsockopt(deaf, SOL_SOCKET, SO_DETACH_FILTER, &on, sizeof(on)));
	}
	return specimen_end();
}
