/*
 * The messages are nf_tables' own (linux/netfilter/nf_tables.h). libmnl has no
 * archive in Debian 12, and a shared object would cost every start of the command
 * more than these few attributes are worth.
 */
#include "engine/kinds/tcp_hold.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "store/scope.h"

#define CHUNK 1000	   /* elements of a set in one message: an attribute ends at 64 KiB */
#define BATCH_ROOM 65536   /* of a message */
#define PRIORITY (-300)	   /* before connection tracking in the output hook, and before filters */
#define TABLE_OWNER 0x2	   /* NFT_TABLE_F_OWNER: newer than some headers */
#define REPLY_ROOM 8192

/* A batch of messages under construction; memory trouble shows at its end. */
struct batch {
	char *bytes;
	size_t length, room;
	uint32_t messages;
	bool failed;
};

static void *take(struct batch *batch, size_t size)
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

static size_t message(struct batch *batch, unsigned type, unsigned flags, unsigned family)
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

static void end_message(struct batch *batch, size_t at)
{
	if (!batch->failed)
		((struct nlmsghdr *)(batch->bytes + at))->nlmsg_len = (uint32_t)(batch->length - at);
}

static void put(struct batch *batch, unsigned type, const void *value, size_t size)
{
	struct nlattr *attribute = take(batch, NLA_HDRLEN + size);
	if (!attribute)
		return;
	attribute->nla_len = (uint16_t)(NLA_HDRLEN + size);
	attribute->nla_type = (uint16_t)type;
	if (size)
		memcpy((char *)attribute + NLA_HDRLEN, value, size);
}

static void put_text(struct batch *batch, unsigned type, const char *text)
{
	put(batch, type, text, strlen(text) + 1);
}

static void put_number(struct batch *batch, unsigned type, uint32_t number)
{
	number = htonl(number);
	put(batch, type, &number, sizeof(number));
}

static size_t nest(struct batch *batch, unsigned type)
{
	size_t at = batch->length;
	put(batch, type | NLA_F_NESTED, NULL, 0);
	return at;
}

static void end_nest(struct batch *batch, size_t at)
{
	if (!batch->failed)
		((struct nlattr *)(batch->bytes + at))->nla_len = (uint16_t)(batch->length - at);
}

static size_t table_message(struct batch *batch, unsigned type, unsigned flags)
{
	return message(batch, NFNL_SUBSYS_NFTABLES << 8 | type, flags, NFPROTO_INET);
}

static void bracket(struct batch *batch, unsigned type)
{
	size_t at = message(batch, type, 0, AF_UNSPEC);
	if (!batch->failed)
		((struct nfgenmsg *)(batch->bytes + at + NLMSG_HDRLEN))->res_id =
			htons(NFNL_SUBSYS_NFTABLES);
	end_message(batch, at);
}

/* --- what the table is made of ------------------------------------------------------- */

static void add_table(struct batch *batch, const char *name, bool passing)
{
	size_t at = table_message(batch, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL);
	put_text(batch, NFTA_TABLE_NAME, name);
	put_number(batch, NFTA_TABLE_FLAGS, passing ? TABLE_OWNER : 0);
	end_message(batch, at);
}

/* Keys: our address, our port, the other's address, the other's port, each in whole registers. */
static const char *set_name(bool v6)
{
	return v6 ? "connections6" : "connections4";
}

static uint32_t key_size(bool v6)
{
	return v6 ? 16 + 4 + 16 + 4 : 4 + 4 + 4 + 4;
}

/* The type is for people only: ip address . service . address . service, as nft(8) numbers them. */
static void add_set(struct batch *batch, const char *table, bool v6)
{
	uint32_t address = v6 ? 8 : 7, service = 13;
	size_t at = table_message(batch, NFT_MSG_NEWSET, NLM_F_CREATE);
	put_text(batch, NFTA_SET_TABLE, table);
	put_text(batch, NFTA_SET_NAME, set_name(v6));
	put_number(batch, NFTA_SET_FLAGS, 0);
	put_number(batch, NFTA_SET_KEY_TYPE, address << 18 | service << 12 | address << 6 | service);
	put_number(batch, NFTA_SET_KEY_LEN, key_size(v6));
	put_number(batch, NFTA_SET_ID, v6 ? 2 : 1);
	end_message(batch, at);
}

