/*
 * layout.h - the bytes of an image file. The table for people, the commit order and
 * the invariants are in store/README.md; this is the same in C.
 *
 *	0	struct layout_super	identity, written once per claim of the file
 *	4096	struct layout_slot	commit slot 0
 *	8192	struct layout_slot	commit slot 1
 *	12288	tables			metadata, block checksums, page index, where they fit
 *	2 MiB	page area
 *	behind	tables			where they do not fit in front
 *
 * All numbers are little-endian, which is what the one machine supported so far is.
 */
#ifndef STORE_LAYOUT_H
#define STORE_LAYOUT_H

#include <assert.h>
#include <stdint.h>

#include "store/store.h"

#define LAYOUT_MAGIC "FSNAP\r\n\x1a" /* 8 bytes; a transfer in text mode breaks it visibly */
#define LAYOUT_MACHINE 62u	     /* EM_X86_64 of <elf.h> */
#define LAYOUT_LINEAGE 1ull	     /* required feature: pages of other images are referred to */
#define LAYOUT_CODED 2ull	     /* required feature: stored compressed, or encrypted, or both */
#define LAYOUT_FEATURES (LAYOUT_LINEAGE | LAYOUT_CODED) /* required features this version knows */

#define LAYOUT_HEAD (3u * STORE_PAGE)
#define LAYOUT_TABLES LAYOUT_HEAD
#define LAYOUT_HUGE (2ull << 20) /* alignment of the page area, and of folios worth having */
#define LAYOUT_PAGES LAYOUT_HUGE
#define LAYOUT_BLOCK ((uint64_t)STORE_BLOCK_PAGES * STORE_PAGE)

/* No file is longer, so that sums of an offset and a length never wrap. */
#define LAYOUT_LIMIT (1ull << 50)

struct layout_super {
	uint8_t magic[8];
	uint32_t format;      /* IMAGE_FORMAT; checked before the checksum */
	uint32_t machine;     /* likewise */
	uint64_t required;    /* feature bits a reader must know */
	uint64_t optional;    /* feature bits it may ignore */
	uint32_t page_size;   /* STORE_PAGE */
	uint32_t block_pages; /* STORE_BLOCK_PAGES */
	uint8_t uuid[16];     /* new with every claim of the file */
	uint8_t zero[4032];
	uint64_t checksum; /* XXH3-64 of all bytes before */
};

struct layout_section {
	uint64_t offset; /* in the file */
	uint64_t length; /* bytes */
	uint64_t checksum;
};

#define LAYOUT_SEALED 3 /* tables that are encrypted as the pages are: metadata, index, hints */

/* How the pages and tables are stored; all zero: as they are. What stays readable of an encrypted image is this, the
 * superblock and the slot, the frames and the lineage: `mac` is one of all of these, under a key of the image. */
struct layout_coding {
	uint32_t codec;	     /* enum store_codec: of those frames that are compressed */
	uint32_t cipher;     /* enum store_cipher */
	uint64_t stored;     /* bytes of the page area, as the frames lie there one behind the other */
	uint32_t kdf;	     /* 0: the key is a file's; 1: Argon2id of a passphrase */
	uint32_t kdf_passes;
	uint64_t kdf_memory; /* bytes */
	uint8_t kdf_salt[16];
	uint8_t salt[32];    /* of the image's own keys */
	uint8_t tag[LAYOUT_SEALED][16];
	uint8_t check[32];   /* tells another key from damage */
	uint8_t mac[32];     /* the last */
};

/* One block of the page area, where it is coded: in place of its checksum in the table of blocks. */
struct layout_frame {
	uint32_t length; /* bytes in the page area; never more than the block has */
	uint32_t codec;	 /* 0, or the image's */
	uint64_t checksum; /* of these bytes */
	uint8_t tag[16]; /* that authenticates them, if they are encrypted */
};

