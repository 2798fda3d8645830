/*
 * The messages are nf_tables' own (linux/netfilter/nf_tables.h). libmnl has no
 * archive in Debian 12, and a shared object would cost every start of the command
 * more than these few attributes are worth.
 */
#include "engine/kinds/nft.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REPLY_ROOM 8192

static void *take(struct nft_batch *batch, size_t size)
{
	size_t aligned = NLMSG_ALIGN(size);
	if (!batch->failed && batch->length + aligned > batch->room) {
		size_t room = (batch->length + aligned) * 2 + 4096;
		char *moved = realloc(batch->bytes, room);
		batch->failed = !moved;
		if (moved) {
			batch->bytes = moved;
			batch->room = room;
		}
	}
	if (batch->failed)
		return NULL;
	void *at = batch->bytes + batch->length;
	memset(at, 0, aligned);
	batch->length += aligned;
	return at;
}

static size_t message(struct nft_batch *batch, unsigned type, unsigned flags, unsigned family)
{
	size_t at = batch->length;
	struct {
		struct nlmsghdr header;
		struct nfgenmsg family;
	} *start = take(batch, sizeof(*start));
	if (start) {
		start->header.nlmsg_type = (uint16_t)type;
		start->header.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
		start->header.nlmsg_seq = ++batch->messages;
		start->family.nfgen_family = (uint8_t)family;
		start->family.version = NFNETLINK_V0;
	}
	return at;
}

void nft_end_message(struct nft_batch *batch, size_t at)
{
	if (!batch->failed)
		((struct nlmsghdr *)(batch->bytes + at))->nlmsg_len = (uint32_t)(batch->length - at);
}

void nft_put(struct nft_batch *batch, unsigned type, const void *value, size_t size)
{
	struct nlattr *attribute = take(batch, NLA_HDRLEN + size);
	if (!attribute)
		return;
	attribute->nla_len = (uint16_t)(NLA_HDRLEN + size);
	attribute->nla_type = (uint16_t)type;
	if (size)
		memcpy((char *)attribute + NLA_HDRLEN, value, size);
}

void nft_put_text(struct nft_batch *batch, unsigned type, const char *text)
{
	nft_put(batch, type, text, strlen(text) + 1);
}

void nft_put_number(struct nft_batch *batch, unsigned type, uint32_t number)
{
	number = htonl(number);
	nft_put(batch, type, &number, sizeof(number));
}

size_t nft_nest(struct nft_batch *batch, unsigned type)
{
	size_t at = batch->length;
	nft_put(batch, type | NLA_F_NESTED, NULL, 0);
	return at;
}

void nft_end_nest(struct nft_batch *batch, size_t at)
{
	if (!batch->failed)
		((struct nlattr *)(batch->bytes + at))->nla_len = (uint16_t)(batch->length - at);
}

size_t nft_message(struct nft_batch *batch, unsigned type, unsigned flags)
{
	return message(batch, NFNL_SUBSYS_NFTABLES << 8 | type, flags, NFPROTO_INET);
}

void nft_bracket(struct nft_batch *batch, unsigned type)
{
	size_t at = message(batch, type, 0, AF_UNSPEC);
	if (!batch->failed)
		((struct nfgenmsg *)(batch->bytes + at + NLMSG_HDRLEN))->res_id =
			htons(NFNL_SUBSYS_NFTABLES);
	nft_end_message(batch, at);
}

/* --- asking the kernel ----------------------------------------------------------------- */

int nft_open(void)
{
	int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	int room = 64 << 20;
	if (netlink < 0)
		return -1;
	setsockopt(netlink, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	setsockopt(netlink, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	if (bind(netlink, (struct sockaddr *)&kernel, sizeof(kernel)) < 0 ||
	    connect(netlink, (struct sockaddr *)&kernel, sizeof(kernel)) < 0) {
		close(netlink);
		return -1;
	}
	return netlink;
}

/* An errno of the first message that was refused, 0 when the last one is acknowledged. */
int nft_answer(int netlink, uint32_t last)
{
	_Alignas(struct nlmsghdr) char reply[REPLY_ROOM];
	for (;;) {
		ssize_t size = recv(netlink, reply, sizeof(reply), 0);
		if (size < 0)
			return errno;
		for (struct nlmsghdr *at = (void *)reply; NLMSG_OK(at, size); at = NLMSG_NEXT(at, size)) {
			const struct nlmsgerr *error = NLMSG_DATA(at);
			if (at->nlmsg_type != NLMSG_ERROR)
				return 0; /* what was asked for */
			if (error->error)
				return -error->error;
			if (at->nlmsg_seq == last)
				return 0;
		}
	}
}

/* The message before the closing bracket asks for the acknowledgement of all. */
int nft_send(int netlink, struct nft_batch *batch)
{
	uint32_t last = batch->messages;
	size_t at = 0;
	for (struct nlmsghdr *header = NULL; !batch->failed && at < batch->length;
	     at += NLMSG_ALIGN(header->nlmsg_len)) {
		header = (void *)(batch->bytes + at);
		if (header->nlmsg_seq == last)
			header->nlmsg_flags |= NLM_F_ACK;
	}
	nft_bracket(batch, NFNL_MSG_BATCH_END);
	if (batch->failed)
		return ENOMEM;
	if (send(netlink, batch->bytes, batch->length, 0) < 0)
		return errno;
	return nft_answer(netlink, last);
}