static void add_chain(struct batch *batch, const char *table, const char *name, unsigned hook)
{
	size_t at = table_message(batch, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	put_text(batch, NFTA_CHAIN_TABLE, table);
	put_text(batch, NFTA_CHAIN_NAME, name);
	size_t inner = nest(batch, NFTA_CHAIN_HOOK);
	put_number(batch, NFTA_HOOK_HOOKNUM, hook);
	put_number(batch, NFTA_HOOK_PRIORITY, (uint32_t)PRIORITY);
	end_nest(batch, inner);
	put_text(batch, NFTA_CHAIN_TYPE, "filter");
	end_message(batch, at);
}

struct expression {
	size_t element, data;
};

static struct expression expression(struct batch *batch, const char *name)
{
	struct expression e = { .element = nest(batch, NFTA_LIST_ELEM) };
	put_text(batch, NFTA_EXPR_NAME, name);
	e.data = nest(batch, NFTA_EXPR_DATA);
	return e;
}

static void end_expression(struct batch *batch, struct expression e)
{
	end_nest(batch, e.data);
	end_nest(batch, e.element);
}

static void load_meta(struct batch *batch, uint32_t key)
{
	struct expression e = expression(batch, "meta");
	put_number(batch, NFTA_META_DREG, NFT_REG_1);
	put_number(batch, NFTA_META_KEY, key);
	end_expression(batch, e);
}

static void compare(struct batch *batch, uint32_t operation, const void *value, size_t size)
{
	struct expression e = expression(batch, "cmp");
	put_number(batch, NFTA_CMP_SREG, NFT_REG_1);
	put_number(batch, NFTA_CMP_OP, operation);
	size_t data = nest(batch, NFTA_CMP_DATA);
	put(batch, NFTA_DATA_VALUE, value, size);
	end_nest(batch, data);
	end_expression(batch, e);
}

static void load_payload(struct batch *batch, uint32_t base, uint32_t offset, uint32_t size,
			 uint32_t *reg)
{
	struct expression e = expression(batch, "payload");
	put_number(batch, NFTA_PAYLOAD_DREG, *reg);
	put_number(batch, NFTA_PAYLOAD_BASE, base);
	put_number(batch, NFTA_PAYLOAD_OFFSET, offset);
	put_number(batch, NFTA_PAYLOAD_LEN, size);
	end_expression(batch, e);
	*reg += (size + 3) / 4;
}

/* Source and destination change places between what comes in and what goes out. */
static void load_ends(struct batch *batch, bool v6, bool incoming)
{
	uint32_t reg = NFT_REG32_00, size = v6 ? 16 : 4;
	uint32_t source = v6 ? 8 : 12, destination = v6 ? 24 : 16;
	load_payload(batch, NFT_PAYLOAD_NETWORK_HEADER, incoming ? destination : source, size, &reg);
	load_payload(batch, NFT_PAYLOAD_TRANSPORT_HEADER, incoming ? 2 : 0, 2, &reg);
	load_payload(batch, NFT_PAYLOAD_NETWORK_HEADER, incoming ? source : destination, size, &reg);
	load_payload(batch, NFT_PAYLOAD_TRANSPORT_HEADER, incoming ? 0 : 2, 2, &reg);
}

static void look_up(struct batch *batch, bool v6)
{
	struct expression e = expression(batch, "lookup");
	put_text(batch, NFTA_LOOKUP_SET, set_name(v6));
	put_number(batch, NFTA_LOOKUP_SET_ID, v6 ? 2 : 1);
	put_number(batch, NFTA_LOOKUP_SREG, NFT_REG32_00);
	end_expression(batch, e);
}

static void drop(struct batch *batch)
{
	struct expression e = expression(batch, "immediate");
	put_number(batch, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	size_t data = nest(batch, NFTA_IMMEDIATE_DATA), verdict = nest(batch, NFTA_DATA_VERDICT);
	put_number(batch, NFTA_VERDICT_CODE, NF_DROP);
	end_nest(batch, verdict);
	end_nest(batch, data);
	end_expression(batch, e);
}

/* meta nfproto ip, meta l4proto tcp, meta mark != PASS, saddr . sport . daddr . dport @set, drop */
static void add_rule(struct batch *batch, const char *table, const char *chain, bool v6,
		     bool incoming)
{
	uint8_t family = v6 ? NFPROTO_IPV6 : NFPROTO_IPV4, tcp = IPPROTO_TCP;
	uint32_t mark = TCP_HOLD_PASS;
	size_t at = table_message(batch, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
	put_text(batch, NFTA_RULE_TABLE, table);
	put_text(batch, NFTA_RULE_CHAIN, chain);
	size_t list = nest(batch, NFTA_RULE_EXPRESSIONS);
	load_meta(batch, NFT_META_NFPROTO);
	compare(batch, NFT_CMP_EQ, &family, sizeof(family));
	load_meta(batch, NFT_META_L4PROTO);
	compare(batch, NFT_CMP_EQ, &tcp, sizeof(tcp));
	load_meta(batch, NFT_META_MARK);
	compare(batch, NFT_CMP_NEQ, &mark, sizeof(mark));
	load_ends(batch, v6, incoming);
	look_up(batch, v6);
	drop(batch);
	end_nest(batch, list);
	end_message(batch, at);
}

static void add_element(struct batch *batch, const struct tcp_ends *ends)
{
	uint8_t key[40] = { 0 };
	size_t size = ends->v6 ? 16 : 4;
	memcpy(key, ends->local, size);
	memcpy(key + size, &ends->local_port, 2);
	memcpy(key + size + 4, ends->remote, size);
	memcpy(key + 2 * size + 4, &ends->remote_port, 2);
	size_t element = nest(batch, NFTA_LIST_ELEM), value = nest(batch, NFTA_SET_ELEM_KEY);
	put(batch, NFTA_DATA_VALUE, key, key_size(ends->v6));
	end_nest(batch, value);
	end_nest(batch, element);
}

static void add_elements(struct batch *batch, const char *table, bool v6,
			 const struct tcp_ends *ends, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t count = 0;
		size_t at = table_message(batch, NFT_MSG_NEWSETELEM, NLM_F_CREATE);
		put_text(batch, NFTA_SET_ELEM_LIST_TABLE, table);
		put_text(batch, NFTA_SET_ELEM_LIST_SET, set_name(v6));
		size_t list = nest(batch, NFTA_SET_ELEM_LIST_ELEMENTS);
		for (; i < n && count < CHUNK; i++)
			if (ends[i].v6 == v6) {
				add_element(batch, &ends[i]);
				count++;
			}
		end_nest(batch, list);
		end_message(batch, at);
	}
}

/* --- asking the kernel ----------------------------------------------------------------- */

static int open_netlink(void)
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
static int answer(int netlink, uint32_t last)
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
static int send_batch(int netlink, struct batch *batch)
{
	uint32_t last = batch->messages;
	size_t at = 0;
	for (struct nlmsghdr *header = NULL; !batch->failed && at < batch->length;
	     at += NLMSG_ALIGN(header->nlmsg_len)) {
		header = (void *)(batch->bytes + at);
		if (header->nlmsg_seq == last)
			header->nlmsg_flags |= NLM_F_ACK;
	}
	bracket(batch, NFNL_MSG_BATCH_END);
	if (batch->failed)
		return ENOMEM;
	if (send(netlink, batch->bytes, batch->length, 0) < 0)
		return errno;
	return answer(netlink, last);
}

static int cannot_hold(int sys, struct fsnap_error *err)
{
	fail(err, sys == EPERM || sys == EACCES ? FSNAP_E_PERMISSION : FSNAP_E_SYSTEM, sys,
	     "packets of TCP connections cannot be held back with nftables");
	return error_hint(err, "Use --tcp reset, or run as root on a kernel with nf_tables.");
}

int tcp_hold_more(int hold, const char *name, const struct tcp_ends *ends, size_t n,
		  struct fsnap_error *err)
{
	struct batch batch = { 0 };
	bracket(&batch, NFNL_MSG_BATCH_BEGIN);
	add_elements(&batch, name, false, ends, n);
	add_elements(&batch, name, true, ends, n);
	int sys = send_batch(hold, &batch);
	free(batch.bytes);
	return sys ? cannot_hold(sys, err) : 0;
}

int tcp_hold(const char *name, bool passing, const struct tcp_ends *ends, size_t n,
	     struct fsnap_error *err)
{
	struct batch batch = { 0 };
	cleanup_fd int netlink = open_netlink();
	bracket(&batch, NFNL_MSG_BATCH_BEGIN);
	add_table(&batch, name, passing);
	for (int v6 = 0; v6 < 2; v6++)
		add_set(&batch, name, v6);
	add_chain(&batch, name, "incoming", NF_INET_LOCAL_IN);
	add_chain(&batch, name, "outgoing", NF_INET_LOCAL_OUT);
	for (int v6 = 0; v6 < 2; v6++) {
		add_rule(&batch, name, "incoming", v6, true);
		add_rule(&batch, name, "outgoing", v6, false);
		add_elements(&batch, name, v6, ends, n);
	}
	int sys = netlink < 0 ? errno : send_batch(netlink, &batch);
	free(batch.bytes);
	return sys ? cannot_hold(sys, err) : steal_fd(&netlink);
}

static int remove_table(const char *name)
{
	struct batch batch = { 0 };
	cleanup_fd int netlink = open_netlink();
	bracket(&batch, NFNL_MSG_BATCH_BEGIN);
	size_t at = table_message(&batch, NFT_MSG_DELTABLE, 0);
	put_text(&batch, NFTA_TABLE_NAME, name);
	end_message(&batch, at);
	int sys = netlink < 0 ? errno : send_batch(netlink, &batch);
	free(batch.bytes);
	return sys;
}

int tcp_hold_remove(const char *name, struct fsnap_error *err)
{
	int sys = remove_table(name);
	if (!sys || sys == ENOENT)
		return 0;
	fail(err, FSNAP_E_SYSTEM, sys, "removing the table %s of nftables", name);
	return error_hint(err, "nft delete table inet %s", name);
}

bool tcp_hold_stands(const char *name)
{
	struct batch batch = { 0 };
	cleanup_fd int netlink = open_netlink();
	size_t at = table_message(&batch, NFT_MSG_GETTABLE, 0);
	put_text(&batch, NFTA_TABLE_NAME, name);
	end_message(&batch, at);
	bool stands = netlink >= 0 && !batch.failed &&
		      send(netlink, batch.bytes, batch.length, 0) > 0 &&
		      answer(netlink, batch.messages) == 0;
	free(batch.bytes);
	return stands;
}
