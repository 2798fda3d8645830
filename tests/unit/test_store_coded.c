/*
 * test_store_coded.c - images that are compressed, encrypted, or both.
 *
 * Shown: each reads as if it were stored as it is, block by block and through a descriptor, alone and in a chain, made to
 * stand alone, signed; nothing of an encrypted one can be read in its file, or in any file while it is written; without
 * the key, with another, with any byte altered (by somebody who can compute checksums), blocks exchanged, or cut, it is
 * refused; a frame that says it is what it is not fills no more than its block.
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

#define SEED 11
#define PAGES 600 /* more than two blocks */
#define MARK "a very secret sentence, which is nowhere else"

static const struct store_coding codings[] = {
	{ STORE_ZSTD, 1, STORE_OPEN },	{ STORE_LZ4, 1, STORE_OPEN },	    { STORE_LZ4, 9, STORE_OPEN },
	{ STORE_ZSTD, -5, STORE_XCHACHA20 }, { STORE_PLAIN, 0, STORE_XCHACHA20 }, { STORE_LZ4, 1, STORE_AES256 },
	{ STORE_PLAIN, 0, STORE_AES256 },
};
#define CODINGS (sizeof(codings) / sizeof(codings[0]))
static const struct store_coding sealed = { STORE_ZSTD, 1, STORE_XCHACHA20 };

static const char *key_file(const char *name)
{
	struct fsnap_error err = { 0 };
	const char *path = world_path(name);
	if (access(path, F_OK) < 0 && key_make_image(path, &err) < 0)
		fail_msg("%s", err.message);
	return path;
}

static struct store *open_with(const char *key)
{
	struct store *store = world_store(STORE_WRITE);
	assert_int_equal(store_set_key(store, key, NULL), 0);
	return store;
}

static bool have(const struct store_coding *coding)
{
	return coding->cipher != STORE_AES256 || __builtin_cpu_supports("aes");
}

/* --- an image of which a part can be compressed --------------------------------------------------- */

static void fill_page(uint8_t *page, uint64_t i)
{
	seed_page(page, SEED, i);
	if (i % 3)
		for (size_t at = 0; at < STORE_PAGE; at += sizeof(MARK))
			snprintf((char *)page + at, STORE_PAGE - at, "%s", MARK);
}

static int put_image(struct image_writer *writer, uint64_t pages, struct fsnap_error *err)
{
	image_tree tree = { .root_pid = SEED, .comm = "worker", .host = MARK, .writer = "test", .hold = "", .boot_id = "" };
	struct page_run run = { .page = 5, .at = 0, .npages = (uint32_t)pages, .space = 1 };
	image_writer_take(writer, pages);
	for (uint64_t i = 0; i < pages; i++)
		fill_page(image_writer_page(writer, i), i);
	if (pages && image_writer_add_run(writer, &run, err) < 0)
		return -1;
	return image_writer_put(writer, IMAGE_TREE, true, "tree", (xdrproc_t)xdr_image_tree, &tree, err);
}

static void make(struct store *store, const char *name, const struct store_coding *coding, uint64_t pages)
{
	struct fsnap_error err = { 0 };
	struct image_writer *writer = image_writer_open_coded(store, name, pages, coding, &err);
	if (!writer || put_image(writer, pages, &err) < 0 || image_writer_commit(writer, NULL, &err) < 0)
		fail_msg("writing %s: %s", name, err.message);
}

/* NULL, or what differs. */
static const char *compare(struct image *image, uint64_t pages)
{
	uint8_t want[STORE_PAGE], read[STORE_PAGE];
	struct fsnap_error err = { 0 };
	image_tree tree = { 0 };
	if (image_pages(image) != pages || image_get(image, IMAGE_TREE, 0, (xdrproc_t)xdr_image_tree, &tree, NULL) < 0)
		return "number of pages, or the tree record";
	bool same = strcmp(tree.host, MARK) == 0;
	xdr_free((xdrproc_t)xdr_image_tree, &tree);
	if (!same || image_verify_blocks(image, 0, image_blocks(image), &err) < 0)
		return same ? "blocks" : "the tree record";
	if (pages && image_prepare(image, 0, 1, &err) < 0) /* others when they are asked for */
		return "preparing";
	for (uint64_t i = pages; i-- > 0;) {
		struct image_place place = image_locate(image, i);
		fill_page(want, i);
		const void *page = image_page(image, i);
		if (!page || memcmp(page, want, STORE_PAGE) != 0)
			return "content of a page";
		if (pread(image_page_descriptor(image, 0), read, STORE_PAGE, (off_t)place.offset) != STORE_PAGE ||
		    memcmp(read, want, STORE_PAGE) != 0)
			return "a page read from its descriptor";
	}
	return NULL;
}

