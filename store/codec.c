#define _GNU_SOURCE
#include "store/codec.h"

#include <limits.h>
#include <lz4.h>
#include <lz4hc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define LZ4_HIGH 3 /* from this level on, as in lz4(1), another compressor of the same format */

struct packer {
	int codec, level;
	ZSTD_CCtx *zstd;
};

struct unpacker {
	ZSTD_DCtx *zstd;
};

/* --- what is asked for --------------------------------------------------------------------- */

static const struct {
	const char *name;
	int codec, level, least, most;
} codecs[] = { { "zstd", STORE_ZSTD, 1, -100, 22 }, { "lz4", STORE_LZ4, 1, 1, LZ4HC_CLEVEL_MAX } };

static int no_codec(const char *text, struct fsnap_error *err)
{
	fail(err, FSNAP_E_USAGE, 0, "%s is no way of compressing", text);
	return error_hint(err, "zstd or lz4, with a level if need be: zstd:9, lz4:1");
}

int store_coding_compress(struct store_coding *coding, const char *text, struct fsnap_error *err)
{
	for (size_t i = 0; i < sizeof(codecs) / sizeof(codecs[0]); i++) {
		size_t n = strlen(codecs[i].name);
		char *end = NULL;
		if (strncmp(text, codecs[i].name, n) != 0 || (text[n] && text[n] != ':'))
			continue;
		long level = text[n] ? strtol(text + n + 1, &end, 10) : codecs[i].level;
		if ((end && (*end || end == text + n + 1)) || level < codecs[i].least || level > codecs[i].most)
			break;
		coding->codec = codecs[i].codec;
		coding->level = (int)level;
		return 0;
	}
	return no_codec(text, err);
}

const char *store_codec_name(int codec)
{
	return codec == STORE_ZSTD ? "zstd" : codec == STORE_LZ4 ? "lz4" : "";
}

/* --- packing -------------------------------------------------------------------------------- */

struct packer *packer_new(int codec, int level)
{
	struct packer *packer = calloc(1, sizeof(*packer));
	if (!packer)
		return NULL;
	packer->codec = codec;
	packer->level = level;
	if (codec == STORE_ZSTD && !(packer->zstd = ZSTD_createCCtx())) {
		free(packer);
		return NULL;
	}
	return packer;
}

void packer_free(struct packer *packer)
{
	if (!packer)
		return;
	ZSTD_freeCCtx(packer->zstd);
	free(packer);
}

size_t packer_pack(struct packer *packer, void *to, size_t room, const void *from, size_t n)
{
	if (packer->codec == STORE_ZSTD) {
		size_t length = ZSTD_compressCCtx(packer->zstd, to, room, from, n, packer->level);
		return ZSTD_isError(length) ? 0 : length;
	}
	if (packer->codec != STORE_LZ4 || n > INT_MAX || room > INT_MAX)
		return 0;
	int length = packer->level < LZ4_HIGH ? LZ4_compress_default(from, to, (int)n, (int)room) :
						LZ4_compress_HC(from, to, (int)n, (int)room, packer->level);
	return length > 0 ? (size_t)length : 0;
}

/* --- unpacking -------------------------------------------------------------------------------- */

struct unpacker *unpacker_new(void)
{
	struct unpacker *unpacker = calloc(1, sizeof(*unpacker));
	if (unpacker && !(unpacker->zstd = ZSTD_createDCtx())) {
		free(unpacker);
		return NULL;
	}
	return unpacker;
}

void unpacker_free(struct unpacker *unpacker)
{
	if (!unpacker)
		return;
	ZSTD_freeDCtx(unpacker->zstd);
	free(unpacker);
}

/* ZSTD_decompressDCtx() takes several frames one behind the other, and skippable ones: what counts is that they fill
 * the block. Its window is never more than the room there is, as all of it is given at once. */
bool unpacker_unpack(struct unpacker *unpacker, int codec, void *to, size_t size, const void *from, size_t n)
{
	if (codec == STORE_ZSTD)
		return ZSTD_decompressDCtx(unpacker->zstd, to, size, from, n) == size;
	if (codec != STORE_LZ4 || n > INT_MAX || size > INT_MAX)
		return false;
	return LZ4_decompress_safe(from, to, (int)n, (int)size) == (int)size;
}
