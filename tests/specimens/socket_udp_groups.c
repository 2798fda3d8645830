/*
 * Multicast groups of IPv4 and IPv6 on the loopback interface: a socket that has
 * joined one of IPv4 receives what is sent to the group, only from the sources it has named,
 * and its neighbour that has not joined does not. Raw and ICMP sockets with their
 * filters.
 *
 * harness: root
 */
#include "specimen.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sys/socket.h>

static struct sockaddr_in group4 = { .sin_family = AF_INET };
static struct sockaddr_in6 group6 = { .sin6_family = AF_INET6 };

static int listener(int family, in_port_t port)
{
	int fd = MUST(socket(family, SOCK_DGRAM, 0)), on = 1, off = 0;
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = port };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = port };
	MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
	MUST(setsockopt(fd, family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6,
			family == AF_INET ? IP_MULTICAST_ALL : IPV6_MULTICAST_ALL, &off, sizeof(off)));
	MUST(bind(fd, family == AF_INET ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6,
		  family == AF_INET ? sizeof(v4) : sizeof(v6)));
	return fd;
}

static void join(int fd, int level, const void *group, size_t size)
{
	struct group_req request = { .gr_interface = if_nametoindex("lo") };
	memcpy(&request.gr_group, group, size);
	MUST(setsockopt(fd, level, MCAST_JOIN_GROUP, &request, sizeof(request)));
}

/* Takes from one source only. */
static void join_source(int fd, const char *source)
{
	struct group_source_req request = { .gsr_interface = if_nametoindex("lo") };
	memcpy(&request.gsr_group, &group4, sizeof(group4));
	struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = inet_addr(source) };
	memcpy(&request.gsr_source, &from, sizeof(from));
	MUST(setsockopt(fd, IPPROTO_IP, MCAST_JOIN_SOURCE_GROUP, &request, sizeof(request)));
}

static void say(const char *source, const char *text)
{
	int fd = MUST(socket(AF_INET, SOCK_DGRAM, 0));
	struct ip_mreqn through = { .imr_ifindex = (int)if_nametoindex("lo") };
	struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = inet_addr(source) };
	MUST(bind(fd, (struct sockaddr *)&from, sizeof(from)));
	MUST(setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &through, sizeof(through)));
	MUST(sendto(fd, text, strlen(text), 0, (struct sockaddr *)&group4, sizeof(group4)));
	close(fd);
}

/* Nothing can be sent to a group of IPv6 through the loopback interface; but its members are known. */
static long is_member(int fd)
{
	_Alignas(struct group_filter) char room[GROUP_FILTER_SIZE(4)] = { 0 };
	struct group_filter *filter = (struct group_filter *)room;
	socklen_t size = sizeof(room);
	filter->gf_interface = if_nametoindex("lo");
	memcpy(&filter->gf_group, &group6, sizeof(group6));
	return getsockopt(fd, IPPROTO_IPV6, MCAST_MSFILTER, filter, &size);
}

static void expect_next(const char *what, int fd, const char *text)
{
	char buffer[64] = "";
	struct pollfd p = { .fd = fd, .events = POLLIN };
	poll(&p, 1, text[0] ? 2000 : 50);
	recv(fd, buffer, sizeof(buffer) - 1, MSG_DONTWAIT);
	expect_text(what, text, buffer);
}

static int raw_socket(void)
{
	int fd = MUST(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)), ttl = 33;
	uint32_t filter = ~(1u << ICMP_ECHOREPLY);
	struct sockaddr_in own = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	MUST(bind(fd, (struct sockaddr *)&own, sizeof(own)));
	MUST(setsockopt(fd, 255, 1, &filter, sizeof(filter)));
	MUST(setsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, sizeof(ttl)));
	return fd;
}

/* The answer to an echo request comes, and the request itself, which the filter keeps away, does not. */
static void check_raw(int fd)
{
	struct icmphdr echo = { .type = ICMP_ECHO, .checksum = htons(0xf7ff) };
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	unsigned char buffer[128];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	expect_int("an echo request", sizeof(echo), sendto(fd, &echo, sizeof(echo), 0, (struct sockaddr *)&to, sizeof(to)));
	expect_int("an answer", 1, poll(&p, 1, 2000));
	expect_int("its size", 28, recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT));
	expect_int("its type", ICMP_ECHOREPLY, buffer[20]);
	expect_int("nothing else", -1, recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT));
	int ttl = 0;
	socklen_t size = sizeof(ttl);
	getsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, &size);
	expect_int("IP_TTL", 33, ttl);
}

int main(void)
{
	group4.sin_addr.s_addr = inet_addr("239.3.2.1");
	group4.sin_port = group6.sin6_port = htons(34567);
	inet_pton(AF_INET6, "ff05::321", &group6.sin6_addr);
	int member = listener(AF_INET, group4.sin_port), other = listener(AF_INET, group4.sin_port);
	int choosy = listener(AF_INET, group4.sin_port);
	int member6 = listener(AF_INET6, group6.sin6_port), other6 = listener(AF_INET6, group6.sin6_port);
	join(member, IPPROTO_IP, &group4, sizeof(group4));
	join_source(choosy, "127.0.0.7");
	join(member6, IPPROTO_IPV6, &group6, sizeof(group6));
	int raw = raw_socket();
	while (specimen_round()) {
		specimen_ready();
		say("127.0.0.1", "to all");
		say("127.0.0.7", "to some");
		expect_next("a member", member, "to all");
		expect_next("a member, again", member, "to some");
		expect_next("one that takes it from one source", choosy, "to some");
		expect_next("one that is none", other, "");
		expect_ok("a member of IPv6", is_member(member6));
		expect_errno("one that is none", EADDRNOTAVAIL, is_member(other6));
		check_raw(raw);
	}
	return specimen_end();
}