/* As the pager does. */
static void read_block_by_block(const struct image *image, uint64_t pages)
{
	struct fsnap_error err = { 0 };
	struct image_decoder *decoder = image_decoder_new(&err);
	uint8_t *stored = malloc(LAYOUT_BLOCK), *to = malloc(LAYOUT_BLOCK), want[STORE_PAGE];
	for (uint64_t block = 0; block < image_blocks(image); block++) {
		struct image_extent extent = image_block_extent(image, block);
		assert_true(extent.coded && extent.bytes <= LAYOUT_BLOCK);
		assert_int_equal(pread(extent.fd, stored, extent.bytes, (off_t)extent.offset), extent.bytes);
		if (image_decode_block(image, block, stored, to, decoder, &err) < 0)
			fail_msg("%s", err.message);
		for (uint64_t i = 0; i < layout_block_pages(block, pages); i++) {
			fill_page(want, block * STORE_BLOCK_PAGES + i);
			assert_memory_equal(to + i * STORE_PAGE, want, STORE_PAGE);
		}
		stored[extent.bytes / 2] ^= 4;
		assert_int_equal(image_decode_block(image, block, stored, to, decoder, NULL), -1);
	}
	image_decoder_free(decoder);
	free(stored);
	free(to);
}

static void expect(struct store *store, const char *name, uint64_t pages)
{
	struct fsnap_error err = { 0 };
	struct image *image = image_open(store, name, &err);
	if (!image)
		fail_msg("%s: %s", name, err.message);
	const char *differs = compare(image, pages);
	if (differs)
		fail_msg("%s differs: %s", name, differs);
	if (image_is_coded(image))
		read_block_by_block(image, pages);
	image_close(image);
}

/* Opening it, or at the latest reading all of it, and with which code. */
static void expect_refused(struct store *store, const char *name, int code, const char *words)
{
	struct fsnap_error err = { 0 };
	struct image *image = image_open(store, name, &err);
	if (image && image_verify_blocks(image, 0, image_blocks(image), &err) == 0 && image_hints(image, &err) == 0)
		fail_msg("%s is accepted (%s)", name, words);
	image_close(image);
	if (err.code != code || !strstr(err.message, words))
		fail_msg("expected %d '%s': %d %s", code, words, err.code, err.message);
}

static void as_it_was(void **state)
{
	static const uint64_t sizes[] = { 0, 1, 255, 256, 257, PAGES };
	(void)state;
	struct store *store = open_with(key_file("key"));
	for (size_t i = 0; i < CODINGS; i++)
		for (size_t j = 0; j < sizeof(sizes) / sizeof(sizes[0]); j++) {
			char name[32];
			snprintf(name, sizeof(name), "c%zu-%zu", i, j);
			if (!have(&codings[i]))
				continue;
			make(store, name, &codings[i], sizes[j]);
			expect(store, name, sizes[j]);
		}
	struct store_entry *entries;
	size_t n;
	assert_int_equal(store_list(store, &entries, &n, NULL), 0);
	for (size_t i = 0; i < n; i++) {
		const struct store_coding *coding = &codings[entries[i].name[1] - '0'];
		assert_int_equal(entries[i].codec, coding->codec);
		assert_int_equal(entries[i].cipher, coding->cipher);
		if (coding->codec && entries[i].page_bytes == PAGES * STORE_PAGE)
			assert_true(entries[i].file_bytes < LAYOUT_PAGES + PAGES * STORE_PAGE / 2);
	}
	free(entries);
	store_close(store);
}

/* --- nothing can be read ------------------------------------------------------------------------- */

static bool found;

static int look_for_mark(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)ftw;
	if (type != FTW_F || st->st_size == 0)
		return 0;
	cleanup_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	void *bytes = mmap(NULL, (size_t)st->st_size, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(bytes, MAP_FAILED);
	found |= memmem(bytes, (size_t)st->st_size, MARK, strlen(MARK)) != NULL;
	munmap(bytes, (size_t)st->st_size);
	return 0;
}

static bool mark_is_in_a_file(void)
{
	found = false;
	assert_int_equal(nftw(world, look_for_mark, 8, FTW_PHYS), 0);
	return found;
}

