/*
 * store.h - a directory of images, and one image as a file.
 *
 * The store knows nothing of processes: it keeps records (declared in image.x),
 * pages, and an index that says which page of which *space* lies where.  A space
 * is anything with pages: an address space, shared memory, a deleted file.
 *
 *	DIR/images/NAME.fsnap	committed images
 *	DIR/ancestors/UUID.fsnap  images that others build on, named or not
 *	DIR/pool/...		space of removed images, kept for the next dump
 *	DIR/tmp/...		images being written; an unlocked one is left-over and goes to the pool
 *
 * File layout, commit order and its invariants: store/README.md.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <rpc/xdr.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "image.h"
#include "store/error.h"

#define STORE_PAGE 4096u
#define STORE_BLOCK_PAGES 256u /* pages under one checksum: 1 MiB */

/* npages pages of `space`, from its page `page` on, lie at page `at` of the image's page area.
 * The on-disk form of the index, little-endian, sorted by (space, page), not overlapping. */
struct page_run {
	uint64_t page;	 /* address or file offset / STORE_PAGE */
	uint64_t at;	 /* several runs may name the same `at`: frames shared copy-on-write */
	uint32_t npages; /* > 0 */
	uint32_t space;
};

/* --- the directory --------------------------------------------------------- */

struct store;

enum store_mode { STORE_READ, STORE_WRITE /* creates the directory where missing, 0700 */ };

struct store *store_open(const char *dir, enum store_mode mode, struct fsnap_error *err);
void store_close(struct store *store);

/* What the images of this store are encrypted with: a file of `fsnap keygen --secret`, or "passphrase:FILE", the first
 * line of one. Else $FSNAP_KEY says so. It is looked at when it is needed. */
int store_set_key(struct store *store, const char *source, struct fsnap_error *err);
/* The same as that of another one, which stays open for longer: what a passphrase becomes is computed once. */
void store_borrow_key(struct store *store, struct store *from);
const char *store_path(const struct store *store);

/* What the catalogue knows of one image; read from its superblock and tree record. */
struct store_entry {
	char name[128];
	uint64_t created_ns;  /* CLOCK_REALTIME */
	uint64_t file_bytes;
	uint64_t page_bytes;
	int codec, cipher;    /* enum store_codec, store_cipher */
	struct fsnap_error damage; /* code != 0: it cannot be opened, and why */
};

/* All images, newest first, damaged ones too. Caller frees *entries. */
int store_list(struct store *store, struct store_entry **entries, size_t *count,
	       struct fsnap_error *err);

/* Removes an image; its space goes to the pool, prepared so that the next dump writes fast. While others
 * build on it, only its name goes, and the file with the last of them. */
int store_remove(struct store *store, const char *name, struct fsnap_error *err);
/* The same but for the files of nameless images, which are left to the next store_collect(). */
int store_remove_name(struct store *store, const char *name, struct fsnap_error *err);
/* Removes the files of nameless images on which none builds any more. */
int store_collect(struct store *store, struct fsnap_error *err);

/* Makes an image stand alone: pages that it refers to are copied into it. *bytes (may be NULL): copied. Whoever
 * has it open goes on reading. */
int store_compact(struct store *store, const char *name, uint64_t *bytes, struct fsnap_error *err);

/* Gives the pool's space back to the file system; returns the bytes freed, or -1. */
int64_t store_trim(struct store *store, struct fsnap_error *err);

/* 1..127 of [A-Za-z0-9._-], not starting with '.' or '-'. */
int store_check_name(const char *name, struct fsnap_error *err);

/* --- writing ---------------------------------------------------------------- */

struct image;
struct image_writer;

/* Claims space for about `pages` pages (recycled where the pool has it), maps and
 * pre-faults it, so that nothing of this happens while a tree is frozen. The name is
 * taken when the image is committed; IMAGE_EXISTS is checked here and there. */
struct image_writer *image_writer_open(struct store *store, const char *name, uint64_t pages,
				       struct fsnap_error *err);

/* How an image is stored. On disk: numbers are never used again. */
enum store_codec { STORE_PLAIN = 0, STORE_ZSTD = 1, STORE_LZ4 = 2 };
enum store_cipher { STORE_OPEN = 0, STORE_XCHACHA20 = 1, STORE_AES256 = 2 };

struct store_coding {
	int codec, level; /* enum store_codec */
	int cipher;	  /* enum store_cipher; the key is the store's */
};

/* "zstd", "lz4:1", ...; "xchacha20" (also NULL), "aes256". */
int store_coding_compress(struct store_coding *coding, const char *text, struct fsnap_error *err);
int store_coding_encrypt(struct store_coding *coding, const char *text, struct fsnap_error *err);
const char *store_codec_name(int codec); /* "": none */
const char *store_cipher_name(int cipher);

/* The same, for an image that is compressed or encrypted when it is committed. Until then its pages lie in memory, as
 * they are, and nowhere else. coding may be NULL. */
