#define _GNU_SOURCE
#include "store/coded.h"

#include <inttypes.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "store/reader.h"
#include "store/scope.h"

#define LOCKS 16 /* blocks that are decoded at once */

struct coded {
	struct layout_frame *frames;
	uint64_t *offset; /* of each, in the file */
	struct cipher *cipher; /* NULL: it is only compressed */
	int memory;
	atomic_bool *ready; /* by block: it is in memory */
	pthread_mutex_t lock[LOCKS];
};

struct image_decoder {
	struct unpacker *unpacker;
	uint8_t *opened; /* a frame, decrypted and still packed */
	uint8_t *stored; /* ... as it was read */
};

/* --- opening ------------------------------------------------------------------------------ */

const char *coded_check_frames(const struct layout_slot *slot, const struct layout_frame *frames)
{
	uint64_t blocks = layout_blocks(slot->pages), sum = 0;
	for (uint64_t i = 0; i < blocks; i++) {
		uint64_t plain = layout_block_pages(i, slot->pages) * STORE_PAGE;
		if (frames[i].codec && frames[i].codec != slot->coding.codec)
			return "a block is compressed in another way than it says";
		if (frames[i].length == 0 || frames[i].length > plain || (!frames[i].codec && frames[i].length != plain))
			return "a block has an impossible length";
		sum += frames[i].length;
	}
	return sum == slot->coding.stored ? NULL : "its blocks are not as long as it says";
}

static int place_frames(struct coded *coded, const struct layout_slot *slot, const char *image,
			struct fsnap_error *err)
{
	uint64_t blocks = layout_blocks(slot->pages), at = slot->pages_offset;
	const char *wrong = coded_check_frames(slot, coded->frames);
	if (wrong)
		return layout_corrupt(err, image, "%s", wrong);
	coded->offset = malloc((blocks + 1) * sizeof(*coded->offset));
	coded->ready = calloc(blocks + 1, sizeof(*coded->ready));
	if (!coded->offset || !coded->ready)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its blocks", image);
	for (uint64_t i = 0; i < blocks; i++) {
		coded->offset[i] = at;
		at += coded->frames[i].length;
	}
	return 0;
}

static int altered(const char *image, const char *what, struct fsnap_error *err)
{
	fail(err, FSNAP_E_IMAGE_CORRUPT, 0, "image %s: %s been altered since it was encrypted", image, what);
	return error_hint(err, "do not trust it: get it again from where it was made");
}

/* What is not encrypted of it must be what it was, too. */
static int check_readable(const struct page_file *file, const struct coded *coded, const char *image,
			  struct fsnap_error *err)
{
	struct layout_super super;
	uint8_t mac[32];
	cleanup_free void *lineage = read_section(file->fd, &file->slot.lineage, image, "lineage", err);
	if (!lineage || read_exactly(file->fd, &super, sizeof(super), 0, image, err) < 0)
		return -1;
	cipher_mac(coded->cipher, &super, &file->slot, coded->frames, lineage, mac);
	return sodium_memcmp(mac, file->slot.coding.mac, sizeof(mac)) == 0 ? 0 : altered(image, "its head has", err);
}

static int open_memory(struct page_file *file, struct coded *coded, const char *image, struct fsnap_error *err)
{
	uint64_t bytes = file->slot.pages * STORE_PAGE;
	if (bytes == 0)
		return 0;
	coded->memory = memfd_create("fsnap-pages", MFD_CLOEXEC);
	if (coded->memory < 0 || ftruncate(coded->memory, (off_t)bytes) < 0)
		return fail(err, FSNAP_E_NOMEM, errno, "image %s: memory for its pages", image);
	file->medium = medium_open_scratch(coded->memory, bytes, err);
	return file->medium ? 0 : -1;
}

int coded_open(struct page_file *file, struct layout_frame *frames, struct keyring *ring, const char *image,
	       struct fsnap_error *err)
{
	const struct layout_slot *slot = &file->slot;
	struct coded *coded = file->coded = calloc(1, sizeof(*coded));
	if (!coded) {
		free(frames);
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its blocks", image);
	}
	coded->frames = frames;
	coded->memory = -1;
	for (int i = 0; i < LOCKS; i++)
		pthread_mutex_init(&coded->lock[i], NULL);
	if (place_frames(coded, slot, image, err) < 0)
		return -1;
	if (slot->coding.cipher) {
		coded->cipher = cipher_open(ring, &slot->coding, slot->uuid, image, err);
		if (!coded->cipher || check_readable(file, coded, image, err) < 0)
			return -1;
	}
	return open_memory(file, coded, image, err);
}

void coded_close(struct coded *coded)
{
	if (!coded)
		return;
	for (int i = 0; i < LOCKS; i++)
		pthread_mutex_destroy(&coded->lock[i]);
	cipher_free(coded->cipher);
	scope_close(&coded->memory);
	free(coded->frames);
	free(coded->offset);
	free(coded->ready);
	free(coded);
}