static void nothing_can_be_read(void **state)
{
	(void)state;
	const struct store_coding only = { STORE_PLAIN, 0, STORE_XCHACHA20 };
	struct store *store = open_with(key_file("key"));
	struct fsnap_error err = { 0 };
	struct image_writer *writer = image_writer_open_coded(store, "a", PAGES, &only, &err);
	assert_non_null(writer);
	assert_int_equal(put_image(writer, PAGES, &err), 0);
	assert_false(mark_is_in_a_file());
	assert_int_equal(image_writer_commit(writer, NULL, &err), 0);
	assert_false(mark_is_in_a_file());
	make(store, "b", &sealed, PAGES);
	assert_false(mark_is_in_a_file());
	/* nor of one that was given up */
	writer = image_writer_open_coded(store, "c", PAGES, &sealed, &err);
	assert_int_equal(put_image(writer, PAGES, &err), 0);
	image_writer_abort(writer);
	assert_false(mark_is_in_a_file());
	make(store, "plain", NULL, PAGES);
	assert_true(mark_is_in_a_file()); /* the look itself is right */
	store_close(store);
}

/* So many entries that the tables lie behind the pages. */
static void add_runs(struct image_writer *writer, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		struct page_run run = { .page = 2 * i, .at = 0, .npages = 1, .space = 2 };
		assert_int_equal(image_writer_add_run(writer, &run, NULL), 0);
	}
}

/* Space that was a plain image's, all of which an encrypted one does not need. */
static void recycled(void **state)
{
	(void)state;
	static const uint64_t runs[] = { 0, 100000 };
	struct fsnap_error err = { 0 };
	struct store *store = open_with(key_file("key"));
	for (int i = 0; i < 2; i++) {
		make(store, "plain", NULL, PAGES);
		assert_int_equal(store_remove(store, "plain", &err), 0);
		assert_true(mark_is_in_a_file());
		struct image_writer *writer = image_writer_open_coded(store, "over", PAGES, &sealed, &err);
		assert_true(image_writer_recycled(writer));
		assert_int_equal(put_image(writer, PAGES, &err), 0);
		add_runs(writer, runs[i]);
		assert_int_equal(image_writer_commit(writer, NULL, &err), 0);
		assert_false(mark_is_in_a_file());
		expect(store, "over", PAGES);
		assert_int_equal(store_remove(store, "over", &err), 0);
		assert_int_equal(store_trim(store, &err) >= 0, true);
	}
	store_close(store);
}

/* --- keys ------------------------------------------------------------------------------------------ */

static void put_line(const char *path, const char *line)
{
	cleanup_fd int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, line, strlen(line)), strlen(line));
}

static void keys(void **state)
{
	(void)state;
	char other[600];
	unsetenv("FSNAP_KEY");
	snprintf(other, sizeof(other), "%s", key_file("other"));
	struct store *store = open_with(key_file("key"));
	make(store, "a", &sealed, PAGES);
	assert_int_equal(store_set_key(store, NULL, NULL), 0);
	expect_refused(store, "a", FSNAP_E_IMAGE_KEY, "no key is given");
	assert_int_equal(store_set_key(store, other, NULL), 0);
	expect_refused(store, "a", FSNAP_E_IMAGE_KEY, "another key");
	assert_int_equal(store_set_key(store, NULL, NULL), 0);
	setenv("FSNAP_KEY", key_file("key"), 1);
	expect(store, "a", PAGES);
	unsetenv("FSNAP_KEY");
	/* that others can read is no secret */
	assert_int_equal(store_set_key(store, key_file("key"), NULL), 0);
	assert_int_equal(chmod(key_file("key"), 0640), 0);
	expect_refused(store, "a", FSNAP_E_USAGE, "others may read it");
	assert_int_equal(chmod(key_file("key"), 0600), 0);
	expect(store, "a", PAGES);
	/* a key to sign with is none */
	struct fsnap_error err = { 0 };
	assert_int_equal(key_make(world_path("sign"), &err), 0);
	assert_int_equal(store_set_key(store, world_path("sign"), NULL), 0);
	expect_refused(store, "a", FSNAP_E_USAGE, "not a key that images are encrypted with");
	assert_null(image_writer_open_coded(store, "b", 1, &sealed, &err));
	store_close(store);
}

