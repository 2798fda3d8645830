/*
 * encode.c - an image that is compressed or encrypted when it is committed.
 *
 * Its pages are copied into memory of ours as they are, so that the tree stands still no longer than for any other
 * image. At commit each block becomes a frame in its own place there, over what it was, for it is never longer; then all
 * go into the file, one behind the other. What is not encrypted has been in no file by then.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "store/codec.h"
#include "store/parallel.h"
#include "store/scope.h"
#include "store/writer.h"

#define GRAIN 4		     /* blocks a thread takes at least */
#define GAIN 32		     /* compressing must win a 32nd: else it costs time for nothing */
#define MEMORY_CHECK (64ull << 20)

/* --- what is asked for ------------------------------------------------------------------------ */

static const char *const ciphers[] = { [STORE_OPEN] = "", [STORE_XCHACHA20] = "xchacha20", [STORE_AES256] = "aes256" };

int store_coding_encrypt(struct store_coding *coding, const char *text, struct fsnap_error *err)
{
	for (int i = STORE_XCHACHA20; i <= STORE_AES256; i++)
		if (!text || strcmp(text, ciphers[i]) == 0) {
			coding->cipher = i;
			return 0;
		}
	fail(err, FSNAP_E_USAGE, 0, "%s is no way of encrypting", text);
	return error_hint(err, "xchacha20 (XChaCha20-Poly1305), or aes256 (AES-256-GCM)");
}

const char *store_cipher_name(int cipher)
{
	return cipher >= STORE_OPEN && cipher <= STORE_AES256 ? ciphers[cipher] : "";
}

/* --- before --------------------------------------------------------------------------------------- */

int encode_begin(struct image_writer *writer, struct fsnap_error *err)
{
	writer->head.codec = (uint32_t)writer->coding.codec;
	writer->head.cipher = (uint32_t)writer->coding.cipher;
	if (writer->coding.cipher) {
		writer->cipher = cipher_new(&writer->store->keys, &writer->head, writer->super.uuid, err);
		if (!writer->cipher)
			return error_context(err, "image %s", writer->name);
	}
	writer->scratch_fd = memfd_create("fsnap-pages", MFD_CLOEXEC);
	if (writer->scratch_fd < 0 || ftruncate(writer->scratch_fd, LAYOUT_HUGE) < 0)
		return fail(err, FSNAP_E_NOMEM, errno, "image %s: memory for its pages", writer->name);
	writer->scratch = medium_open_write(writer->scratch_fd, LAYOUT_HUGE, true, err);
	return writer->scratch ? 0 : -1;
}

int encode_reserve(struct image_writer *writer, uint64_t from, uint64_t to, struct fsnap_error *err)
{
	uint64_t offset = from * STORE_PAGE, bytes = (to - from) * STORE_PAGE;
	if (bytes >= MEMORY_CHECK && writer_check_memory(bytes, "pages are encoded", err) < 0)
		return -1;
	if (medium_grow(writer->scratch, to * STORE_PAGE, err) < 0)
		return -1;
	medium_make_huge(writer->scratch, offset, bytes);
	return medium_prepare(writer->scratch, offset, bytes, err);
}

void encode_end(struct image_writer *writer)
{
	medium_close(writer->scratch);
	scope_close(&writer->scratch_fd);
	cipher_free(writer->cipher);
	free(writer->frames);
}

/* --- pages ------------------------------------------------------------------------------------------- */

struct encoding {
	struct image_writer *writer;
	uint64_t *offset; /* of each frame, in the file */
	atomic_bool failed;
	atomic_uint_least64_t done; /* blocks */
	pthread_t caller;
};

void image_writer_tell(struct image_writer *writer, void (*tell)(void *arg, uint64_t done, uint64_t total), void *arg)
{
	writer->tell = tell;
	writer->tell_arg = arg;
}

/* By one thread only, which need not be prepared for others. */
static void tell(struct encoding *encoding)
{
	const struct image_writer *writer = encoding->writer;
	uint64_t done = ++encoding->done * LAYOUT_BLOCK, total = writer->taken * STORE_PAGE;
	if (writer->tell && pthread_equal(pthread_self(), encoding->caller))
		writer->tell(writer->tell_arg, done < total ? done : total, total);
}

