/*
 * nft.h - messages to nf_tables, many in one batch. Everything in a batch happens, or nothing.
 */
#ifndef ENGINE_KINDS_NFT_H
#define ENGINE_KINDS_NFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A batch of messages under construction; memory trouble shows at its end. */
struct nft_batch {
	char *bytes;
	size_t length, room;
	uint32_t messages;
	bool failed;
};

/* A message (NFT_MSG_...) that begins here; what it returns says so at its end. */
size_t nft_message(struct nft_batch *batch, unsigned type, unsigned flags);
void nft_end_message(struct nft_batch *batch, size_t at);

/* The brackets of a batch that changes something: NFNL_MSG_BATCH_BEGIN; nft_send() closes it. */
void nft_bracket(struct nft_batch *batch, unsigned type);

/* Attributes; numbers go in network order. Those between nft_nest() and nft_end_nest() are within another. */
void nft_put(struct nft_batch *batch, unsigned type, const void *value, size_t size);
void nft_put_text(struct nft_batch *batch, unsigned type, const char *text);
void nft_put_number(struct nft_batch *batch, unsigned type, uint32_t number);
size_t nft_nest(struct nft_batch *batch, unsigned type);
void nft_end_nest(struct nft_batch *batch, size_t at);

/* A socket to it; -1 with errno set. */
int nft_open(void);

/* An errno of the first message that was refused, 0 when the last one is acknowledged. */
int nft_answer(int netlink, uint32_t last);

/* The same for all of a batch, which it closes and sends; the caller frees batch->bytes. */
int nft_send(int netlink, struct nft_batch *batch);

#endif
