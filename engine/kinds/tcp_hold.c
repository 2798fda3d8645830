/*
 * A table of nf_tables with the connections whose packets are dropped, in and out.
 */
#include "engine/kinds/tcp_hold.h"

#include <errno.h>
#include <netinet/in.h> /* before linux/in.h */
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/kinds/nft.h"
#include "store/scope.h"

#define CHUNK 1000	   /* elements of a set in one message: an attribute ends at 64 KiB */
#define PRIORITY (-300)	   /* before connection tracking in the output hook, and before filters */
#define TABLE_OWNER 0x2	   /* NFT_TABLE_F_OWNER: newer than some headers */

/* --- what the table is made of ------------------------------------------------------- */

static void add_table(struct nft_batch *batch, const char *name, bool passing)
{
	size_t at = nft_message(batch, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL);
	nft_put_text(batch, NFTA_TABLE_NAME, name);
	nft_put_number(batch, NFTA_TABLE_FLAGS, passing ? TABLE_OWNER : 0);
	nft_end_message(batch, at);
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
static void add_set(struct nft_batch *batch, const char *table, bool v6)
{
	uint32_t address = v6 ? 8 : 7, service = 13;
	size_t at = nft_message(batch, NFT_MSG_NEWSET, NLM_F_CREATE);
	nft_put_text(batch, NFTA_SET_TABLE, table);
	nft_put_text(batch, NFTA_SET_NAME, set_name(v6));
	nft_put_number(batch, NFTA_SET_FLAGS, 0);
	nft_put_number(batch, NFTA_SET_KEY_TYPE, address << 18 | service << 12 | address << 6 | service);
	nft_put_number(batch, NFTA_SET_KEY_LEN, key_size(v6));
	nft_put_number(batch, NFTA_SET_ID, v6 ? 2 : 1);
	nft_end_message(batch, at);
}

static void add_chain(struct nft_batch *batch, const char *table, const char *name, unsigned hook)
{
	size_t at = nft_message(batch, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	nft_put_text(batch, NFTA_CHAIN_TABLE, table);
	nft_put_text(batch, NFTA_CHAIN_NAME, name);
	size_t inner = nft_nest(batch, NFTA_CHAIN_HOOK);
	nft_put_number(batch, NFTA_HOOK_HOOKNUM, hook);
	nft_put_number(batch, NFTA_HOOK_PRIORITY, (uint32_t)PRIORITY);
	nft_end_nest(batch, inner);
	nft_put_text(batch, NFTA_CHAIN_TYPE, "filter");
	nft_end_message(batch, at);
}

struct expression {
	size_t element, data;
};

static struct expression expression(struct nft_batch *batch, const char *name)
{
	struct expression e = { .element = nft_nest(batch, NFTA_LIST_ELEM) };
	nft_put_text(batch, NFTA_EXPR_NAME, name);
	e.data = nft_nest(batch, NFTA_EXPR_DATA);
	return e;
}

static void end_expression(struct nft_batch *batch, struct expression e)
{
	nft_end_nest(batch, e.data);
	nft_end_nest(batch, e.element);
}

static void load_meta(struct nft_batch *batch, uint32_t key)
{
	struct expression e = expression(batch, "meta");
	nft_put_number(batch, NFTA_META_DREG, NFT_REG_1);
	nft_put_number(batch, NFTA_META_KEY, key);
	end_expression(batch, e);
}

static void compare(struct nft_batch *batch, uint32_t operation, const void *value, size_t size)
{
	struct expression e = expression(batch, "cmp");
	nft_put_number(batch, NFTA_CMP_SREG, NFT_REG_1);
	nft_put_number(batch, NFTA_CMP_OP, operation);
	size_t data = nft_nest(batch, NFTA_CMP_DATA);
	nft_put(batch, NFTA_DATA_VALUE, value, size);
	nft_end_nest(batch, data);
	end_expression(batch, e);
}

static void load_payload(struct nft_batch *batch, uint32_t base, uint32_t offset, uint32_t size,
			 uint32_t *reg)
{
	struct expression e = expression(batch, "payload");
	nft_put_number(batch, NFTA_PAYLOAD_DREG, *reg);
	nft_put_number(batch, NFTA_PAYLOAD_BASE, base);
	nft_put_number(batch, NFTA_PAYLOAD_OFFSET, offset);
	nft_put_number(batch, NFTA_PAYLOAD_LEN, size);
	end_expression(batch, e);
	*reg += (size + 3) / 4;
}

/* Source and destination change places between what comes in and what goes out. */
static void load_ends(struct nft_batch *batch, bool v6, bool incoming)
{
	uint32_t reg = NFT_REG32_00, size = v6 ? 16 : 4;
	uint32_t source = v6 ? 8 : 12, destination = v6 ? 24 : 16;
	load_payload(batch, NFT_PAYLOAD_NETWORK_HEADER, incoming ? destination : source, size, &reg);
	load_payload(batch, NFT_PAYLOAD_TRANSPORT_HEADER, incoming ? 2 : 0, 2, &reg);
	load_payload(batch, NFT_PAYLOAD_NETWORK_HEADER, incoming ? source : destination, size, &reg);
	load_payload(batch, NFT_PAYLOAD_TRANSPORT_HEADER, incoming ? 0 : 2, 2, &reg);
}

static void look_up(struct nft_batch *batch, bool v6)
{
	struct expression e = expression(batch, "lookup");
	nft_put_text(batch, NFTA_LOOKUP_SET, set_name(v6));
	nft_put_number(batch, NFTA_LOOKUP_SET_ID, v6 ? 2 : 1);
	nft_put_number(batch, NFTA_LOOKUP_SREG, NFT_REG32_00);
	end_expression(batch, e);
}

static void drop(struct nft_batch *batch)
{
	struct expression e = expression(batch, "immediate");
	nft_put_number(batch, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	size_t data = nft_nest(batch, NFTA_IMMEDIATE_DATA), verdict = nft_nest(batch, NFTA_DATA_VERDICT);
	nft_put_number(batch, NFTA_VERDICT_CODE, NF_DROP);
	nft_end_nest(batch, verdict);
	nft_end_nest(batch, data);
	end_expression(batch, e);
}

struct rule {
	size_t message, list;
};

/* meta nfproto ip (0: any), meta l4proto tcp, meta mark != PASS */
static struct rule rule(struct nft_batch *batch, const char *table, const char *chain, uint8_t family)
{
	uint8_t tcp = IPPROTO_TCP;
	uint32_t mark = TCP_HOLD_PASS;
	struct rule rule = { .message = nft_message(batch, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND) };
	nft_put_text(batch, NFTA_RULE_TABLE, table);
	nft_put_text(batch, NFTA_RULE_CHAIN, chain);
	rule.list = nft_nest(batch, NFTA_RULE_EXPRESSIONS);
	if (family) {
		load_meta(batch, NFT_META_NFPROTO);
		compare(batch, NFT_CMP_EQ, &family, sizeof(family));
	}
	load_meta(batch, NFT_META_L4PROTO);
	compare(batch, NFT_CMP_EQ, &tcp, sizeof(tcp));
	load_meta(batch, NFT_META_MARK);
	compare(batch, NFT_CMP_NEQ, &mark, sizeof(mark));
	return rule;
}

static void end_rule(struct nft_batch *batch, struct rule rule)
{
	drop(batch);
	nft_end_nest(batch, rule.list);
	nft_end_message(batch, rule.message);
}

/* saddr . sport . daddr . dport @set, drop */
static void add_rule(struct nft_batch *batch, const char *table, const char *chain, bool v6,
		     bool incoming)
{
	struct rule one = rule(batch, table, chain, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
	load_ends(batch, v6, incoming);
	look_up(batch, v6);
	end_rule(batch, one);
}

static void load_one(struct nft_batch *batch, uint32_t base, uint32_t offset, uint32_t size)
{
	uint32_t reg = NFT_REG_1;
	load_payload(batch, base, offset, size, &reg);
}

/* The bits of `kept` in the byte of NFT_REG_1. */
static void mask(struct nft_batch *batch, uint8_t kept)
{
	const uint8_t none = 0;
	struct expression e = expression(batch, "bitwise");
	nft_put_number(batch, NFTA_BITWISE_SREG, NFT_REG_1);
	nft_put_number(batch, NFTA_BITWISE_DREG, NFT_REG_1);
	nft_put_number(batch, NFTA_BITWISE_LEN, 1);
	size_t data = nft_nest(batch, NFTA_BITWISE_MASK);
	nft_put(batch, NFTA_DATA_VALUE, &kept, 1);
	nft_end_nest(batch, data);
	data = nft_nest(batch, NFTA_BITWISE_XOR);
	nft_put(batch, NFTA_DATA_VALUE, &none, 1);
	nft_end_nest(batch, data);
	end_expression(batch, e);
}

/* dport, daddr, tcp flags & (fin | syn | rst | ack) == syn, drop */
static void add_door(struct nft_batch *batch, const char *table, const struct tcp_door *door)
{
	const uint8_t syn = 0x02, beginning = 0x17;
	struct rule one = rule(batch, table, "incoming", door->both ? 0 : door->v6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
	load_one(batch, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2);
	compare(batch, NFT_CMP_EQ, &door->port, sizeof(door->port));
	if (!door->any) {
		load_one(batch, NFT_PAYLOAD_NETWORK_HEADER, door->v6 ? 24 : 16, door->v6 ? 16 : 4);
		compare(batch, NFT_CMP_EQ, door->address, door->v6 ? 16 : 4);
	}
	load_one(batch, NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1);
	mask(batch, beginning);
	compare(batch, NFT_CMP_EQ, &syn, 1);
	end_rule(batch, one);
}

static void add_element(struct nft_batch *batch, const struct tcp_ends *ends)
{
	uint8_t key[40] = { 0 };
	size_t size = ends->v6 ? 16 : 4;
	memcpy(key, ends->local, size);
	memcpy(key + size, &ends->local_port, 2);
	memcpy(key + size + 4, ends->remote, size);
	memcpy(key + 2 * size + 4, &ends->remote_port, 2);
	size_t element = nft_nest(batch, NFTA_LIST_ELEM), value = nft_nest(batch, NFTA_SET_ELEM_KEY);
	nft_put(batch, NFTA_DATA_VALUE, key, key_size(ends->v6));
	nft_end_nest(batch, value);
	nft_end_nest(batch, element);
}

static void add_elements(struct nft_batch *batch, const char *table, bool v6,
			 const struct tcp_ends *ends, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t count = 0;
		size_t at = nft_message(batch, NFT_MSG_NEWSETELEM, NLM_F_CREATE);
		nft_put_text(batch, NFTA_SET_ELEM_LIST_TABLE, table);
		nft_put_text(batch, NFTA_SET_ELEM_LIST_SET, set_name(v6));
		size_t list = nft_nest(batch, NFTA_SET_ELEM_LIST_ELEMENTS);
		for (; i < n && count < CHUNK; i++)
			if (ends[i].v6 == v6) {
				add_element(batch, &ends[i]);
				count++;
			}
		nft_end_nest(batch, list);
		nft_end_message(batch, at);
	}
}

/* --- the table, made and removed -------------------------------------------------------- */

static int cannot_hold(int sys, struct fsnap_error *err)
{
	fail(err, sys == EPERM || sys == EACCES ? FSNAP_E_PERMISSION : FSNAP_E_SYSTEM, sys,
	     "packets of TCP connections cannot be held back with nftables");
	return error_hint(err, "Use --tcp reset, or run as root on a kernel with nf_tables.");
}

int tcp_hold_more(int hold, const char *name, const struct tcp_ends *ends, size_t n,
		  struct fsnap_error *err)
{
	struct nft_batch batch = { 0 };
	nft_bracket(&batch, NFNL_MSG_BATCH_BEGIN);
	add_elements(&batch, name, false, ends, n);
	add_elements(&batch, name, true, ends, n);
	int sys = nft_send(hold, &batch);
	free(batch.bytes);
	return sys ? cannot_hold(sys, err) : 0;
}

int tcp_hold_calls(int hold, const char *name, const struct tcp_door *doors, size_t n, struct fsnap_error *err)
{
	struct nft_batch batch = { 0 };
	nft_bracket(&batch, NFNL_MSG_BATCH_BEGIN);
	for (size_t i = 0; i < n; i++)
		add_door(&batch, name, &doors[i]);
	int sys = nft_send(hold, &batch);
	free(batch.bytes);
	return sys ? cannot_hold(sys, err) : 0;
}

int tcp_hold(const char *name, bool passing, const struct tcp_ends *ends, size_t n,
	     struct fsnap_error *err)
{
	struct nft_batch batch = { 0 };
	cleanup_fd int netlink = nft_open();
	nft_bracket(&batch, NFNL_MSG_BATCH_BEGIN);
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
	int sys = netlink < 0 ? errno : nft_send(netlink, &batch);
	free(batch.bytes);
	return sys ? cannot_hold(sys, err) : steal_fd(&netlink);
}

static int remove_table(const char *name)
{
	struct nft_batch batch = { 0 };
	cleanup_fd int netlink = nft_open();
	nft_bracket(&batch, NFNL_MSG_BATCH_BEGIN);
	size_t at = nft_message(&batch, NFT_MSG_DELTABLE, 0);
	nft_put_text(&batch, NFTA_TABLE_NAME, name);
	nft_end_message(&batch, at);
	int sys = netlink < 0 ? errno : nft_send(netlink, &batch);
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
	struct nft_batch batch = { 0 };
	cleanup_fd int netlink = nft_open();
	size_t at = nft_message(&batch, NFT_MSG_GETTABLE, 0);
	nft_put_text(&batch, NFTA_TABLE_NAME, name);
	nft_end_message(&batch, at);
	bool stands = netlink >= 0 && !batch.failed &&
		      send(netlink, batch.bytes, batch.length, 0) > 0 &&
		      nft_answer(netlink, batch.messages) == 0;
	free(batch.bytes);
	return stands;
}