void *coded_table(const struct page_file *file, unsigned which, void *bytes, const char *image, const char *what,
		  struct fsnap_error *err)
{
	const struct layout_section *section[] = { &file->slot.metadata, &file->slot.index, &file->slot.hints };
	uint64_t length = section[which]->length;
	cleanup_free void *stored = bytes;
	if (!stored || !file->coded || !file->coded->cipher)
		return steal(&stored);
	cleanup_free void *plain = malloc(length + 1);
	if (!plain) {
		fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its %s", image, what);
		return NULL;
	}
	if (cipher_decrypt(file->coded->cipher, CIPHER_TABLE(which), 0, length, plain, stored, length,
			   file->slot.coding.tag[which]))
		return steal(&plain);
	altered(image, "a table of it has", err);
	return NULL;
}

struct image_extent coded_extent(const struct page_file *file, uint64_t block)
{
	return (struct image_extent){ .fd = file->fd, .coded = true, .offset = file->coded->offset[block],
				      .bytes = file->coded->frames[block].length };
}

int coded_memory(const struct page_file *file)
{
	return file->coded->memory;
}

struct cipher *coded_cipher(const struct page_file *file)
{
	return file->coded ? file->coded->cipher : NULL;
}

/* --- decoding ------------------------------------------------------------------------------- */

struct image_decoder *image_decoder_new(struct fsnap_error *err)
{
	struct image_decoder *decoder = calloc(1, sizeof(*decoder));
	if (decoder) {
		decoder->unpacker = unpacker_new();
		decoder->opened = malloc(2 * LAYOUT_BLOCK);
		decoder->stored = decoder->opened + LAYOUT_BLOCK;
	}
	if (decoder && decoder->unpacker && decoder->opened)
		return decoder;
	image_decoder_free(decoder);
	fail(err, FSNAP_E_NOMEM, ENOMEM, "decoding blocks of an image");
	return NULL;
}

void image_decoder_free(struct image_decoder *decoder)
{
	if (!decoder)
		return;
	unpacker_free(decoder->unpacker);
	free(decoder->opened);
	free(decoder);
}

static int bad_block(const struct page_file *file, uint64_t block, const char *image, const char *why,
		     struct fsnap_error *err)
{
	uint64_t first = block * STORE_BLOCK_PAGES, last = first + layout_block_pages(block, file->slot.pages) - 1;
	return layout_corrupt(err, image, "pages %" PRIu64 " to %" PRIu64 " %s", first, last, why);
}

int coded_decode(const struct page_file *file, uint64_t block, const void *bytes, void *to,
		 struct image_decoder *decoder, const char *image, struct fsnap_error *err)
{
	const struct coded *coded = file->coded;
	const struct layout_frame *frame = &coded->frames[block];
	uint64_t plain = layout_block_pages(block, file->slot.pages) * STORE_PAGE;
	void *opened = frame->codec ? decoder->opened : to;
	if (signature_check(file->signature, coded->offset[block], frame->length, err) < 0)
		return -1;
	if (layout_checksum(bytes, frame->length) != frame->checksum)
		return bad_block(file, block, image, "differ from their checksum", err);
	if (!coded->cipher && !frame->codec)
		memcpy(to, bytes, plain);
	if (coded->cipher && !cipher_decrypt(coded->cipher, block, frame->codec, plain, opened, bytes, frame->length,
					     frame->tag))
		return bad_block(file, block, image, "have been altered since they were encrypted", err);
	if (frame->codec && !unpacker_unpack(decoder->unpacker, (int)frame->codec, to, plain,
					     coded->cipher ? opened : bytes, frame->length))
		return bad_block(file, block, image, "are not what was compressed", err);
	return 0;
}

static int read_and_decode(const struct page_file *file, uint64_t block, void *to, const char *image,
			   struct fsnap_error *err)
{
	struct image_extent extent = coded_extent(file, block);
	struct image_decoder *decoder = image_decoder_new(err);
	int result = decoder ? read_exactly(extent.fd, decoder->stored, extent.bytes, extent.offset, image, err) : -1;
	if (result == 0)
		result = coded_decode(file, block, decoder->stored, to, decoder, image, err);
	image_decoder_free(decoder);
	return result;
}

static bool is_ready(const struct coded *coded, uint64_t block)
{
	return atomic_load_explicit(&coded->ready[block], memory_order_acquire);
}

int coded_prepare(const struct page_file *file, uint64_t block, const char *image, struct fsnap_error *err)
{
	struct coded *coded = file->coded;
	int result = 0;
	if (is_ready(coded, block))
		return 0;
	pthread_mutex_lock(&coded->lock[block % LOCKS]);
	if (!is_ready(coded, block)) {
		result = read_and_decode(file, block, medium_at(file->medium, block * LAYOUT_BLOCK), image, err);
		atomic_store_explicit(&coded->ready[block], result == 0, memory_order_release);
	}
	pthread_mutex_unlock(&coded->lock[block % LOCKS]);
	return result;
}

int coded_verify(const struct page_file *file, uint64_t block, const char *image, struct fsnap_error *err)
{
	if (is_ready(file->coded, block))
		return 0;
	cleanup_free void *pages = malloc(LAYOUT_BLOCK);
	if (!pages)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "image %s: its blocks", image);
	return read_and_decode(file, block, pages, image, err);
}
