/*
 * Packet sockets on the loopback interface: one sees the frames of its protocol,
 * one only those its filter passes, two share them in a fanout group; memberships
 * and options stay.
 *
 * harness: root
 */
#include "specimen.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

static int opened(int protocol)
{
	int fd = MUST(socket(AF_PACKET, SOCK_DGRAM, 0));
	struct sockaddr_ll own = { .sll_family = AF_PACKET, .sll_protocol = htons((uint16_t)protocol),
				   .sll_ifindex = (int)if_nametoindex("lo") };
	int on = 1;
	MUST(setsockopt(fd, SOL_PACKET, 23 /* PACKET_IGNORE_OUTGOING */, &on, sizeof(on)));
	MUST(bind(fd, (struct sockaddr *)&own, sizeof(own)));
	return fd;
}

static void send_frame(void)
{
	int fd = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	MUST(sendto(fd, "frame", 5, 0, (struct sockaddr *)&to, sizeof(to)));
	close(fd);
}

/* How many frames of our UDP packet came. */
static int count(int fd)
{
	unsigned char frame[256];
	int n = 0;
	struct pollfd p = { .fd = fd, .events = POLLIN };
	while (poll(&p, 1, 50) > 0 && p.revents & POLLIN) {
		ssize_t size = recv(fd, frame, sizeof(frame), MSG_DONTWAIT);
		n += size == 33 && !memcmp(frame + 28, "frame", 5);
	}
	return n;
}

static int fanout_of(int fd)
{
	int value = 0;
	socklen_t size = sizeof(value);
	MUST(getsockopt(fd, SOL_PACKET, PACKET_FANOUT, &value, &size));
	return value;
}

static int promiscuity(void)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg message;
	} question = { .header = { .nlmsg_len = sizeof(question), .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST },
		       .message = { .ifi_index = (int)if_nametoindex("lo") } };
	_Alignas(struct nlmsghdr) char answer[8192];
	int fd = MUST(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)), value = -1;
	MUST(send(fd, &question, sizeof(question), 0));
	int left = (int)MUST(recv(fd, answer, sizeof(answer), 0)) - (int)NLMSG_LENGTH(sizeof(struct ifinfomsg));
	struct rtattr *at = (struct rtattr *)(answer + NLMSG_LENGTH(sizeof(struct ifinfomsg)));
	for (; RTA_OK(at, left); at = RTA_NEXT(at, left))
		if (at->rta_type == IFLA_PROMISCUITY)
			memcpy(&value, RTA_DATA(at), sizeof(value));
	close(fd);
	return value;
}

int main(void)
{
	int sees = opened(ETH_P_IP), filtered = opened(ETH_P_IP), other = opened(ETH_P_ARP);
	int pair[2] = { opened(ETH_P_IP), opened(ETH_P_IP) };
	struct sock_filter code[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
	struct sock_fprog none = { .len = 1, .filter = code };
	MUST(setsockopt(filtered, SOL_SOCKET, SO_ATTACH_FILTER, &none, sizeof(none)));
	int fanout = 4711 | PACKET_FANOUT_LB << 16, on = 1, seen = 0;
	for (int i = 0; i < 2; i++)
		MUST(setsockopt(pair[i], SOL_PACKET, PACKET_FANOUT, &fanout, sizeof(fanout)));
	MUST(setsockopt(sees, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)));
	struct packet_mreq promiscuous = { .mr_ifindex = (int)if_nametoindex("lo"), .mr_type = PACKET_MR_PROMISC };
	MUST(setsockopt(sees, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof(promiscuous)));
	while (specimen_round()) {
		specimen_ready();
		send_frame();
		expect_int("one sees it", 1, count(sees));
		expect_int("not through the filter", 0, count(filtered));
		expect_int("not another protocol", 0, count(other));
		expect_int("one of the two", 1, count(pair[0]) + count(pair[1]));
		for (int i = 0; i < 2; i++)
			expect_int("fanout", fanout, fanout_of(pair[i]));
		socklen_t size = sizeof(seen);
		MUST(getsockopt(sees, SOL_PACKET, PACKET_AUXDATA, &seen, &size));
		expect_int("PACKET_AUXDATA", 1, seen);
		expect_int("who wants all frames of lo", 1, promiscuity());
	}
	return specimen_end();
}
