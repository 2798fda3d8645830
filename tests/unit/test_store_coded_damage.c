/*
 * test_store_coded_damage.c - files of compressed and encrypted images that somebody has been at.
 *
 * Shown: with any byte altered (by somebody who can compute checksums), blocks exchanged, or cut, an image is refused; a
 * frame that says it is what it is not fills no more than its block.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "store/cipher.h"
#include "store/codec.h"
#include "store/coded.h"
#include "store/internal.h"
#include "store/scope.h"
#include "store/store.h"

#include <cmocka.h>

#include "test_store.h"
#include "coded_world.h"

/* --- altered, exchanged ----------------------------------------------------------------------------- */

static void check_section(struct bytes *bytes, struct layout_section *section)
{
	section->checksum = layout_checksum(bytes->at + section->offset, section->length);
}

static void altered(void **state)
{
	(void)state;
	struct store *store = open_with(key_file("key"));
	make(store, "a", &sealed, PAGES);
	struct bytes bytes = load("a");
	struct layout_slot *slot = &bytes.head.slot[0];
	struct layout_frame *frames = (void *)(bytes.at + slot->blocks.offset);

	/* of the head, anything that a reader could believe */
	for (size_t at = 0; at < offsetof(struct layout_slot, zero); at++) {
		struct layout_head head = bytes.head;
		((uint8_t *)&head.slot[0])[at] ^= 1;
		if (at < 24) /* generation and UUID say which slot counts: two that agree are altered */
			continue;
		save(&bytes, head);
		struct fsnap_error err = { 0 };
		struct image *image = image_open(store, "a", &err);
		if (image || !err.code || (err.code == FSNAP_E_NOMEM))
			fail_msg("byte %zu of the slot is not missed: %s", at, err.message);
	}
	struct layout_head head = bytes.head;
	head.super.uuid[3] ^= 1;
	head.slot[0].uuid[3] ^= 1;
	save(&bytes, head);
	expect_refused(store, "a", FSNAP_E_IMAGE_KEY, "another key");
	head = bytes.head;
	head.slot[0].generation++;
	save(&bytes, head);
	expect_refused(store, "a", FSNAP_E_IMAGE_CORRUPT, "altered");

	/* of what is encrypted: blocks, with and without what vouches for them; tables */
	uint8_t *first = bytes.at + slot->pages_offset;
	first[100] ^= 1;
	save(&bytes, bytes.head);
	expect_refused(store, "a", FSNAP_E_IMAGE_CORRUPT, "checksum");
	frames[0].checksum = layout_checksum(first, frames[0].length);
	head = bytes.head;
	check_section(&bytes, &head.slot[0].blocks);
	save(&bytes, head);
	expect_refused(store, "a", FSNAP_E_IMAGE_CORRUPT, "altered");
	first[100] ^= 1;
	frames[0].checksum = layout_checksum(first, frames[0].length);
	struct layout_section *tables[] = { &head.slot[0].metadata, &head.slot[0].index };
	for (int i = 0; i < 2; i++) {
		head = bytes.head;
		bytes.at[tables[i]->offset + 3] ^= 1;
		check_section(&bytes, tables[i]);
		save(&bytes, head);
		expect_refused(store, "a", FSNAP_E_IMAGE_CORRUPT, "altered");
		bytes.at[tables[i]->offset + 3] ^= 1;
	}
	/* cut */
	save(&bytes, bytes.head);
	expect(store, "a", PAGES);
	assert_int_equal(truncate(bytes.path, (off_t)(slot->length - 1)), 0);
	expect_refused(store, "a", FSNAP_E_IMAGE_TRUNCATED, "ends after");
	free(bytes.at);
	store_close(store);
}

/* Two blocks of the same length change places, and all that is said of them. */
static void exchanged(void **state)
{
	(void)state;
	const struct store_coding only = { STORE_PLAIN, 0, STORE_XCHACHA20 };
	struct store *store = open_with(key_file("key"));
	make(store, "a", &only, 512);
	make(store, "b", &only, 512);
	struct bytes a = load("a"), b = load("b");
	struct layout_slot *slot = &a.head.slot[0];
	struct layout_frame *frames = (void *)(a.at + slot->blocks.offset), frame = frames[0];
	uint8_t *pages = a.at + slot->pages_offset, *room = malloc(LAYOUT_BLOCK);
	memcpy(room, pages, LAYOUT_BLOCK);
	memcpy(pages, pages + LAYOUT_BLOCK, LAYOUT_BLOCK);
	memcpy(pages + LAYOUT_BLOCK, room, LAYOUT_BLOCK);
	frames[0] = frames[1];
	frames[1] = frame;
	struct layout_head head = a.head;
	check_section(&a, &head.slot[0].blocks);
	save(&a, head);
	expect_refused(store, "a", FSNAP_E_IMAGE_CORRUPT, "altered");
	/* a block of another image of the same key, at its own place */
	free(a.at);
	store_remove(store, "a", NULL);
	make(store, "a", &only, 512);
	a = load("a");
	slot = &a.head.slot[0];
	memcpy(a.at + slot->pages_offset, b.at + b.head.slot[0].pages_offset, LAYOUT_BLOCK);
	memcpy(a.at + slot->blocks.offset, b.at + b.head.slot[0].blocks.offset, sizeof(frame));
	head = a.head;
	check_section(&a, &head.slot[0].blocks);
	save(&a, head);
	expect_refused(store, "a", FSNAP_E_IMAGE_CORRUPT, "altered");
	free(a.at);
	free(b.at);
	free(room);
	store_close(store);
}

