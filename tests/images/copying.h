/*
 * copying.h - what programs share that copy an image and change something on the way: one image is open, and one written.
 */
#ifndef TESTS_IMAGES_COPYING_H
#define TESTS_IMAGES_COPYING_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/store.h"

static struct store *store;
static struct fsnap_error err;
static struct image *image;
static struct image_writer *writer;

_Noreturn static void give_up(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, err.message);
	exit(1);
}

#ifdef __SANITIZE_ADDRESS__
/* Asked by LeakSanitizer (<sanitizer/lsan_interface.h>). These programs make one image and end, with what they have. */
int __lsan_is_turned_off(void)
{
	return 1;
}
#endif

#define MUST(call)                         \
	do {                               \
		if ((call) < 0)            \
			give_up(#call);    \
	} while (0)

struct raw { /* the body of a record, whatever it means */
	char *bytes;
	u_int size;
};

static bool_t xdr_raw(XDR *xdr, struct raw *raw)
{
	if (xdr->x_op == XDR_FREE) {
		free(raw->bytes);
		return TRUE;
	}
	if (xdr->x_op == XDR_DECODE) {
		raw->size = xdr->x_handy;
		raw->bytes = malloc(raw->size + 1);
	}
	return raw->bytes && xdr_opaque(xdr, raw->bytes, raw->size);
}

static void put(uint32_t kind, xdrproc_t proc, void *object)
{
	MUST(image_writer_put(writer, kind, true, "copied", proc, object, &err));
}

static void copy_records(uint32_t kind)
{
	for (size_t i = 0; i < image_count(image, kind); i++) {
		struct raw raw = { 0 };
		MUST(image_get(image, kind, i, (xdrproc_t)xdr_raw, &raw, &err));
		put(kind, (xdrproc_t)xdr_raw, &raw);
		free(raw.bytes);
	}
}

/* Opens both, and copies the pages, but not what says where they belong. */
static void copy_begin(const char *where, const char *old, const char *new)
{
	store = store_open(where, STORE_WRITE, &err);
	image = store ? image_open(store, old, &err) : NULL;
	uint64_t pages = image ? image_page_space(image) : 0;
	writer = image ? image_writer_open(store, new, pages, &err) : NULL;
	if (!writer)
		give_up("opening the images");
	MUST(image_writer_reserve(writer, pages, &err));
	image_writer_take(writer, pages);
	for (uint64_t at = 0; at < pages; at++)
		memcpy(image_writer_page(writer, at), image_page(image, at), STORE_PAGE);
}

static void copy_end(void)
{
	MUST(image_writer_commit(writer, NULL, &err));
	image_close(image);
	store_close(store);
}

#endif