struct layout_slot {
	uint64_t generation; /* 0: empty; of two valid slots the larger one counts */
	uint8_t uuid[16];    /* the superblock's: a slot of the file's former life is none */
	uint64_t created_ns; /* CLOCK_REALTIME of the commit */
	uint64_t length;     /* bytes of the file that are the image; more may follow */
	uint64_t pages_offset;
	uint64_t pages;
	uint64_t records;
	struct layout_section metadata;
	struct layout_section blocks; /* uint64_t, or struct layout_frame, per LAYOUT_BLOCK of the page area */
	struct layout_section index;  /* struct page_run, sorted */
	struct layout_section hints;  /* records that a restore can do without */
	uint64_t hint_records;
	struct layout_section lineage; /* struct layout_ancestor; length 0: it stands alone */
	struct layout_coding coding;
	uint8_t zero[3896 - sizeof(struct layout_coding)];
	uint64_t checksum; /* XXH3-64 of all bytes before */
};

/* An image whose pages another one refers to. The checksum of its slot is one of all it says, with
 * the checksums of its pages among it: nothing of it can have changed where this is the same. */
struct layout_ancestor {
	uint8_t uuid[16];
	uint64_t generation;
	uint64_t checksum; /* of the slot that counts */
	uint64_t pages;	   /* in its page area */
	char name[128];	   /* what it was called; zero-padded, ends with a zero */
};

#define LAYOUT_ANCESTORS 1024u /* most an image may have */

struct layout_head {
	struct layout_super super;
	struct layout_slot slot[2];
};

static_assert(sizeof(struct layout_super) == STORE_PAGE, "on-disk size");
static_assert(sizeof(struct layout_slot) == STORE_PAGE, "on-disk size");
static_assert(sizeof(struct layout_head) == LAYOUT_HEAD, "on-disk size");
static_assert(sizeof(struct layout_coding) == 192, "on-disk size");
static_assert(sizeof(struct layout_frame) == 32, "on-disk size");
static_assert(sizeof(struct page_run) == 24, "on-disk size");
static_assert(sizeof(struct layout_ancestor) == 168, "on-disk size");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is little-endian");

/* A record in the metadata section, each part in XDR: kind, flags, name<31>, body<>. */
#define RECORD_REQUIRED 1u
#define RECORD_NAME 31u

static inline uint64_t layout_blocks(uint64_t pages)
{
	return (pages + STORE_BLOCK_PAGES - 1) / STORE_BLOCK_PAGES;
}

/* Pages of block `block` when the page area holds `pages`. */
static inline uint64_t layout_block_pages(uint64_t block, uint64_t pages)
{
	uint64_t left = pages - block * STORE_BLOCK_PAGES;
	return left < STORE_BLOCK_PAGES ? left : STORE_BLOCK_PAGES;
}

static inline bool layout_coded(const struct layout_slot *slot)
{
	return slot->coding.codec || slot->coding.cipher;
}

/* Bytes of the file that the page area takes. */
static inline uint64_t layout_area(const struct layout_slot *slot)
{
	return layout_coded(slot) ? slot->coding.stored : slot->pages * STORE_PAGE;
}

static inline uint64_t align_up(uint64_t value, uint64_t to)
{
	return (value + to - 1) / to * to;
}

/* --- layout.c ---------------------------------------------------------------- */

/* IMAGE_CORRUPT: "image NAME: " and what is wrong, with the hint. Returns -1. */
int layout_corrupt(struct fsnap_error *err, const char *image, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

uint64_t layout_checksum(const void *bytes, uint64_t length);
void layout_seal_super(struct layout_super *super);
void layout_seal_slot(struct layout_slot *slot);

/* Checks the first `have` (at most LAYOUT_HEAD) bytes of a file of file_size bytes and finds the
 * commit that counts. Everything in *slot lies within the file after this. */
int layout_check_head(const struct layout_head *head, uint64_t have, uint64_t file_size,
		      const char *image, struct layout_slot *slot, struct fsnap_error *err);

/* NULL if the runs are sorted, apart from each other, and within `pages`; else what is wrong
 * with runs[*bad]. */
const char *layout_check_runs(const struct page_run *runs, uint64_t count, uint64_t pages,
			      uint64_t *bad);

#endif
