/*
 * A socket under TCP_REPAIR takes sequence numbers and data from us, but not the
 * end of the other's data, nor the acknowledgement of its own: the kernel learns
 * of those from segments only.  So it is sent one, with the other end's address,
 * through the loopback device: a raw socket with IP_HDRINCL (raw(7)).
 */
#include <arpa/inet.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "engine/kinds/tcp_parts.h"
#include "store/scope.h"

#define FORGED_WINDOW 65535 /* TCP_REPAIR_WINDOW says the true one afterwards */
#define HOPS 64

/* RFC 1071, over a pseudo header and a TCP header without options. */
static uint16_t checksum(const struct tcp_ends *ends, const struct tcphdr *tcp)
{
	uint16_t words[2 * 16 / 2 + 2 + sizeof(*tcp) / 2] = { 0 };
	size_t size = ends->v6 ? 16 : 4, n = 0;
	memcpy(words, ends->remote, size);
	memcpy((char *)words + size, ends->local, size);
	n = size;
	words[n++] = htons(IPPROTO_TCP);
	words[n++] = htons(sizeof(*tcp));
	memcpy(&words[n], tcp, sizeof(*tcp));
	uint32_t sum = 0;
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		sum += words[i];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static struct tcphdr segment(const struct tcp_ends *ends, uint32_t seq, uint32_t ack, unsigned flags)
{
	struct tcphdr tcp = {
		.th_sport = ends->remote_port,
		.th_dport = ends->local_port,
		.th_seq = htonl(seq),
		.th_ack = htonl(ack),
		.th_off = sizeof(tcp) / 4,
		.th_flags = (uint8_t)flags,
		.th_win = htons(FORGED_WINDOW),
	};
	tcp.th_sum = checksum(ends, &tcp);
	return tcp;
}

static int send_raw(const struct tcp_ends *ends, const void *packet, size_t size)
{
	union inet_address to = { 0 };
	int on = 1, mark = TCP_HOLD_PASS;
	cleanup_fd int raw = socket(ends->v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	to.any.sa_family = ends->v6 ? AF_INET6 : AF_INET;
	memcpy(ends->v6 ? (void *)&to.v6.sin6_addr : (void *)&to.v4.sin_addr, ends->local,
	       ends->v6 ? 16 : 4);
	/* IPPROTO_RAW implies IP_HDRINCL; of IPv6 it must be said. */
	if (raw < 0 || setsockopt(raw, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) < 0 ||
	    (ends->v6 && setsockopt(raw, IPPROTO_IPV6, IPV6_HDRINCL, &on, sizeof(on)) < 0))
		return -1;
	socklen_t length = ends->v6 ? sizeof(to.v6) : sizeof(to.v4);
	return sendto(raw, packet, size, 0, &to.any, length) == (ssize_t)size ? 0 : -1;
}

int tcp_forge(const struct tcp_ends *ends, uint32_t seq, uint32_t ack, unsigned flags)
{
	struct {
		struct ip6_hdr ip;
		struct tcphdr tcp;
	} v6 = { .tcp = segment(ends, seq, ack, flags) };
	struct {
		struct iphdr ip;
		struct tcphdr tcp;
	} v4 = { .tcp = v6.tcp };
	if (ends->v6) {
		v6.ip.ip6_flow = htonl(6u << 28);
		v6.ip.ip6_plen = htons(sizeof(v6.tcp));
		v6.ip.ip6_nxt = IPPROTO_TCP;
		v6.ip.ip6_hlim = HOPS;
		memcpy(&v6.ip.ip6_src, ends->remote, 16);
		memcpy(&v6.ip.ip6_dst, ends->local, 16);
		return send_raw(ends, &v6, sizeof(v6));
	}
	v4.ip = (struct iphdr){ .version = 4, .ihl = 5, .ttl = HOPS, .protocol = IPPROTO_TCP };
	v4.ip.tot_len = htons(sizeof(v4));
	memcpy(&v4.ip.saddr, ends->remote, 4);
	memcpy(&v4.ip.daddr, ends->local, 4);
	return send_raw(ends, &v4, sizeof(v4));
}
