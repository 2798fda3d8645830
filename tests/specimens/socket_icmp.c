/*
 * ICMP echo sockets (icmp(7): the kernel answers for them), with the identifier they are bound to, and raw sockets
 * of IPv6 with their filter and options: an echo request goes out and its answer comes back, the answer to
 * another one's does not.
 *
 * harness: root
 */
#include "specimen.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sys/socket.h>

enum { IDENTIFIER = 4321, TTL = 37, HOPS = 41 };

static void allow_ping(void)
{
	static const char all[] = "0 2147483647";
	int fd = open("/proc/sys/net/ipv4/ping_group_range", O_WRONLY);
	if (fd < 0 || write(fd, all, strlen(all)) < 0)
		specimen_skip("ICMP echo sockets cannot be allowed: %s", strerror(errno));
	close(fd);
}

static int echo_socket(int family)
{
	int fd = MUST(socket(family, SOCK_DGRAM, family == AF_INET ? IPPROTO_ICMP : (int)IPPROTO_ICMPV6)), ttl = TTL;
	struct sockaddr_in own = { .sin_family = AF_INET, .sin_port = htons(IDENTIFIER) };
	struct sockaddr_in6 own6 = { .sin6_family = AF_INET6, .sin6_port = htons(IDENTIFIER) };
	if (family == AF_INET) {
		MUST(bind(fd, (struct sockaddr *)&own, sizeof(own)));
		MUST(setsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, sizeof(ttl)));
	} else {
		MUST(bind(fd, (struct sockaddr *)&own6, sizeof(own6)));
		MUST(setsockopt(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &ttl, sizeof(ttl)));
	}
	return fd;
}

static int raw_socket(void)
{
	int fd = MUST(socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6)), hops = HOPS;
	struct icmp6_filter filter;
	ICMP6_FILTER_SETBLOCKALL(&filter);
	ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter);
	MUST(setsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof(filter)));
	MUST(setsockopt(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &hops, sizeof(hops)));
	return fd;
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t size = sizeof(value);
	getsockopt(fd, level, name, &value, &size);
	return value;
}

static void send_echo(int fd, int family, int sequence)
{
	struct icmphdr echo = { .type = family == AF_INET ? ICMP_ECHO : ICMP6_ECHO_REQUEST };
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 to6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	echo.un.echo.sequence = htons((uint16_t)sequence);
	if (family == AF_INET)
		expect_int("an echo request", sizeof(echo),
			   sendto(fd, &echo, sizeof(echo), 0, (struct sockaddr *)&to, sizeof(to)));
	else
		expect_int("an echo request", sizeof(echo),
			   sendto(fd, &echo, sizeof(echo), 0, (struct sockaddr *)&to6, sizeof(to6)));
}

static void expect_answer(const char *what, int fd, int type, int identifier, int sequence)
{
	struct icmphdr answer = { 0 };
	struct pollfd p = { .fd = fd, .events = POLLIN };
	expect_int(what, 1, poll(&p, 1, 2000));
	expect_int("  its size", sizeof(answer), recv(fd, &answer, sizeof(answer), MSG_DONTWAIT));
	expect_int("  its type", type, answer.type);
	expect_int("  its identifier", identifier, ntohs(answer.un.echo.id));
	expect_int("  its sequence", sequence, ntohs(answer.un.echo.sequence));
	expect_int("  nothing else", -1, recv(fd, &answer, sizeof(answer), MSG_DONTWAIT));
}

static int identifier_of(int fd, int family)
{
	struct sockaddr_in6 own = { 0 };
	socklen_t size = sizeof(own);
	MUST(getsockname(fd, (struct sockaddr *)&own, &size));
	return ntohs(family == AF_INET ? ((struct sockaddr_in *)&own)->sin_port : own.sin6_port);
}

int main(void)
{
	allow_ping();
	int echo = echo_socket(AF_INET), echo6 = echo_socket(AF_INET6), raw = raw_socket();
	while (specimen_round()) {
		specimen_ready();
		expect_int("identifier", IDENTIFIER, identifier_of(echo, AF_INET));
		expect_int("identifier, IPv6", IDENTIFIER, identifier_of(echo6, AF_INET6));
		expect_int("IP_TTL", TTL, option(echo, IPPROTO_IP, IP_TTL));
		expect_int("IPV6_UNICAST_HOPS", TTL, option(echo6, IPPROTO_IPV6, IPV6_UNICAST_HOPS));
		expect_int("IPV6_UNICAST_HOPS, raw", HOPS, option(raw, IPPROTO_IPV6, IPV6_UNICAST_HOPS));
		send_echo(echo, AF_INET, 7);
		expect_answer("an answer", echo, ICMP_ECHOREPLY, IDENTIFIER, 7);
		send_echo(raw, AF_INET6, 9);
		expect_answer("an answer, raw", raw, ICMP6_ECHO_REPLY, 0, 9);
		send_echo(echo6, AF_INET6, 8);
		expect_answer("an answer, IPv6", echo6, ICMP6_ECHO_REPLY, IDENTIFIER, 8);
		expect_answer("which the raw one sees, too", raw, ICMP6_ECHO_REPLY, IDENTIFIER, 8);
	}
	return specimen_end();
}