/* In place: `room` holds a block. */
static void encode_block(struct image_writer *writer, uint64_t block, struct packer *packer, uint8_t *room)
{
	struct layout_frame *frame = &writer->frames[block];
	uint64_t plain = layout_block_pages(block, writer->taken) * STORE_PAGE;
	uint8_t *pages = image_writer_page(writer, block * STORE_BLOCK_PAGES), *from = pages;
	size_t packed = packer ? packer_pack(packer, room, plain - plain / GAIN, pages, plain) : 0;
	frame->codec = packed ? (uint32_t)writer->coding.codec : STORE_PLAIN;
	frame->length = (uint32_t)(packed ? packed : plain);
	if (packed)
		from = room;
	if (writer->cipher) {
		uint8_t *to = from == room ? pages : room;
		cipher_encrypt(writer->cipher, block, frame->codec, plain, to, from, frame->length, frame->tag);
		from = to;
	}
	if (from != pages)
		memcpy(pages, from, frame->length);
	frame->checksum = layout_checksum(pages, frame->length);
}

static void encode_some(void *arg, uint64_t first, uint64_t n)
{
	struct encoding *encoding = arg;
	struct image_writer *writer = encoding->writer;
	struct packer *packer = writer->coding.codec ? packer_new(writer->coding.codec, writer->coding.level) : NULL;
	cleanup_free uint8_t *room = malloc(LAYOUT_BLOCK);
	if (!room || (writer->coding.codec && !packer))
		encoding->failed = true;
	for (uint64_t block = first; block < first + n && !encoding->failed; block++) {
		encode_block(writer, block, packer, room);
		tell(encoding);
	}
	packer_free(packer);
	if (room)
		sodium_memzero(room, LAYOUT_BLOCK);
}

static void put_some(void *arg, uint64_t first, uint64_t n)
{
	struct encoding *encoding = arg;
	struct image_writer *writer = encoding->writer;
	for (uint64_t block = first; block < first + n; block++)
		medium_copy(writer->medium, encoding->offset[block],
			    image_writer_page(writer, block * STORE_BLOCK_PAGES), writer->frames[block].length);
}

static int encode_pages(struct image_writer *writer, struct fsnap_error *err)
{
	uint64_t blocks = layout_blocks(writer->taken), at = LAYOUT_PAGES;
	cleanup_free uint64_t *offset = malloc((blocks + 1) * sizeof(*offset));
	struct encoding encoding = { .writer = writer, .offset = offset, .caller = pthread_self() };
	writer->frames = calloc(blocks + 1, sizeof(*writer->frames));
	if (!offset || !writer->frames)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its blocks", writer->name);
	parallel_for(blocks, GRAIN, encode_some, &encoding);
	if (encoding.failed)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: encoding its pages", writer->name);
	for (uint64_t i = 0; i < blocks; i++) {
		offset[i] = at;
		at += writer->frames[i].length;
	}
	writer->head.stored = at - LAYOUT_PAGES;
	if (writer_back(writer, LAYOUT_PAGES, writer->head.stored, err) < 0)
		return error_context(err, "image %s", writer->name);
	parallel_for(blocks, GRAIN, put_some, &encoding);
	return 0;
}

/* --- tables --------------------------------------------------------------------------------------------- */

/* In place of what was there, which is wiped. */
static int encrypt_table(struct image_writer *writer, unsigned which, void **bytes, uint64_t length,
			 struct fsnap_error *err)
{
	void *to = malloc(length + 1);
	if (!to)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its tables", writer->name);
	cipher_encrypt(writer->cipher, CIPHER_TABLE(which), 0, length, to, *bytes, length, writer->head.tag[which]);
	if (length)
		sodium_memzero(*bytes, length);
	free(*bytes);
	*bytes = to;
	return 0;
}

int encode_all(struct image_writer *writer, struct layout_slot *slot, struct fsnap_error *err)
{
	void *records = writer->records.bytes, *runs = writer->runs, *hints = writer->hints.bytes;
	int result = encode_pages(writer, err);
	if (result == 0 && writer->cipher) {
		if (encrypt_table(writer, 0, &records, writer->records.length, err) < 0 ||
		    encrypt_table(writer, 1, &runs, writer->run_count * sizeof(*writer->runs), err) < 0 ||
		    encrypt_table(writer, 2, &hints, writer->hints.length, err) < 0)
			result = -1;
	}
	writer->records.bytes = records;
	writer->runs = runs;
	writer->hints.bytes = hints;
	slot->coding = writer->head;
	return result;
}
