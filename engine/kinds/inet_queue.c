/*
 * Datagrams that wait in a UDP socket.
 *
 * They are looked at with MSG_PEEK and SO_PEEK_OFF.  At a restore each is put on
 * the loopback interface as a packet of its own making, from its sender's address
 * to the one it was sent to: the kernel delivers what it has just routed without
 * asking where it can have come from (loopback_xmit() keeps the route).  That needs
 * a raw socket, and the receiver must be alone at its address: it is done
 * between bind(2) and connect(2).  What else came with a packet (when, through
 * which interface, how many hops) is not kept.
 */
#include "engine/kinds/inet_parts.h"

#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/kinds/inet_address.h"
#include "engine/kinds/sockopt.h"
#include "engine/kinds/values.h"
#include "engine/steadfast.h"
#include "store/scope.h"

#define PEEK (MSG_PEEK | MSG_DONTWAIT)
#define LONGEST 65536
#define FSNAP_SO_BUF_LOCK 72
#define FSNAP_SO_MEMINFO 55
#define FSNAP_UDP_GRO 104
#define DELIVERY_PATIENCE_MS 200

/* --- dump --------------------------------------------------------------------- */

struct seen {
	ssize_t size;
	union inet_address from;
	socklen_t from_size;
	union inet_address to;
	int segment; /* UDP_GRO has glued datagrams of this size, 0: it has not */
};

static void take_control(struct msghdr *header, struct seen *seen)
{
	seen->to = (union inet_address){0};
	seen->segment = 0;
	for (struct cmsghdr *at = CMSG_FIRSTHDR(header); at; at = CMSG_NXTHDR(header, at)) {
		if (at->cmsg_level == IPPROTO_IP && at->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo info;
			memcpy(&info, CMSG_DATA(at), sizeof(info));
			seen->to.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = info.ipi_addr};
		} else if (at->cmsg_level == IPPROTO_IPV6 && at->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo info;
			memcpy(&info, CMSG_DATA(at), sizeof(info));
			seen->to.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = info.ipi6_addr};
		} else if (at->cmsg_level == IPPROTO_UDP && at->cmsg_type == FSNAP_UDP_GRO) {
			memcpy(&seen->segment, CMSG_DATA(at), sizeof(int));
		}
	}
}

static void peek(int fd, char *buffer, struct seen *seen)
{
	_Alignas(struct cmsghdr) char control[1024];
	struct iovec part = {buffer, LONGEST};
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_name = &seen->from,
				.msg_namelen = sizeof(seen->from), .msg_control = control,
				.msg_controllen = sizeof(control)};
	seen->size = recvmsg(fd, &header, PEEK);
	seen->from_size = header.msg_namelen;
	if (seen->size >= 0)
		take_control(&header, seen);
}

static int add_datagram(image_file_inet *state, const char *data, size_t size, const struct seen *seen,
			struct fsnap_error *err)
{
	image_datagram *datagram = append(state->queue, queue);
	if (!datagram)
		return no_memory(err);
	if (set_bytes(&datagram->data.data_len, &datagram->data.data_val, data, size, err) < 0 ||
	    set_bytes(&datagram->from.from_len, &datagram->from.from_val, seen->from.bytes, seen->from_size,
		      err) < 0)
		return -1;
	return set_bytes(&datagram->to.to_len, &datagram->to.to_val, seen->to.bytes,
			 inet_address_size(seen->to.any.sa_family), err);
}

static int peek_all(int fd, image_file_inet *state, struct fsnap_error *err)
{
	cleanup_free char *buffer = malloc(LONGEST);
	if (!buffer)
		return no_memory(err);
	for (;;) {
		struct seen seen;
		peek(fd, buffer, &seen);
		if (seen.size < 0)
			return 0;
		size_t left = (size_t)seen.size, step = seen.segment ? (size_t)seen.segment : left, at = 0;
		do {
			size_t size = left - at < step ? left - at : step;
			if (add_datagram(state, buffer + at, size, &seen, err) < 0)
				return -1;
			at += size;
		} while (at < left);
	}
}

static int turn(int fd, int level, int name, int value)
{
	int before = 0;
	socklen_t size = sizeof(before);
	getsockopt(fd, level, name, &before, &size);
	if (before != value)
		setsockopt(fd, level, name, &value, sizeof(value));
	return before;
}

struct looking {
	int fd;
	image_file_inet *state;
	struct fsnap_error *err;
};