static void passphrases(void **state)
{
	(void)state;
	char source[600];
	struct fsnap_error err = { 0 };
	snprintf(source, sizeof(source), "passphrase:%s", world_path("words"));
	put_line(world_path("words"), "correct horse\nand a second line\n");
	struct store *store = open_with(source);
	make(store, "a", &sealed, 3);
	make(store, "b", &sealed, 3); /* the same salt: Argon2id is asked once */
	store_close(store);
	store = open_with(source);
	expect(store, "a", 3);
	expect(store, "b", 3);
	assert_int_equal(store_set_key(store, key_file("key"), NULL), 0);
	expect_refused(store, "a", FSNAP_E_IMAGE_KEY, "another passphrase");
	put_line(world_path("words"), "correct horsf\n");
	assert_int_equal(store_set_key(store, source, NULL), 0);
	expect_refused(store, "a", FSNAP_E_IMAGE_KEY, "another passphrase");
	put_line(world_path("words"), "\n");
	assert_int_equal(store_set_key(store, source, NULL), 0);
	assert_null(image_writer_open_coded(store, "c", 1, &sealed, &err));
	assert_int_equal(err.code, FSNAP_E_USAGE);
	store_close(store);
}

/* --- somebody has been at it -------------------------------------------------------------------------- */

struct bytes {
	uint8_t *at;
	size_t n;
	struct layout_head head;
	char path[512];
};

static struct bytes load(const char *name)
{
	struct bytes bytes;
	struct stat st;
	snprintf(bytes.path, sizeof(bytes.path), "%s/images/%s.fsnap", world, name);
	cleanup_fd int fd = open(bytes.path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(fstat(fd, &st), 0);
	bytes.n = (size_t)st.st_size;
	bytes.at = malloc(bytes.n);
	assert_int_equal(read(fd, bytes.at, bytes.n), bytes.n);
	memcpy(&bytes.head, bytes.at, sizeof(bytes.head));
	return bytes;
}

/* As somebody does who can compute checksums. */
static void save(struct bytes *bytes, struct layout_head head)
{
	layout_seal_super(&head.super);
	layout_seal_slot(&head.slot[0]);
	cleanup_fd int fd = open(bytes->path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, bytes->at, bytes->n, 0), bytes->n);
	assert_int_equal(pwrite(fd, &head, sizeof(head), 0), sizeof(head));
}

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

/* --- images that build on others --------------------------------------------------------------------------- */

static void make_child(struct store *store, const char *name, const struct image *parent, const struct store_coding *coding)
{
	struct fsnap_error err = { 0 };
	struct page_run run = { .page = 5, .at = STORE_REFERRED, .npages = PAGES, .space = 1 };
	struct page_run own = { .page = 5 + PAGES, .at = 0, .npages = 1, .space = 1 };
	image_tree tree = { .root_pid = SEED, .comm = "worker", .host = MARK, .writer = "test", .hold = "", .boot_id = "" };
	struct image_writer *writer = image_writer_open_coded(store, name, 8, coding, &err);
	assert_non_null(writer);
	if (image_writer_inherit(writer, parent, &err) < 0)
		fail_msg("%s", err.message);
	image_writer_take(writer, 1);
	fill_page(image_writer_page(writer, 0), 4711);
	assert_int_equal(image_writer_add_run(writer, &run, &err), 0);
	assert_int_equal(image_writer_add_run(writer, &own, &err), 0);
	assert_int_equal(image_writer_put(writer, IMAGE_TREE, true, "tree", (xdrproc_t)xdr_image_tree, &tree, &err), 0);
	if (image_writer_commit(writer, NULL, &err) < 0)
		fail_msg("%s", err.message);
}

static void expect_child(struct store *store, const char *name, unsigned files)
{
	struct fsnap_error err = { 0 };
	struct image *image = image_open(store, name, &err);
	uint8_t want[STORE_PAGE];
	size_t n;
	if (!image)
		fail_msg("%s", err.message);
	const struct page_run *runs = image_runs(image, 1, &n);
	assert_int_equal(image_files(image), files);
	for (size_t i = 0; i < n; i++)
		for (uint64_t j = 0; j < runs[i].npages; j++) {
			uint64_t page = runs[i].page + j - 5;
			fill_page(want, page == PAGES ? 4711 : page);
			assert_memory_equal(image_page(image, runs[i].at + j), want, STORE_PAGE);
		}
	assert_int_equal(image_verify_blocks(image, 0, image_blocks(image), &err), 0);
	image_close(image);
}

