/*
 * internal.h - what the files of store/ share with each other, and with the store's own tests.
 */
#ifndef STORE_INTERNAL_H
#define STORE_INTERNAL_H

#include <sys/stat.h>

#include "store/cipher.h"
#include "store/layout.h"
#include "store/medium.h"
#include "store/signature.h"
#include "store/store.h"

#define STORE_IMAGES "images"
#define STORE_POOL "pool"
#define STORE_TMP "tmp"
#define STORE_ANCESTORS "ancestors"
#define STORE_SUFFIX ".fsnap"
#define STORE_RECORD ".record" /* restorer/record.h */

#define STORE_POOL_FILES 8	   /* most files the pool keeps; the smallest go first */
#define STORE_POOL_SMALL 40	   /* and of small ones, which images of a chain are made of (fsnap watch) */
#define STORE_FILE_MIN (4ull << 20) /* a file's length when claimed: sparse, so it costs nothing */
#define STORE_FILE_SMALL (8ull << 20) /* that long at most */

/* A path below the store's directory: "images/NAME.fsnap", "pool/SIZE-ID", "tmp/ID". */
struct store_at {
	char path[160];
};

struct store {
	int dir;
	enum store_mode mode;
	bool in_memory; /* tmpfs: fast to map, nothing to sync */
	char *path;
	struct keyring keys;
};

struct store_at store_image_at(const char *name);
struct store_at store_tmp_at(uint64_t id);
struct store_at store_ancestor_at(const uint8_t *uuid);
uint64_t store_new_id(void);

/* fail() with the code that errno `sys` means for a store, and its hint. */
int store_fail(struct fsnap_error *err, int sys, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* fsync(2) of a directory below the store, so that names made there last. */
int store_sync_dir(const struct store *store, const char *dir, struct fsnap_error *err);

/* Calls fn for every file name in a directory below the store; a missing directory is empty. */
int store_each(const struct store *store, const char *dir,
	       int (*fn)(void *arg, const char *name, struct fsnap_error *err), void *arg,
	       struct fsnap_error *err);

/* --- pool.c -------------------------------------------------------------------- */

/* A file in tmp/ that is ours: locked with flock(2) until its descriptor is closed. */
struct claim {
	int fd;
	struct store_at at;
	uint64_t length;
	bool recycled; /* its pages hold what a former image left there */
};

/* A file of at least STORE_FILE_MIN, as near to `bytes` as the pool has one. */
int pool_claim(struct store *store, uint64_t bytes, struct claim *claim, struct fsnap_error *err);

/* Moves a locked file from `at` to the pool, and keeps the pool within its bounds. */
int pool_give(struct store *store, const struct store_at *at, uint64_t length,
	      struct fsnap_error *err);

/* Gives what dead writers left in tmp/ to the pool. */
void pool_adopt(struct store *store);

/* Unlinks everything in the pool; bytes given back, or -1. */
int64_t pool_empty(struct store *store, struct fsnap_error *err);

/* --- files.c -------------------------------------------------------------------- */

void files_remove(struct store *store, const char *image); /* with its image */
void files_trim(struct store *store); /* of images that never came to be */
/* Whether `at` is a directory; removed if its writer is dead. */
bool files_adopt(struct store *store, const struct store_at *at);

/* --- records.c ------------------------------------------------------------------- */

struct record_buffer {
	char *bytes;
	uint64_t length;
	uint64_t room;
	uint64_t count;
};

int record_append(struct record_buffer *buffer, uint32_t kind, bool required, const char *name,
		  xdrproc_t proc, void *object, struct fsnap_error *err);

struct record {
	uint32_t kind;
	uint32_t length;
	const char *body;
};

/* Splits metadata into records of known kinds, pointing into `bytes`. Caller frees *records. */
int record_parse(const char *bytes, uint64_t length, uint64_t expected, const char *image,
		 struct record **records, size_t *count, struct fsnap_error *err);
int record_decode(const struct record *record, const char *image, xdrproc_t proc, void *object,
		  struct fsnap_error *err);

bool store_has_suffix(const char *file, const char *suffix); /* and something before it */

/* Records of which pages a restore touched first, whose image is not there any more. */
void catalogue_drop_records(struct store *store);

/* --- reader.c, catalogue.c ---------------------------------------------------------- */

/* Opens an image file for reading (store->dir or AT_FDCWD) and locks it shared: as long as this
 * open file description lives, also in a mapping, the file is not recycled. */
int image_open_file(int dir, const char *path, const char *image, struct stat *st,
		    struct fsnap_error *err);
int image_read_head(int fd, uint64_t file_size, const char *image, struct layout_slot *slot,
		    struct fsnap_error *err);

/* The same, of one that must be signed if anybody is trusted in particular. */
int image_read_trusted_head(int fd, uint64_t file_size, const char *image, const struct trust *trust,
			    struct layout_slot *slot, struct fsnap_error *err);

/* Reads [offset, offset + length) of fd into buffer; a short read is an error. */
int read_exactly(int fd, void *buffer, uint64_t length, uint64_t offset, const char *image,
		 struct fsnap_error *err);

/* The lineage that a slot says; the caller frees it. NULL with *err set: it cannot be. */
struct layout_ancestor *lineage_read(int fd, const struct layout_slot *slot, const char *image, unsigned *n,
				     struct fsnap_error *err);

/* --- ancestors.c --------------------------------------------------------------------- */

/* Gives the file of an open image its place in ancestors/, if it has none. */
int ancestor_link(struct store *store, int fd, const uint8_t *uuid, struct fsnap_error *err);

/* Removes a name of a file that we have open, be it in images/ or ancestors/; if it was the last one and nobody
 * has the file open, its space goes to the pool. fd may be -1: only the name goes. */
int store_discard(struct store *store, const char *dir, const struct store_at *at, int fd,
		  struct fsnap_error *err);

/* The name of the newest image that can be opened. */
int store_newest(struct store *store, char *name, size_t size, struct fsnap_error *err);

#endif
