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

/* RFC 1071, over a pseudo header and the segment. */
static uint16_t checksum(const struct tcp_ends *ends, const void *segment, size_t size)
{
	uint32_t sum = htons(IPPROTO_TCP) + htons((uint16_t)size);
	uint16_t word;
	for (size_t i = 0; i < (ends->v6 ? 16 : 4); i += 2) {
		memcpy(&word, ends->remote + i, 2);
		sum += word;
		memcpy(&word, ends->local + i, 2);
		sum += word;
	}
	for (size_t i = 0; i < size; i += 2) {
		word = 0;
		memcpy(&word, (const char *)segment + i, size - i < 2 ? 1 : 2);
		sum += word;
	}
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* Header, options, data; returns their size. */
static size_t lay(const struct tcp_ends *ends, const struct tcp_segment *segment, char *to)
{
	size_t head = sizeof(struct tcphdr) + segment->n_options, size = head + segment->size;
	struct tcphdr tcp = {
		.th_sport = ends->remote_port,
		.th_dport = ends->local_port,
		.th_seq = htonl(segment->seq),
		.th_ack = htonl(segment->ack),
		.th_off = (uint8_t)(head / 4) & 15,
		.th_flags = (uint8_t)segment->flags,
		.th_win = htons(FORGED_WINDOW),
	};
	memcpy(to, &tcp, sizeof(tcp));
	if (segment->n_options)
		memcpy(to + sizeof(tcp), segment->options, segment->n_options);
	if (segment->size)
		memcpy(to + head, segment->data, segment->size);
	tcp.th_sum = checksum(ends, to, size);
	memcpy(to, &tcp, sizeof(tcp));
	return size;
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

int tcp_forge_segment(const struct tcp_ends *ends, const struct tcp_segment *segment)
{
	char packet[sizeof(struct ip6_hdr) + sizeof(struct tcphdr) + TCP_FORGE_OPTIONS + TCP_FORGE_DATA];
	if (ends->v6) {
		struct ip6_hdr ip = { 0 };
		size_t size = lay(ends, segment, packet + sizeof(ip));
		ip.ip6_flow = htonl(6u << 28);
		ip.ip6_plen = htons((uint16_t)size);
		ip.ip6_nxt = IPPROTO_TCP;
		ip.ip6_hlim = HOPS;
		memcpy(&ip.ip6_src, ends->remote, 16);
		memcpy(&ip.ip6_dst, ends->local, 16);
		memcpy(packet, &ip, sizeof(ip));
		return send_raw(ends, packet, sizeof(ip) + size);
	}
	struct iphdr ip = { .version = 4, .ihl = 5, .ttl = HOPS, .protocol = IPPROTO_TCP };
	size_t size = lay(ends, segment, packet + sizeof(ip));
	ip.tot_len = htons((uint16_t)(sizeof(ip) + size));
	memcpy(&ip.saddr, ends->remote, 4);
	memcpy(&ip.daddr, ends->local, 4);
	memcpy(packet, &ip, sizeof(ip));
	return send_raw(ends, packet, sizeof(ip) + size);
}

int tcp_forge(const struct tcp_ends *ends, uint32_t seq, uint32_t ack, unsigned flags)
{
	return tcp_forge_segment(ends, &(struct tcp_segment){ .seq = seq, .ack = ack, .flags = flags });
}