/* --- frames that lie --------------------------------------------------------------------------------------- */

static struct bytes compressed;

static void put_frames(void (*change)(struct layout_head *head, struct layout_frame *frames, uint8_t *area))
{
	uint8_t *copy = malloc(compressed.n), *whole = compressed.at;
	memcpy(copy, whole, compressed.n);
	struct layout_head head = compressed.head;
	struct layout_frame *frames = (void *)(copy + head.slot[0].blocks.offset);
	uint8_t *area = copy + head.slot[0].pages_offset;
	change(&head, frames, area);
	for (uint64_t i = 0, at = 0; i < layout_blocks(head.slot[0].pages) && at < compressed.n / 2; at += frames[i++].length)
		frames[i].checksum = layout_checksum(area + at, frames[i].length < LAYOUT_BLOCK ? frames[i].length : 0);
	compressed.at = copy;
	check_section(&compressed, &head.slot[0].blocks);
	save(&compressed, head);
	compressed.at = whole;
	free(copy);
}

static void longer_than_a_block(struct layout_head *head, struct layout_frame *frames, uint8_t *area)
{
	(void)head, (void)area;
	frames[0].length = (uint32_t)LAYOUT_BLOCK + 1;
}

static void empty(struct layout_head *head, struct layout_frame *frames, uint8_t *area)
{
	(void)area;
	head->slot[0].coding.stored -= frames[1].length;
	frames[1].length = 0;
}

static void another_codec(struct layout_head *head, struct layout_frame *frames, uint8_t *area)
{
	(void)head, (void)area;
	frames[0].codec = STORE_LZ4;
}

static void an_unknown_codec(struct layout_head *head, struct layout_frame *frames, uint8_t *area)
{
	(void)frames, (void)area;
	head->slot[0].coding.codec = 77;
}

static void a_long_page_area(struct layout_head *head, struct layout_frame *frames, uint8_t *area)
{
	(void)frames, (void)area;
	head->slot[0].coding.stored = head->slot[0].pages * STORE_PAGE + 1;
}

static void a_wrong_sum(struct layout_head *head, struct layout_frame *frames, uint8_t *area)
{
	(void)frames, (void)area;
	head->slot[0].coding.stored--;
}

/* A gibibyte of zeroes in a few bytes; what is behind it in the frame's place is none of it. */
static void a_bomb(struct layout_head *head, struct layout_frame *frames, uint8_t *area)
{
	size_t n = 1ull << 30;
	void *zeroes = mmap(NULL, n, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	(void)head;
	size_t length = ZSTD_compress(area, frames[0].length, zeroes, n, 1);
	munmap(zeroes, n);
	assert_false(ZSTD_isError(length));
}

/* Half of what the block is. */
static void too_little(struct layout_head *head, struct layout_frame *frames, uint8_t *area)
{
	static uint8_t half[LAYOUT_BLOCK / 2];
	(void)head;
	size_t length = ZSTD_compress(area, frames[0].length, half, sizeof(half), 1);
	assert_false(ZSTD_isError(length));
	memset(area + length, 0, frames[0].length - length);
}

static void not_compressed(struct layout_head *head, struct layout_frame *frames, uint8_t *area)
{
	(void)head;
	memset(area, 0xa5, frames[0].length);
}

static void frames_that_lie(void **state)
{
	(void)state;
	static const struct {
		void (*change)(struct layout_head *head, struct layout_frame *frames, uint8_t *area);
		const char *words;
	} lies[] = {
		{ longer_than_a_block, "impossible length" },
		{ empty, "impossible length" },
		{ another_codec, "another way" },
		{ an_unknown_codec, "format does not know" },
		{ a_long_page_area, "longer than what it was" },
		{ a_wrong_sum, "not as long as it says" },
		{ a_bomb, "not what was compressed" },
		{ too_little, "not what was compressed" },
		{ not_compressed, "not what was compressed" },
	};
	struct store *store = world_store(STORE_WRITE);
	make(store, "a", &codings[0], PAGES);
	compressed = load("a");
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		put_frames(lies[i].change);
		expect_refused(store, "a", FSNAP_E_IMAGE_CORRUPT, lies[i].words);
	}
	free(compressed.at);
	store_close(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = { STORE_TEST(altered), STORE_TEST(exchanged), STORE_TEST(frames_that_lie) };
	world_base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	return cmocka_run_group_tests(tests, NULL, NULL);
}