struct image_writer *image_writer_open_coded(struct store *store, const char *name, uint64_t pages,
					     const struct store_coding *coding, struct fsnap_error *err);
bool image_writer_recycled(const struct image_writer *writer);

/* Makes sure `pages` pages in all fit. Moves the mapping if it must grow: addresses got before
 * are void then, contents are kept. */
int image_writer_reserve(struct image_writer *writer, uint64_t pages, struct fsnap_error *err);

/* Hands out the next n pages of the page area (its page number); must have been reserved. */
uint64_t image_writer_take(struct image_writer *writer, uint64_t n);
uint64_t image_writer_taken(const struct image_writer *writer);

/* Address of page `at`; valid up to the reserved end. */
void *image_writer_page(struct image_writer *writer, uint64_t at);

/* Computes the checksums of blocks [first, first + n). Different blocks may be done by different
 * threads at once, best right after they were filled. Blocks not done are done at commit. */
void image_writer_checksum(struct image_writer *writer, uint64_t first_block, uint64_t n);

/* For who fills pages again, or takes the last ones back: page `at` is not what it was when its block was checksummed;
 * `taken` pages stay. */
void image_writer_changed(struct image_writer *writer, uint64_t at);
void image_writer_shrink(struct image_writer *writer, uint64_t taken);

/* The same, of blocks that were summed as they were copied: what image_writer_checksum() would have found. */
void image_writer_summed(struct image_writer *writer, uint64_t first_block, uint64_t n, const uint64_t *sums);

/* For others to map its pages, where that is as good as our own mapping: of an image in memory. Its descriptor, and
 * where page 0 lies in it; -1: on a disk, pages that are written through a mapping want the file system's consent. */
int image_writer_lend(const struct image_writer *writer, uint64_t *offset);

/* The image will build on `parent`, of the same store, which must stay open until it is committed or given
 * up. Fails where nothing can (the parent was removed, the file system knows no links): store all, then. */
int image_writer_inherit(struct image_writer *writer, const struct image *parent, struct fsnap_error *err);

/* In the `at` of a run: what follows is the parent's `at`. */
#define STORE_REFERRED (1ull << 60)

/* At commit, at most so many pages that only old images have are copied into this one, so that these can go.
 * Few is enough, if it happens each time. (A lineage that is too long is shortened in any case.) */
void image_writer_tidy(struct image_writer *writer, uint64_t pages);
void image_writer_uuid(const struct image_writer *writer, uint8_t *uuid);

/* Adds runs in any order; they are sorted at commit. */
int image_writer_add_run(struct image_writer *writer, const struct page_run *run,
			 struct fsnap_error *err);

/* Appends a record. `required`: a reader that does not know the kind must refuse, naming `name`. */
int image_writer_put(struct image_writer *writer, uint32_t kind, bool required, const char *name,
		     xdrproc_t proc, void *object, struct fsnap_error *err);

/* Appends a record that a restore can do without, to a table of its own: damage there costs only it. */
int image_writer_put_hint(struct image_writer *writer, uint32_t kind, const char *name, xdrproc_t proc,
			  void *object, struct fsnap_error *err);

/* A directory for trees of files that go with the image: committed, removed and given up with it. Called once. Returns
 * its descriptor, the caller's, and the ID by which image_trees() finds it again. */
#define STORE_FILES_ID 24
int image_writer_trees(struct image_writer *writer, char id[STORE_FILES_ID], struct fsnap_error *err);

/* Of an image that is compressed or encrypted: how many bytes of its pages are, told while it is committed, by the thread
 * that commits. */
void image_writer_tell(struct image_writer *writer, void (*tell)(void *arg, uint64_t done, uint64_t total), void *arg);

/* Makes everything persistent, then the commit record, then the name. On failure the image does
 * not exist. Frees the writer in either case. *file_bytes (may be NULL): length of the file. */
int image_writer_commit(struct image_writer *writer, uint64_t *file_bytes, struct fsnap_error *err);

/* Gives up: the space goes to the pool. NULL is fine. */
void image_writer_abort(struct image_writer *writer);

/* --- reading ---------------------------------------------------------------- */


/* Opens by name, by path (anything with a slash), or the newest (NULL). Checks everything but
 * the pages' checksums: after this, offsets, counts and records can be relied upon. */
struct image *image_open(struct store *store, const char *name, struct fsnap_error *err);
/* The same, sharing the files of images that both build on with `known`, which may be NULL. */
struct image *image_open_beside(struct store *store, const char *name, const struct image *known,
				struct fsnap_error *err);
/* The same, for one signed by those; `trust` without any keys: by nobody in particular. */
struct trust;
struct image *image_open_signed(struct store *store, const char *name, const struct trust *trust,
				struct fsnap_error *err);
void image_close(struct image *image);
const char *image_name(const struct image *image);
uint64_t image_pages(const struct image *image);      /* pages in its own page area */
uint64_t image_file_bytes(const struct image *image);
uint64_t image_created_ns(const struct image *image);

/* The directory that image_writer_trees() gave: a descriptor, the caller's. It is beside the image's file, NAME.files,
 * also where that was opened by its path. */