/* What is set for the look is the socket's: this is done by somebody who outlives us. */
static int look_and_put_back(void *arg)
{
	struct looking *looking = arg;
	int fd = looking->fd, v4 = turn(fd, IPPROTO_IP, IP_PKTINFO, 1), v6 = 0;
	bool six = looking->state->family == AF_INET6;
	if (six)
		v6 = turn(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
	int offset = turn(fd, SOL_SOCKET, SO_PEEK_OFF, 0);
	int result = peek_all(fd, looking->state, looking->err);
	setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset));
	if (six)
		turn(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, v6);
	turn(fd, IPPROTO_IP, IP_PKTINFO, v4);
	return result;
}

int inet_save_queue(const struct fd_view *fd, image_file_inet *state, struct fsnap_error *err)
{
	struct pollfd poll_fd = {.fd = fd->dup, .events = POLLIN};
	if (poll(&poll_fd, 1, 0) <= 0)
		return 0;
	/* A look would take it, and getsockopt(SO_ERROR) as well: sock_error() in include/net/sock.h. */
	if (poll_fd.revents & POLLERR) {
		dump_note(fd->dump, "errors that wait to be told by datagram sockets, and what waits behind "
				    "them, are not in the image");
		return 0;
	}
	if (!(poll_fd.revents & POLLIN))
		return 0;
	if (state->type != SOCK_DGRAM || (state->protocol != IPPROTO_UDP && state->protocol != IPPROTO_UDPLITE)) {
		dump_note(fd->dump, "packets that wait in raw and ICMP sockets are not in the image");
		return 0;
	}
	struct looking looking = {fd->dup, state, err};
	return steadfast(look_and_put_back, &looking, err);
}

/* --- restore: packets ------------------------------------------------------------ */

static uint32_t sum(const void *data, size_t size, uint32_t start)
{
	const unsigned char *bytes = data;
	uint64_t total = start;
	for (size_t i = 0; i + 1 < size; i += 2)
		total += (uint32_t)bytes[i] << 8 | bytes[i + 1];
	if (size & 1)
		total += (uint32_t)bytes[size - 1] << 8;
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return (uint32_t)total;
}

/* An IPv4 address as such, also where an IPv6 socket says ::ffff:a.b.c.d. */
static bool as_v4(const union inet_address *address, uint32_t *v4)
{
	if (address->any.sa_family == AF_INET) {
		*v4 = address->v4.sin_addr.s_addr;
		return true;
	}
	if (!IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr))
		return false;
	memcpy(v4, &address->v6.sin6_addr.s6_addr[12], 4);
	return true;
}

struct packet {
	char bytes[LONGEST + 128];
	size_t head, size; /* of the IP header; of all */
};

/* Behind the IP header, whose addresses (`pair`, of `pair_size` bytes) the checksum covers. */
static void write_udp(struct packet *packet, int protocol, uint16_t from, uint16_t to, const image_datagram *datagram,
		      const void *pair, size_t pair_size)
{
	struct udphdr *udp = (struct udphdr *)(packet->bytes + packet->head);
	size_t length = sizeof(*udp) + datagram->data.data_len;
	*udp = (struct udphdr){.source = from, .dest = to, .len = htons((uint16_t)length)};
	if (datagram->data.data_len)
		memcpy(udp + 1, datagram->data.data_val, datagram->data.data_len);
	uint32_t total = sum(pair, pair_size, (uint32_t)length + (uint32_t)protocol);
	udp->check = htons((uint16_t)~sum(udp, length, total));
	if (!udp->check)
		udp->check = 0xffff;
	packet->size = packet->head + length;
}

static void write_v4(struct packet *packet, int protocol, uint32_t from, uint16_t from_port, uint32_t to,
		     uint16_t to_port, const image_datagram *datagram)
{
	struct iphdr *ip = (struct iphdr *)packet->bytes;
	packet->head = sizeof(*ip);
	*ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = (uint8_t)protocol, .saddr = from,
			     .daddr = to};
	write_udp(packet, protocol, from_port, to_port, datagram, &ip->saddr, 8);
	ip->tot_len = htons((uint16_t)packet->size);
}

