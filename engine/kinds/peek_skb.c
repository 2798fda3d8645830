#include "engine/kinds/peek_skb.h"

#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "store/scope.h"

enum { PAGE = 4096, PAGE_STRUCT = 64, MOST_PARTS = 64 };

/*
 * Where the kernel sees a page that it names by its struct page: memory + number * 4096, with the
 * number from pages + number * 64.  Both bases are chosen at boot in steps of a gigabyte
 * (arch/x86/mm/kaslr.c) and shown to nobody.  A page of our own, in a pipe, tells when they are found.
 */
static void find_memory(struct peek_skbs *skbs)
{
	static const uint64_t step = 1ull << 30;
	struct peek_member at[] = {{"pipe_inode_info", "bufs", 0}, {"pipe_buffer", "page", 0}};
	char token[32], seen[sizeof(token)];
	int ends[2];
	if (getrandom(token, sizeof(token), 0) != sizeof(token) || pipe2(ends, O_CLOEXEC) < 0)
		return;
	cleanup_fd int reader = ends[0], writer = ends[1];
	uint64_t pipe = peek_private(skbs->peek, reader), page = 0;
	if (write(writer, token, sizeof(token)) == sizeof(token) && pipe && peek_layout(skbs->peek, at, 2))
		page = peek_word(skbs->peek, peek_word(skbs->peek, pipe, at[0].offset), at[1].offset);
	/* Devices have a hole of addresses within the memory: a few steps more. */
	uint64_t steps = (uint64_t)sysconf(_SC_PHYS_PAGES) * PAGE / step + 8;
	for (uint64_t i = 0; page && i <= steps; i++) {
		for (uint64_t j = 0; j <= steps / 64; j++) {
			uint64_t memory = (pipe & ~(step - 1)) - i * step, pages = (page & ~(step - 1)) - j * step;
			uint64_t there = memory + (page - pages) / PAGE_STRUCT * PAGE;
			if (!peek_bytes(skbs->peek, there, seen, sizeof(seen)) || memcmp(seen, token, sizeof(seen)))
				continue;
			skbs->memory = memory;
			skbs->pages = pages;
			return;
		}
	}
}

bool peek_skbs(struct peek_skbs *skbs, struct peek *peek)
{
	*skbs = (struct peek_skbs){.peek = peek, .at = {
		[SKB_QUEUE_NEXT] = {"sk_buff_head", "next", 0},
		[SKB_NEXT] = {"sk_buff", "next", 0},
		[SKB_LEN] = {"sk_buff", "len", 0},
		[SKB_DATA_LEN] = {"sk_buff", "data_len", 0},
		[SKB_DATA] = {"sk_buff", "data", 0},
		[SKB_HEAD] = {"sk_buff", "head", 0},
		[SKB_END] = {"sk_buff", "end", 0},
		[SKB_TRANSPORT] = {"sk_buff", "transport_header", 0},
		[SKB_PARTS] = {"skb_shared_info", "nr_frags", 0},
		[SKB_FIRST_PART] = {"skb_shared_info", "frags", 0},
	}};
	return peek && peek_layout(peek, skbs->at, SKB_WHERES);
}

static uint64_t word(const struct peek_skbs *skbs, uint64_t address, unsigned where)
{
	return address ? peek_word(skbs->peek, address, skbs->at[where].offset) : 0;
}

static uint32_t half(const struct peek_skbs *skbs, uint64_t address, unsigned where)
{
	return peek_half(skbs->peek, address, skbs->at[where].offset);
}

uint64_t peek_skb_first(const struct peek_skbs *skbs, uint64_t queue)
{
	return word(skbs, queue, SKB_QUEUE_NEXT);
}

uint64_t peek_skb_next(const struct peek_skbs *skbs, uint64_t skb)
{
	return word(skbs, skb, SKB_NEXT);
}

uint32_t peek_skb_size(const struct peek_skbs *skbs, uint64_t skb)
{
	return half(skbs, skb, SKB_LEN);
}

uint32_t peek_skb_transport(const struct peek_skbs *skbs, uint64_t skb)
{
	uint64_t begin = word(skbs, skb, SKB_DATA) - word(skbs, skb, SKB_HEAD);
	uint32_t header = half(skbs, skb, SKB_TRANSPORT) & 0xffff;
	return header >= begin ? header - (uint32_t)begin : UINT32_MAX;
}

/* Those in pages, behind `from` of these: skb_frag_t is a page, a length, an offset (include/linux/skbuff.h). */
static bool copy_parts(struct peek_skbs *skbs, uint64_t skb, uint32_t from, char *to, uint32_t size)
{
	uint64_t info = word(skbs, skb, SKB_HEAD) + half(skbs, skb, SKB_END);
	uint8_t n = 0;
	struct {
		uint64_t page;
		uint32_t length, offset;
	} part;
	if (!size)
		return true;
	if (!skbs->memory)
		find_memory(skbs);
	if (!skbs->memory || !peek_bytes(skbs->peek, info + skbs->at[SKB_PARTS].offset, &n, 1) || n > MOST_PARTS)
		return false;
	for (uint8_t i = 0; i < n && size; i++) {
		uint64_t at = info + skbs->at[SKB_FIRST_PART].offset + i * sizeof(part);
		if (!peek_bytes(skbs->peek, at, &part, sizeof(part)))
			return false;
		uint32_t skip = from < part.length ? from : part.length, take = part.length - skip;
		take = take < size ? take : size;
		uint64_t there = skbs->memory + (part.page - skbs->pages) / PAGE_STRUCT * PAGE + part.offset + skip;
		if (!peek_bytes(skbs->peek, there, to, take))
			return false;
		from -= skip, to += take, size -= take;
	}
	return size == 0;
}

bool peek_skb_bytes(struct peek_skbs *skbs, uint64_t skb, uint32_t from, char *to, uint32_t size)
{
	uint32_t all = half(skbs, skb, SKB_LEN), apart = half(skbs, skb, SKB_DATA_LEN), together = all - apart;
	if (apart > all || from > all || size > all - from)
		return false;
	uint32_t first = from >= together ? 0 : size < together - from ? size : together - from;
	if (first && !peek_bytes(skbs->peek, word(skbs, skb, SKB_DATA) + from, to, first))
		return false;
	uint32_t done = from + first;
	return copy_parts(skbs, skb, done > together ? done - together : 0, to + first, size - first);
}
