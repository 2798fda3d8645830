/*
 * writer.h - an image being written; shared by writer.c (filling it) and commit.c.
 *
 *	         open          tables durable    slot durable      renamed
 *	(none) -------> FILLING ---------> SEALED ---------> COMMITTED ---------> NAMED
 *	                   |                 |                  |
 *	                   +-----------------+------------------+---> (pool), on any failure
 */
#ifndef STORE_WRITER_H
#define STORE_WRITER_H

#include "store/cipher.h"
#include "store/internal.h"

enum writer_state { WRITER_FILLING, WRITER_SEALED, WRITER_COMMITTED, WRITER_NAMED };

struct block_sum {
	uint64_t checksum;
	uint64_t pages; /* that it covers; 0: not computed. A block that grew since is done again */
};

struct image_writer {
	enum writer_state state;
	struct store *store;
	char name[128];
	struct claim claim;
	struct medium *medium;
	uint64_t reserved; /* pages */
	uint64_t taken;
	bool starved; /* space ran out: what it got is given back, not kept in the pool */
	struct block_sum *blocks; /* one per block of `reserved` */
	struct page_run *runs;
	size_t run_count;
	size_t run_room;
	struct record_buffer records;
	struct record_buffer hints;
	struct layout_super super;
	const struct image *parent;   /* inherit.c; not ours */
	const struct image *replaces; /* whose name it takes; not ours */
	bool alone;		      /* all it refers to is carried */
	bool apart;		      /* runs are not joined any more: they would reach from file to file */
	uint64_t tidy;		      /* pages */
	uint64_t created_ns;	      /* 0: when it is committed */
	struct layout_ancestor *lineage;
	unsigned n_ancestors;
	uint64_t space; /* of pages, ancestors' included, once that is settled */
	struct store_coding coding;   /* encode.c; all zero: it is stored as it is */
	struct medium *scratch;	      /* where its pages are until then; NULL: in the file itself */
	int scratch_fd;
	struct layout_coding head;    /* what the slot will say of it */
	struct cipher *cipher;	      /* NULL: it is only compressed */
	struct layout_frame *frames;
	void (*tell)(void *arg, uint64_t done, uint64_t total); /* NULL: nobody wants to know */
	void *tell_arg;
	int files; /* directory of its files, locked; -1: it has none */
	struct store_at files_at;
};

/* The one place where the state changes: a step may not be left out. */
void writer_advance(struct image_writer *writer, enum writer_state to);

/* Backs bytes [offset, offset + length) of the file, growing it; gives up the pool if it must. */
int writer_back(struct image_writer *writer, uint64_t offset, uint64_t length,
		struct fsnap_error *err);

int writer_name_is_free(const struct image_writer *writer, struct fsnap_error *err);

static inline bool writer_is_coded(const struct image_writer *writer)
{
	return writer->coding.codec || writer->coding.cipher;
}

/* encode.c: room for pages until they are encoded; back: what of the scratch is to be there, pages [from, to). */
int encode_begin(struct image_writer *writer, struct fsnap_error *err);
int encode_reserve(struct image_writer *writer, uint64_t from, uint64_t to, struct fsnap_error *err);
/* Makes frames of the pages, in the scratch, and puts them into the file; encrypts the tables. */
int encode_all(struct image_writer *writer, struct layout_slot *slot, struct fsnap_error *err);
void encode_end(struct image_writer *writer);

/* On tmpfs, or elsewhere in memory: is there so much? */
int writer_check_memory(uint64_t bytes, const char *what, struct fsnap_error *err);

/* image_writer_open() for an image that takes the place of an open one of the store. */
struct image_writer *writer_replacing(struct store *store, const struct image *image, uint64_t pages,
				      const struct store_coding *coding, struct fsnap_error *err);

/* inherit.c: from here on no run is STORE_REFERRED. */
int writer_settle_heritage(struct image_writer *writer, struct fsnap_error *err);
/* files.c: steps of a commit, and giving up. */
int files_seal(struct image_writer *writer, struct fsnap_error *err);
int files_publish(struct image_writer *writer, struct fsnap_error *err);
void files_abort(struct image_writer *writer);

void writer_free(struct image_writer *writer);

#endif