int image_trees(const struct store *store, const struct image *image, const char *id, struct fsnap_error *err);

/* Removes a file, or a directory with all below it; never follows a link. -1 with errno. */
int store_remove_tree(int dir, const char *name);

/* Records, in file order. The body is decoded into *object, which the caller zeroes before and
 * releases with xdr_free(proc, object). */
size_t image_count(const struct image *image, uint32_t kind);
int image_get(const struct image *image, uint32_t kind, size_t index, xdrproc_t proc, void *object,
	      struct fsnap_error *err);

/* Hints, which nothing but speed depends on. image_hints() reads and checks them at the first call; -1:
 * they are damaged, the image is as good without. The others count and give none before. */
int image_hints(struct image *image, struct fsnap_error *err);
size_t image_hint_count(const struct image *image, uint32_t kind);
int image_hint_get(const struct image *image, uint32_t kind, size_t index, xdrproc_t proc, void *object,
		   struct fsnap_error *err);

/* Runs of one space, sorted by page; NULL and 0 where it has none. */
const struct page_run *image_runs(const struct image *image, uint32_t space, size_t *count);

/* An image may refer to pages of earlier ones, its ancestors: `at` counts on through their files. No run
 * reaches from one file into the next, so that its pages lie side by side. File 0 is the image's own. */
struct image_place {
	unsigned file;
	uint64_t offset; /* in it, bytes */
	uint64_t npages; /* from there on to the end of its pages */
};
struct image_place image_locate(const struct image *image, uint64_t at);
/* Mapped, read-only. Of an image that is compressed or encrypted its block is decoded; NULL: it cannot be. */
const void *image_page(const struct image *image, uint64_t at);
/* The same for n pages, that lie in one file; NULL with *err. */
const void *image_bytes(const struct image *image, uint64_t at, uint64_t n, struct fsnap_error *err);
uint64_t image_page_space(const struct image *image); /* `at` is below this */
unsigned image_files(const struct image *image);

/* What is read and checked as a whole, of any of its files: blocks have numbers below image_blocks(). For whoever
 * reads for himself; these call no allocator, and may be used in the child of a process with threads. */
struct image_extent {
	int fd;
	bool coded; /* what is read is to be decoded: image_decode_block() */
	uint64_t offset, bytes;
};
/* Read-only. A mapping made from this very description keeps the file from being recycled, also
 * after image_close(). */
int image_descriptor(const struct image *image, unsigned file);

/* Where a file's pages can be read, at the offsets of image_locate(): the file, or where it is compressed or encrypted,
 * memory. That has the blocks that image_prepare() has decoded. */
int image_page_descriptor(const struct image *image, unsigned file);
bool image_is_coded(const struct image *image); /* it, or one that it builds on */
/* Decodes blocks [first, first + n) of those that are coded; thread-safe. */
int image_prepare(const struct image *image, uint64_t first, uint64_t n, struct fsnap_error *err);
/* The bytes of a file that hold its pages, however. */
struct image_extent image_stored(const struct image *image, unsigned file);

/* What an image is called that this one builds on, and how many pages it has: file 1 is the nearest; NULL: no
 * such. Pages that are referred to in all of them. */
const char *image_parent(const struct image *image, unsigned file, uint64_t *pages);
uint64_t image_referred(const struct image *image);
void image_uuid(const struct image *image, uint8_t *uuid); /* 16 bytes: which image it is, whatever its name */

uint64_t image_block_of(const struct image *image, uint64_t at, uint32_t *page); /* and which page of it */
struct image_extent image_block_extent(const struct image *image, uint64_t block);
int image_check_block(const struct image *image, uint64_t block, const void *bytes, struct fsnap_error *err);
/* For coded ones, which are STORE_BLOCK_PAGES pages at most when they are decoded. One thread uses a decoder. */
struct image_decoder *image_decoder_new(struct fsnap_error *err);
void image_decoder_free(struct image_decoder *decoder);
int image_decode_block(const struct image *image, uint64_t block, const void *bytes, void *to,
		       struct image_decoder *decoder, struct fsnap_error *err);
/* In the child of the process that opened it: its keys stay out of swap there, too. */
void image_lock_keys(const struct image *image);

/* Checks blocks [first, first + n) of its own page area and, behind them, of its ancestors', of which those
 * that it does not refer to are left out; thread-safe. */
uint64_t image_blocks(const struct image *image);
/* Signs the files of an image, when all of them have been found whole. secret: signature.h. */
int image_sign(struct image *image, const uint8_t *secret, struct fsnap_error *err);
int image_verify_blocks(const struct image *image, uint64_t first, uint64_t n,
			struct fsnap_error *err);

/* Of an encrypted image, without its key: whether its own file is as it was written, checksums and, if `trust` (NULL: as for
 * any image) asks for one, signature. What it holds, nobody can say. */
int image_verify_stored(struct store *store, const char *name, const struct trust *trust, uint64_t *pages,
			struct fsnap_error *err);

#endif