static void chains(void **state)
{
	(void)state;
	struct store *store = open_with(key_file("key"));
	struct fsnap_error err = { 0 };
	make(store, "plain", NULL, PAGES);
	make(store, "base", &sealed, PAGES);
	struct image *plain = image_open(store, "plain", &err), *base = image_open(store, "base", &err);
	make_child(store, "packed", plain, &codings[0]); /* compressed on plain, plain on encrypted */
	make_child(store, "open", base, NULL);
	make_child(store, "child", base, &sealed);
	expect_child(store, "packed", 2);
	expect_child(store, "open", 2);
	expect_child(store, "child", 2);
	/* what is encrypted does not depend on what anybody may write */
	struct image_writer *writer = image_writer_open_coded(store, "no", 8, &sealed, &err);
	assert_int_equal(image_writer_inherit(writer, plain, &err), -1);
	assert_non_null(strstr(err.message, "not encrypted"));
	image_writer_abort(writer);
	image_close(plain);
	image_close(base);
	if (store_compact(store, "child", NULL, &(struct fsnap_error){ 0 }) < 0)
		fail_msg("compact");
	expect_child(store, "child", 1);
	assert_int_equal(store_set_key(store, NULL, NULL), 0);
	expect_refused(store, "child", FSNAP_E_IMAGE_KEY, "no key"); /* it is encrypted as it was */
	expect_refused(store, "open", FSNAP_E_IMAGE_KEY, "base");
	store_close(store);
}

static void signed_too(void **state)
{
	(void)state;
	struct fsnap_error err = { 0 };
	struct trust nobody = { 0 }, trust = { 0 };
	uint8_t secret[KEY_SECRET], public[1][KEY_PUBLIC];
	struct store *store = open_with(key_file("key"));
	make(store, "a", &sealed, PAGES);
	assert_int_equal(key_make(world_path("sign"), &err), 0);
	assert_int_equal(key_read_secret(world_path("sign"), secret, &err), 0);
	assert_int_equal(key_read_public(world_path("sign.pub"), public[0], &err), 0);
	struct image *image = image_open_signed(store, "a", &nobody, &err);
	assert_int_equal(image_sign(image, secret, &err), 0);
	image_close(image);
	trust = (struct trust){ public, 1 };
	image = image_open_signed(store, "a", &trust, &err);
	assert_non_null(image);
	assert_null(compare(image, PAGES));
	image_close(image);
	/* without the key it is still seen that it was altered, and before anything is decoded */
	struct bytes bytes = load("a");
	bytes.at[bytes.head.slot[0].blocks.offset] ^= 1;
	save(&bytes, bytes.head);
	free(bytes.at);
	assert_int_equal(store_set_key(store, NULL, NULL), 0);
	assert_null(image_open_signed(store, "a", &trust, &err));
	assert_int_equal(err.code, FSNAP_E_IMAGE_SIGNATURE);
	store_close(store);
}

static void what_is_asked_for(void **state)
{
	(void)state;
	static const char *const wrong[] = { "", "gzip", "zstd:", "zstd:99", "lz4:0", "lz4:13", "zstdx", "lz4:1x" };
	struct store_coding coding = { 0 };
	struct fsnap_error err = { 0 };
	assert_int_equal(store_coding_compress(&coding, "zstd:19", &err), 0);
	assert_true(coding.codec == STORE_ZSTD && coding.level == 19);
	assert_int_equal(store_coding_compress(&coding, "lz4", &err), 0);
	assert_true(coding.codec == STORE_LZ4 && coding.level == 1);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		err = (struct fsnap_error){ 0 };
		assert_int_equal(store_coding_compress(&coding, wrong[i], &err), -1);
		assert_true(err.code == FSNAP_E_USAGE && err.hint[0]);
	}
	assert_int_equal(store_coding_encrypt(&coding, NULL, &err), 0);
	assert_int_equal(coding.cipher, STORE_XCHACHA20);
	assert_int_equal(store_coding_encrypt(&coding, "rot13", &err), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(as_it_was),	STORE_TEST(nothing_can_be_read), STORE_TEST(keys),	    STORE_TEST(altered),
		STORE_TEST(exchanged),	STORE_TEST(frames_that_lie),	 STORE_TEST(chains),	    STORE_TEST(signed_too),
		STORE_TEST(what_is_asked_for), STORE_TEST(passphrases), STORE_TEST(recycled),
	};
	world_base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	return cmocka_run_group_tests(tests, NULL, NULL);
}
