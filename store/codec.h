/*
 * codec.h - blocks of pages made smaller, and back.
 *
 * zstd and LZ4, each as a library. A block is one frame by itself, so that any can be read without those before
 * it. What a frame becomes is known before it is looked at: it fills exactly that, or it is refused.
 */
#ifndef STORE_CODEC_H
#define STORE_CODEC_H

#include <stdbool.h>
#include <stddef.h>

#include "store/store.h"

struct packer;

/* NULL: out of memory. One thread at a time uses it. */
struct packer *packer_new(int codec, int level);
void packer_free(struct packer *packer);

/* Compresses n bytes; 0 if they would not take `room` bytes or less. */
size_t packer_pack(struct packer *packer, void *to, size_t room, const void *from, size_t n);

struct unpacker;

struct unpacker *unpacker_new(void);
void unpacker_free(struct unpacker *unpacker);

/* Whether these bytes are a frame of exactly `size` bytes, which are at `to` then. Writes nothing behind them, allocates
 * nothing. */
bool unpacker_unpack(struct unpacker *unpacker, int codec, void *to, size_t size, const void *from, size_t n);

#endif
