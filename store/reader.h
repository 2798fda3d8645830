/*
 * reader.h - an open image: its own file, and those of its ancestors.
 *
 * The page index addresses pages as if all files lay one behind the other, the image's own first:
 *
 *	at	[0, own)  [own, own + pages of ancestor 1)  [..., + pages of ancestor 2)  ...
 *
 * No run reaches from one file into the next. Ancestors are flat: an image names all files that its
 * index refers to, and none else, so that nothing is looked up through its parent.
 */
#ifndef STORE_READER_H
#define STORE_READER_H

#include "store/coded.h"
#include "store/internal.h"

#define KINDS (IMAGE_LABELS + 2)

/* The page area of one file. Images that were opened one after the other may share it. */
struct page_file {
	unsigned users;
	int fd;
	struct layout_slot slot;
	struct signature *signature; /* NULL: none is needed here */
	uint64_t *sums; /* per block; NULL: it is coded */
	struct coded *coded; /* NULL: pages are stored as they are */
	struct medium *medium; /* NULL where there are no pages */
	uint64_t pages_at; /* where they begin in it: in the file, or in the memory of what is coded */
};

struct image {
	char *name;
	struct trust trust; /* who may have made it and its ancestors */
	struct page_file *own; /* files[0] */
	struct page_file **files;
	uint64_t *base; /* of each file: its first `at`; behind the last: their sum */
	unsigned n_files;
	struct layout_ancestor *lineage; /* of files[1..] */
	uint64_t **used; /* of each ancestor's blocks, a bit for those that the index refers to */
	char *metadata;
	struct page_run *runs;
	size_t run_count;
	struct record *records; /* sorted by kind, then as in the file */
	size_t first[KINDS];	/* records of kind k: [first[k], first[k + 1]) */
	char *hint_bytes;
	struct record *hints; /* sorted likewise; NULL: not read */
	size_t hint_count;
};

/* --- page_file.c ------------------------------------------------------------------------ */

void *read_section(int fd, const struct layout_section *section, const char *image, const char *what,
		   struct fsnap_error *err);
/* Takes over fd. The ring is used only now. */
struct page_file *page_file_open(int fd, uint64_t file_size, const char *image, const struct trust *trust,
				 struct keyring *ring, struct fsnap_error *err);
struct page_file *page_file_share(struct page_file *file);
void page_file_close(struct page_file *file);

/* --- lineage.c -------------------------------------------------------------------------- */

/* Opens the ancestors; `known`, which may be NULL, is an image that may have some of them open. `path` is where
 * the image itself is, if it was opened by one, else NULL. */
int lineage_open(struct image *image, struct store *store, const char *path, const struct image *known,
		 struct keyring *ring, struct fsnap_error *err);
void lineage_close(struct image *image);

/* When the page index has been checked otherwise: runs keep to one file. */
int lineage_check_runs(struct image *image, struct fsnap_error *err);

/* Which file `at` is in. */
unsigned lineage_file(const struct image *image, uint64_t at);

/* What a message calls a file of the image. */
const char *lineage_name(const struct image *image, unsigned file);

#endif
