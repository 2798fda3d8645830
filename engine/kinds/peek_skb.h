/*
 * peek_skb.h - what lies in the queue of a socket, looked at in the kernel's memory (peek.h).
 *
 * A queue (struct sk_buff_head) is a ring of struct sk_buff, whose bytes are first at `data` and then in pages.
 */
#ifndef ENGINE_KINDS_PEEK_SKB_H
#define ENGINE_KINDS_PEEK_SKB_H

#include "engine/kinds/peek.h"

enum {
	SKB_QUEUE_NEXT, SKB_NEXT, SKB_LEN, SKB_DATA_LEN, SKB_DATA, SKB_HEAD, SKB_END, SKB_TRANSPORT, SKB_PARTS,
	SKB_FIRST_PART, SKB_WHERES,
};

struct peek_skbs {
	struct peek *peek;
	struct peek_member at[SKB_WHERES];
	uint64_t pages, memory; /* vmemmap_base, page_offset_base; 0: not looked for yet */
};

/* False: this kernel's are not known. */
bool peek_skbs(struct peek_skbs *skbs, struct peek *peek);

/* One after the other; behind the last comes the queue itself. */
uint64_t peek_skb_first(const struct peek_skbs *skbs, uint64_t queue);
uint64_t peek_skb_next(const struct peek_skbs *skbs, uint64_t skb);

uint32_t peek_skb_size(const struct peek_skbs *skbs, uint64_t skb);

/* Where in it the header of the transport layer begins; UINT32_MAX: not behind its begin. */
uint32_t peek_skb_transport(const struct peek_skbs *skbs, uint64_t skb);

/* `size` bytes of it, from `from` on. */
bool peek_skb_bytes(struct peek_skbs *skbs, uint64_t skb, uint32_t from, char *to, uint32_t size);

#endif
