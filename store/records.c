/* records.c - the metadata section: kind, flags, name<31>, body<>, each as XDR has it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <inttypes.h>
#include <string.h>

#include "store/internal.h"
#include "store/scope.h"

/* The kinds of enum image_kind are numbered without gaps; a new one moves the end. */
static bool kind_known(uint32_t kind)
{
	return kind >= IMAGE_TREE && kind <= IMAGE_LABELS;
}

/* --- writing ------------------------------------------------------------------------ */

static int make_room(struct record_buffer *buffer, uint64_t more, struct fsnap_error *err)
{
	uint64_t need = buffer->length + more;
	if (need <= buffer->room)
		return 0;
	if (need > UINT32_MAX)
		return fail(err, FSNAP_E_UNSUPPORTED, 0, "the image's metadata exceeds 4 GiB");
	uint64_t room = buffer->room ? 2 * buffer->room : 16384;
	while (room < need)
		room *= 2;
	char *bytes = realloc(buffer->bytes, room);
	if (!bytes)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "the image's metadata");
	buffer->bytes = bytes;
	buffer->room = room;
	return 0;
}

static void put_number(struct record_buffer *buffer, uint32_t value)
{
	value = htonl(value);
	memcpy(buffer->bytes + buffer->length, &value, sizeof(value));
	buffer->length += sizeof(value);
}

static void put_bytes(struct record_buffer *buffer, const char *bytes, uint32_t length)
{
	uint64_t padded = align_up(length, BYTES_PER_XDR_UNIT);
	put_number(buffer, length);
	memset(buffer->bytes + buffer->length, 0, padded);
	memcpy(buffer->bytes + buffer->length, bytes, length);
	buffer->length += padded;
}

static int encode_body(struct record_buffer *buffer, xdrproc_t proc, void *object, uint32_t length)
{
	XDR xdr;
	xdrmem_create(&xdr, buffer->bytes + buffer->length, length, XDR_ENCODE);
	bool done = proc(&xdr, object) && xdr_getpos(&xdr) == length;
	xdr_destroy(&xdr);
	buffer->length += length;
	return done ? 0 : -1;
}

int record_append(struct record_buffer *buffer, uint32_t kind, bool required, const char *name,
		  xdrproc_t proc, void *object, struct fsnap_error *err)
{
	uint64_t start = buffer->length;
	size_t name_length = strnlen(name, RECORD_NAME);
	uint32_t body = (uint32_t)xdr_sizeof(proc, object); /* 0: cannot be encoded */
	uint64_t most = 4 * sizeof(uint32_t) + align_up(name_length, 4) + body;

	if (make_room(buffer, most, err) < 0)
		return -1;
	put_number(buffer, kind);
	put_number(buffer, required ? RECORD_REQUIRED : 0);
	put_bytes(buffer, name, (uint32_t)name_length);
	put_number(buffer, body);
	if (body == 0 || encode_body(buffer, proc, object, body) < 0) {
		buffer->length = start;
		return fail(err, FSNAP_E_UNSUPPORTED, 0,
			    "record %s: a list or text is longer than the format allows", name);
	}
	buffer->count++;
	return 0;
}

/* --- reading ------------------------------------------------------------------------- */

struct cursor {
	const char *at;
	const char *end;
};

static bool get_number(struct cursor *cursor, uint32_t *value)
{
	if (cursor->end - cursor->at < (ptrdiff_t)sizeof(*value))
		return false;
	memcpy(value, cursor->at, sizeof(*value));
	*value = ntohl(*value);
	cursor->at += sizeof(*value);
	return true;
}

static bool get_bytes(struct cursor *cursor, const char **bytes, uint32_t *length)
{
	if (!get_number(cursor, length))
		return false;
	uint64_t padded = align_up(*length, BYTES_PER_XDR_UNIT);
	if ((uint64_t)(cursor->end - cursor->at) < padded)
		return false;
	*bytes = cursor->at;
	cursor->at += padded;
	return true;
}

static int by_kind(const void *a, const void *b)
{
	const struct record *one = a, *two = b;
	if (one->kind != two->kind)
		return one->kind < two->kind ? -1 : 1;
	return one->body < two->body ? -1 : one->body > two->body;
}

int record_parse(const char *bytes, uint64_t length, uint64_t expected, const char *image,
		 struct record **records, size_t *count, struct fsnap_error *err)
{
	struct cursor cursor = {bytes, bytes + length};
	cleanup_free struct record *found = calloc(expected + 1, sizeof(*found));
	if (!found)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its records", image);

	size_t used = 0;
	for (uint64_t i = 0; i < expected; i++) {
		struct record record;
		uint32_t flags, name_length;
		const char *name;
		if (!get_number(&cursor, &record.kind) || !get_number(&cursor, &flags) ||
		    !get_bytes(&cursor, &name, &name_length) || name_length > RECORD_NAME ||
		    !get_bytes(&cursor, &record.body, &record.length))
			return layout_corrupt(err, image, "record %" PRIu64 " is damaged", i);
		if (kind_known(record.kind)) {
			found[used++] = record;
		} else if (flags & RECORD_REQUIRED) {
			fail(err, FSNAP_E_IMAGE_FORMAT, 0,
			     "image %s: needs '%.*s' (record kind %" PRIu32
			     "), which this fsnap does not know",
			     image, (int)name_length, name, record.kind);
			return error_hint(err, "use the fsnap that wrote it, or a newer one");
		}
	}
	if (cursor.at != cursor.end)
		return layout_corrupt(err, image, "its metadata goes on after the last record");
	qsort(found, used, sizeof(*found), by_kind);
	*count = used;
	*records = steal(&found);
	return 0;
}

int record_decode(const struct record *record, const char *image, xdrproc_t proc, void *object,
		  struct fsnap_error *err)
{
	XDR xdr;
	errno = 0;
	xdrmem_create(&xdr, (char *)record->body, record->length, XDR_DECODE);
	bool done = proc(&xdr, object) && xdr_getpos(&xdr) == record->length;
	xdr_destroy(&xdr);
	if (done)
		return 0;
	/* malloc(3)'s: XDR says no more than that it has not come to its end. It may have been asked for more than there is
	 * because the image is damaged, too: who has the memory is told so. */
	int sys = errno;
	xdr_free(proc, object);
	if (sys == ENOMEM)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: a record of kind %" PRIu32, image, record->kind);
	return layout_corrupt(err, image, "a record of kind %" PRIu32 " does not decode",
			      record->kind);
}
