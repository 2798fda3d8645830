/*
 * A datagram that is written, but not sent: MSG_MORE and UDP_CORK hold it back until
 * more comes.
 *
 * No call reads it, so it is looked at in the kernel's memory (peek_skb.h): it lies in
 * packets that have room for their headers already, and where it goes stands in the
 * socket.  Whether there is one is found out by writing nothing to it, to port 0: that
 * is refused (EINVAL), unless a datagram is held back, which has a destination and does
 * not look at the new one (net/ipv4/udp.c, udp_sendmsg(); net/ipv6/udp.c).
 */
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "engine/kinds/inet_address.h"
#include "engine/kinds/inet_parts.h"
#include "engine/kinds/peek_skb.h"
#include "engine/kinds/values.h"

enum { UDP_HEADER = 8 };

enum where {
	SOCKET_SK, SK_QUEUE, UDP_FAMILY, UDP_LEN, TO_V4, PORT_V4, TO_V6, PORT_V6, DEVICE_V6, WHERES,
};

struct look {
	struct peek *peek;
	struct peek_member at[WHERES];
	struct peek_skbs skbs;
	uint64_t sk;
};

/* --- dump ------------------------------------------------------------------------ */

static bool is_udp(const image_file_inet *state)
{
	return state->type == SOCK_DGRAM && (state->protocol == IPPROTO_UDP || state->protocol == IPPROTO_UDPLITE);
}

/* The bytes of what waits for a device or for a neighbour's address show, too (SIOCOUTQ). */
static bool has_unsent(int fd)
{
	int cost = 0;
	return ioctl(fd, SIOCOUTQ, &cost) == 0 && cost > 0;
}

static bool holds_back(int fd, int family)
{
	union inet_address nowhere = { .any.sa_family = (sa_family_t)family };
	socklen_t size = (socklen_t)inet_address_size(family);
	return sendto(fd, "", 0, MSG_MORE | MSG_DONTWAIT | MSG_NOSIGNAL, &nowhere.any, size) == 0;
}

static bool look_at(struct look *look, const struct fd_view *fd)
{
	*look = (struct look){ .peek = dump_peek(fd->dump), .at = {
		[SOCKET_SK] = { "socket", "sk", 0 },
		[SK_QUEUE] = { "sock", "sk_write_queue", 0 },
		[UDP_FAMILY] = { "udp_sock", "pending", 0 },
		[UDP_LEN] = { "udp_sock", "len", 0 },
		[TO_V4] = { "inet_sock", "cork.fl.u.ip4.daddr", 0 },
		[PORT_V4] = { "inet_sock", "cork.fl.u.ip4.uli.ports.dport", 0 },
		[TO_V6] = { "inet_sock", "cork.fl.u.ip6.daddr", 0 },
		[PORT_V6] = { "inet_sock", "cork.fl.u.ip6.uli.ports.dport", 0 },
		[DEVICE_V6] = { "inet_sock", "cork.fl.u.ip6.__fl_common.flowic_oif", 0 },
	} };
	if (!look->peek || !peek_layout(look->peek, look->at, WHERES) || !peek_skbs(&look->skbs, look->peek))
		return false;
	uint64_t socket = peek_private(look->peek, fd->dup);
	look->sk = socket ? peek_word(look->peek, socket, look->at[SOCKET_SK].offset) : 0;
	return look->sk;
}

/* Each packet has room for the header of IP, the first for that of UDP as well. */
static bool copy_packets(struct look *look, image_file_inet *state)
{
	uint64_t queue = look->sk + look->at[SK_QUEUE].offset, skb = peek_skb_first(&look->skbs, queue);
	uint32_t size = peek_half(look->peek, look->sk, look->at[UDP_LEN].offset) & 0xffff, done = 0;
	if (size < UDP_HEADER || !(state->held.held_val = malloc(size)))
		return false;
	state->held.held_len = size - UDP_HEADER;
	for (uint32_t skip = UDP_HEADER; skb && skb != queue; skb = peek_skb_next(&look->skbs, skb), skip = 0) {
		uint32_t begin = peek_skb_transport(&look->skbs, skb), all = peek_skb_size(&look->skbs, skb);
		if (begin > all || all - begin < skip || all - begin - skip > state->held.held_len - done ||
		    !peek_skb_bytes(&look->skbs, skb, begin + skip, state->held.held_val + done, all - begin - skip))
			return false;
		done += all - begin - skip;
	}
	return skb && done == state->held.held_len;
}

static bool copy_destination(struct look *look, image_file_inet *state, struct fsnap_error *err)
{
	union inet_address to = { 0 };
	bool v4 = peek_half(look->peek, look->sk, look->at[UDP_FAMILY].offset) == AF_INET;
	uint16_t port = (uint16_t)peek_half(look->peek, look->sk, look->at[v4 ? PORT_V4 : PORT_V6].offset);
	uint32_t v4_address = v4 ? peek_half(look->peek, look->sk, look->at[TO_V4].offset) : 0;
	to.any.sa_family = (sa_family_t)state->family;
	if (state->family == AF_INET) {
		to.v4.sin_port = port;
		to.v4.sin_addr.s_addr = v4_address;
	} else {
		uint8_t *bytes = to.v6.sin6_addr.s6_addr;
		to.v6.sin6_port = port;
		if (v4) {
			bytes[10] = bytes[11] = 0xff;
			memcpy(bytes + 12, &v4_address, 4);
		} else if (!peek_bytes(look->peek, look->sk + look->at[TO_V6].offset, bytes, 16)) {
			return false;
		}
		if (IN6_IS_ADDR_LINKLOCAL(&to.v6.sin6_addr))
			to.v6.sin6_scope_id = peek_half(look->peek, look->sk, look->at[DEVICE_V6].offset);
	}
	return port && set_bytes(&state->held_to.held_to_len, &state->held_to.held_to_val, to.bytes,
				 (unsigned)inet_address_size(state->family), err) == 0;
}

int inet_save_held(const struct fd_view *fd, image_file_inet *state, struct fsnap_error *err)
{
	struct look look;
	if (!has_unsent(fd->dup))
		return 0;
	if (!is_udp(state)) {
		dump_note(fd->dump, "packets of raw and ICMP sockets that were not sent yet are not in the image");
		return 0;
	}
	if (!holds_back(fd->dup, state->family))
		return 0; /* it is on its way */
	state->holds = 1;
	if (look_at(&look, fd) && copy_packets(&look, state) && copy_destination(&look, state, err))
		return 0;
	if (error_is_set(err))
		return -1;
	return refuse_fd(fd, err, "Let the program send it before the dump, or run fsnap as root.",
			 "a UDP datagram that MSG_MORE or UDP_CORK holds back, where this kernel does not let us look");
}

/* --- restore ----------------------------------------------------------------------- */

void inet_hold_again(struct restore *restore, const image_file_inet *state, int fd)
{
	if (state->holds &&
	    sendto(fd, state->held.held_val, state->held.held_len, MSG_MORE | MSG_DONTWAIT | MSG_NOSIGNAL,
		   (const struct sockaddr *)state->held_to.held_to_val, state->held_to.held_to_len) < 0)
		restore_note(restore, "a UDP datagram that was not sent yet is lost: %s", strerror(errno));
}