static void write_v6(struct packet *packet, int protocol, const struct sockaddr_in6 *from,
		     const struct sockaddr_in6 *to, uint16_t to_port, const image_datagram *datagram)
{
	struct ipv6hdr *ip = (struct ipv6hdr *)packet->bytes;
	packet->head = sizeof(*ip);
	*ip = (struct ipv6hdr){.version = 6, .hop_limit = 64, .nexthdr = (uint8_t)protocol};
	memcpy(&ip->saddr, &from->sin6_addr, 16);
	memcpy(&ip->daddr, &to->sin6_addr, 16);
	write_udp(packet, protocol, from->sin6_port, to_port, datagram, &ip->saddr, 32);
	ip->payload_len = htons((uint16_t)(packet->size - packet->head));
}

/* --- restore: delivery ------------------------------------------------------------- */

static uint32_t received(int fd)
{
	uint32_t memory[16] = {0};
	socklen_t size = sizeof(memory);
	getsockopt(fd, SOL_SOCKET, FSNAP_SO_MEMINFO, memory, &size);
	return memory[0]; /* SK_MEMINFO_RMEM_ALLOC */
}

/* The loopback interface usually delivers before sendto(2) returns. */
static bool arrives(int fd, uint32_t before)
{
	for (int waited = 0; waited < DELIVERY_PATIENCE_MS; waited++) {
		if (received(fd) > before)
			return true;
		usleep(1000);
	}
	return received(fd) > before;
}

static bool is_multicast(const union inet_address *address)
{
	uint32_t v4;
	if (as_v4(address, &v4))
		return IN_MULTICAST(ntohl(v4)) || v4 == INADDR_BROADCAST;
	return IN6_IS_ADDR_MULTICAST(&address->v6.sin6_addr);
}

/* Everybody who listens would get what was sent to a group: then it goes to this host alone. */
static union inet_address destination(const image_datagram *datagram, const union inet_address *local)
{
	union inet_address to = inet_address(datagram->to.to_val, datagram->to.to_len);
	if (!inet_is_any(local))
		return *local;
	uint32_t v4;
	if (!is_multicast(&to) && datagram->to.to_len)
		return to;
	if (local->any.sa_family == AF_INET || as_v4(&to, &v4))
		return (union inet_address){.v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
	return (union inet_address){.v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback}};
}

static bool deliver(const image_file_inet *state, int fd, const image_datagram *datagram, struct packet *packet)
{
	union inet_address local = inet_address(state->local.local_val, state->local.local_len);
	union inet_address from = inet_address(datagram->from.from_val, datagram->from.from_len);
	union inet_address to = destination(datagram, &local);
	uint32_t from4, to4, before = received(fd);
	int on = 1;
	if (is_multicast(&to))
		return false;
	bool v4 = as_v4(&from, &from4) && as_v4(&to, &to4);
	union inet_address goal = {0};
	if (v4) {
		write_v4(packet, state->protocol, from4, inet_port(&from), to4, inet_port(&local), datagram);
		goal.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = to4};
	} else {
		write_v6(packet, state->protocol, &from.v6, &to.v6, inet_port(&local), datagram);
		goal.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = to.v6.sin6_addr,
						.sin6_scope_id = to.v6.sin6_scope_id};
	}
	cleanup_fd int raw = socket(v4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	if (raw < 0 || (!v4 && setsockopt(raw, IPPROTO_IPV6, IPV6_HDRINCL, &on, sizeof(on)) < 0))
		return false;
	socklen_t length = (socklen_t)inet_address_size(goal.any.sa_family);
	return sendto(raw, packet->bytes, packet->size, 0, &goal.any, length) > 0 &&
	       arrives(fd, before);
}

void inet_fill_queue(struct restore *restore, const image_file_inet *state, int fd)
{
	unsigned n = state->queue.queue_len, lost = 0;
	if (!n)
		return;
	cleanup_free struct packet *packet = malloc(sizeof(*packet));
	int before = socket_int(fd, SO_RCVBUF), wide = 4096, unlocked = 0;
	for (unsigned i = 0; i < n; i++)
		wide += 2 * (int)state->queue.queue_val[i].data.data_len + 4096;
	if (wide > before / 2)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &wide, sizeof(wide));
	for (unsigned i = 0; i < n; i++)
		lost += !packet || !deliver(state, fd, &state->queue.queue_val[i], packet);
	if (wide > before / 2) {
		before /= 2;
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &before, sizeof(before));
		setsockopt(fd, SOL_SOCKET, FSNAP_SO_BUF_LOCK, &unlocked, sizeof(unlocked));
	}
	if (lost)
		restore_note(restore, "%u UDP datagram%s not read yet could not be delivered again", lost,
			     lost == 1 ? "" : "s");
}
