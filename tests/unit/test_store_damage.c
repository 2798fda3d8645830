/*
 * test_store_damage.c - what is not a whole image of this format is refused, and said why.
 *
 * Shown: files cut at many lengths; every byte of superblock, commit slot, metadata, block table
 * and index flipped; flipped pages; images of a newer format, another machine, unknown features;
 * records this version does not know; and headers with right checksums that lie.
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
#include <sys/stat.h>
#include <unistd.h>

#include "store/internal.h"
#include "store/store.h"

#include <cmocka.h>

#include "test_store.h"

#define SEED 33
#define PAGES 300

static char image_path[128];
static int image_file_fd; /* of the image under test, writable */
static struct layout_head head;

static void open_for_damage(void)
{
	snprintf(image_path, sizeof(image_path), "%s/images/a.fsnap", world);
	image_file_fd = open(image_path, O_RDWR | O_CLOEXEC);
	assert_true(image_file_fd >= 0);
	assert_int_equal(pread(image_file_fd, &head, sizeof(head), 0), sizeof(head));
}

static void make_image(void)
{
	struct store *store = world_store(STORE_WRITE);
	seed_make(store, "a", SEED, PAGES);
	store_close(store);
	open_for_damage();
}

static void write_head(void)
{
	assert_int_equal(pwrite(image_file_fd, &head, sizeof(head), 0), sizeof(head));
}

static void expect_whole(void)
{
	seed_expect(NULL, image_path, SEED, PAGES);
	close(image_file_fd);
}

/* A refusal has its code, names the image, and says what to do. */
static void expect_refused(int code, const char *words)
{
	struct fsnap_error err = {0};
	struct image *image = image_open(NULL, image_path, &err);
	image_close(image);
	if (image || err.code != code)
		fail_msg("expected %s, got %s: %s", fsnap_code_name(code),
			 image ? "an open image" : fsnap_code_name(err.code), err.message);
	assert_non_null(strstr(err.message, image_path));
	if (words && !strstr(err.message, words))
		fail_msg("expected '%s' in: %s", words, err.message);
	assert_true(err.hint[0]);
}

/* --- cut and flipped ----------------------------------------------------------------- */

static void cut_to(const char *bytes, uint64_t length)
{
	assert_int_equal(ftruncate(image_file_fd, 0), 0);
	assert_int_equal(pwrite(image_file_fd, bytes, length, 0), length);
	expect_refused(FSNAP_E_IMAGE_TRUNCATED, "the file ends");
}

static void truncated(void **state)
{
	(void)state;
	static const uint64_t lengths[] = {0,	 1,	7,    8,     9,	    15,	   16,
					   100,	 4095,	4096, 4097,  8191,  8192,  12287,
					   12288, 12289, 20000, MB(1), MB(2), MB(2) + 1};
	make_image();
	const uint64_t whole = head.slot[0].length;
	char *bytes = malloc(whole);
	assert_int_equal(pread(image_file_fd, bytes, whole, 0), whole);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
		cut_to(bytes, lengths[i]);
	for (uint64_t length = whole - 1; length > MB(2); length -= 65537)
		cut_to(bytes, length);
	assert_int_equal(pwrite(image_file_fd, bytes, whole, 0), whole);
	free(bytes);
	expect_whole();
}

/* Flips each byte of a range, one at a time; none may go unnoticed. */
static void flip_range(uint64_t offset, uint64_t length)
{
	for (uint64_t at = offset; at < offset + length; at++) {
		uint8_t byte, flipped;
		assert_int_equal(pread(image_file_fd, &byte, 1, (off_t)at), 1);
		flipped = byte ^ (at % 2 ? 0x01 : 0xff);
		assert_int_equal(pwrite(image_file_fd, &flipped, 1, (off_t)at), 1);
		struct fsnap_error err = {0};
		struct image *image = image_open(NULL, image_path, &err);
		if (image)
			fail_msg("byte %llu flipped, and the image opened", (unsigned long long)at);
		assert_non_null(strstr(err.message, image_path));
		assert_true(err.code == FSNAP_E_IMAGE_CORRUPT || at < 16);
		assert_int_equal(pwrite(image_file_fd, &byte, 1, (off_t)at), 1);
	}
}

static void every_byte_flipped(void **state)
{
	(void)state;
	make_image();
	const struct layout_slot *slot = &head.slot[0];
	flip_range(0, sizeof(struct layout_super));
	flip_range(STORE_PAGE, sizeof(struct layout_slot));
	flip_range(slot->metadata.offset, slot->metadata.length);
	flip_range(slot->blocks.offset, slot->blocks.length);
	flip_range(slot->index.offset, slot->index.length);
	expect_whole();
}

static void a_flipped_page_is_found(void **state)
{
	(void)state;
	make_image();
	for (uint64_t page = 0; page < PAGES; page += 23) {
		off_t at = (off_t)(head.slot[0].pages_offset + page * STORE_PAGE + page);
		uint8_t byte, flipped;
		assert_int_equal(pread(image_file_fd, &byte, 1, at), 1);
		flipped = byte ^ 0x10;
		assert_int_equal(pwrite(image_file_fd, &flipped, 1, at), 1);

		struct fsnap_error err = {0};
		struct image *image = image_open(NULL, image_path, &err);
		assert_non_null(image);
		uint64_t bad = page / STORE_BLOCK_PAGES;
		assert_int_equal(image_verify_blocks(image, bad, 1, &err), -1);
		assert_int_equal(err.code, FSNAP_E_IMAGE_CORRUPT);
		assert_int_equal(image_verify_blocks(image, 1 - bad, 1, NULL), 0);
		image_close(image);
		assert_int_equal(pwrite(image_file_fd, &byte, 1, at), 1);
	}
	expect_whole();
}

/* --- foreign ---------------------------------------------------------------------------- */

static void foreign_files(void **state)
{
	(void)state;
	make_image();
	struct layout_head good = head;

	memcpy(head.super.magic, "PK\3\4\0\0\0\0", 8);
	write_head();
	expect_refused(FSNAP_E_IMAGE_FORMAT, "not an fsnap image");

	head = good;
	head.super.format = IMAGE_FORMAT + 1; /* the checksum may be elsewhere there */
	write_head();
	expect_refused(FSNAP_E_IMAGE_FORMAT, "format 2");

	head = good;
	head.super.machine = 183; /* EM_AARCH64 */
	write_head();
	expect_refused(FSNAP_E_IMAGE_ARCH, "183");
	layout_seal_super(&head.super);
	write_head();
	expect_refused(FSNAP_E_IMAGE_ARCH, "183");

	head = good;
	head.super.required = 1ull << 40;
	layout_seal_super(&head.super);
	write_head();
	expect_refused(FSNAP_E_IMAGE_FORMAT, "0x10000000000");

	head = good;
	head.super.optional = ~0ull;
	layout_seal_super(&head.super);
	write_head();
	expect_whole();
}

static void two_slots(void **state)
{
	(void)state;
	make_image();
	struct layout_head good = head;

	/* A second commit that was torn: the first still counts. */
	head.slot[1] = head.slot[0];
	head.slot[1].generation = 2;
	head.slot[1].pages = 1;
	write_head();
	seed_expect(NULL, image_path, SEED, PAGES);

	/* A whole second one counts, and the first may be anything. */
	head.slot[1] = good.slot[0];
	head.slot[1].generation = 2;
	layout_seal_slot(&head.slot[1]);
	memset(&head.slot[0], 0x77, sizeof(head.slot[0]));
	write_head();
	seed_expect(NULL, image_path, SEED, PAGES);

	/* One of the file's former life does not. */
	head = good;
	head.slot[0].uuid[3] ^= 1;
	layout_seal_slot(&head.slot[0]);
	write_head();
	expect_refused(FSNAP_E_IMAGE_CORRUPT, "commit slots");
	memset(head.slot, 0, sizeof(head.slot));
	write_head();
	expect_refused(FSNAP_E_IMAGE_CORRUPT, "never committed");
	close(image_file_fd);
}

/* --- hints ------------------------------------------------------------------------------- */

static void make_image_with_hint(void)
{
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	struct image_writer *writer = image_writer_open(store, "a", PAGES, &err);
	image_heat_run run = {.page = 7, .pages = 9, .heat = 3};
	image_heat heat = {.identity.path = (char *)"/f", .runs = {1, &run}};
	assert_non_null(writer);
	assert_int_equal(seed_fill(writer, SEED, PAGES, &err), 0);
	assert_int_equal(image_writer_put_hint(writer, IMAGE_HEAT, "heat", (xdrproc_t)xdr_image_heat, &heat,
					       &err), 0);
	assert_int_equal(image_writer_commit(writer, NULL, &err), 0);
	store_close(store);
	open_for_damage();
}

static int read_hint(image_heat *heat)
{
	struct fsnap_error err = {0};
	struct image *image = image_open(NULL, image_path, &err);
	if (!image)
		fail_msg("without its hints the image is whole: %s", err.message);
	memset(heat, 0, sizeof(*heat));
	int result = image_hints(image, &err);
	if (result == 0) {
		assert_int_equal(image_hint_count(image, IMAGE_HEAT), 1);
		assert_int_equal(image_hint_count(image, IMAGE_TREE), 0);
		result = image_hint_get(image, IMAGE_HEAT, 0, (xdrproc_t)xdr_image_heat, heat, &err);
	} else {
		assert_int_equal(image_hint_count(image, IMAGE_HEAT), 0);
		assert_int_equal(err.code, FSNAP_E_IMAGE_CORRUPT);
	}
	image_close(image);
	return result;
}

static void damaged_hints_cost_the_hints(void **state)
{
	(void)state;
	image_heat heat;
	make_image_with_hint();
	assert_int_equal(read_hint(&heat), 0);
	assert_int_equal(heat.runs.runs_val[0].pages, 9);
	xdr_free((xdrproc_t)xdr_image_heat, (char *)&heat);
	const struct layout_section *hints = &head.slot[0].hints;
	for (uint64_t at = hints->offset; at < hints->offset + hints->length; at++) {
		uint8_t byte, flipped;
		assert_int_equal(pread(image_file_fd, &byte, 1, (off_t)at), 1);
		flipped = byte ^ 0x10;
		assert_int_equal(pwrite(image_file_fd, &flipped, 1, (off_t)at), 1);
		assert_int_equal(read_hint(&heat), -1);
		assert_int_equal(pwrite(image_file_fd, &byte, 1, (off_t)at), 1);
	}
	expect_whole();
}

/* --- lies with a right checksum ------------------------------------------------------------ */

#define SLOT_U64(field) (offsetof(struct layout_slot, field) / 8)

static void one_lie(size_t field, uint64_t value)
{
	struct layout_slot good = head.slot[0];
	((uint64_t *)&head.slot[0])[field] = value;
	layout_seal_slot(&head.slot[0]);
	write_head();
	if (value != ((uint64_t *)&good)[field]) {
		struct fsnap_error err = {0};
		struct image *image = image_open(NULL, image_path, &err);
		if (image)
			fail_msg("field %zu = %#llx was believed", field, (unsigned long long)value);
		assert_true(err.code == FSNAP_E_IMAGE_CORRUPT ||
			    err.code == FSNAP_E_IMAGE_TRUNCATED);
	}
	head.slot[0] = good;
	write_head();
}

static void lying_slots(void **state)
{
	(void)state;
	static const size_t fields[] = {
		SLOT_U64(pages_offset),	   SLOT_U64(pages),	     SLOT_U64(records),
		SLOT_U64(metadata.offset), SLOT_U64(metadata.length), SLOT_U64(blocks.offset),
		SLOT_U64(blocks.length),   SLOT_U64(index.offset),    SLOT_U64(index.length),
	};
	make_image();
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		uint64_t now = ((uint64_t *)&head.slot[0])[fields[i]];
		for (unsigned bit = 0; bit < 64; bit++) {
			one_lie(fields[i], 1ull << bit);
			one_lie(fields[i], now + (1ull << bit));
			one_lie(fields[i], now - (1ull << bit));
			one_lie(fields[i], ~0ull << bit);
		}
	}
	one_lie(SLOT_U64(length), ~0ull);
	one_lie(SLOT_U64(length), 0);
	expect_whole();
}

/* Puts a section back with a checksum that fits. */
static void write_section(struct layout_section *section, const void *bytes)
{
	assert_int_equal(pwrite(image_file_fd, bytes, section->length, (off_t)section->offset),
			 section->length);
	section->checksum = layout_checksum(bytes, section->length);
	layout_seal_slot(&head.slot[0]);
	write_head();
}

static void lying_runs(void **state)
{
	(void)state;
	make_image();
	struct layout_section *index = &head.slot[0].index;
	size_t count = index->length / sizeof(struct page_run);
	struct page_run *runs = malloc(index->length);
	assert_int_equal(pread(image_file_fd, runs, index->length, (off_t)index->offset),
			 index->length);
	const struct {
		size_t at;
		struct page_run run;
		const char *words;
	} lies[] = {
		{3, {.page = 12, .at = 6, .npages = 0, .space = 1}, "is empty"},
		{3, {.page = 12, .at = PAGES, .npages = 1, .space = 1}, "outside the page area"},
		{3, {.page = 12, .at = ~0ull, .npages = 2, .space = 1}, "outside the page area"},
		{3, {.page = 12, .at = 0, .npages = PAGES + 1, .space = 1}, "outside the page area"},
		{3, {.page = 12, .at = 6, .npages = 5, .space = 1}, "overlaps"},
		{3, {.page = 2, .at = 6, .npages = 1, .space = 1}, "overlaps"},
		{3, {.page = ~0ull, .at = 6, .npages = 1, .space = 1}, "address space"},
		{3, {.page = 1ull << 52, .at = 6, .npages = 1, .space = 1}, "address space"},
		{3, {.page = 12, .at = 6, .npages = 1, .space = 9}, "out of order"},
		{count - 1, {.page = 0, .at = 0, .npages = 1, .space = 0}, "out of order"},
	};
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct page_run good = runs[lies[i].at];
		runs[lies[i].at] = lies[i].run;
		write_section(index, runs);
		expect_refused(FSNAP_E_IMAGE_CORRUPT, lies[i].words);
		runs[lies[i].at] = good;
	}
	write_section(index, runs);
	free(runs);
	expect_whole();
}

/* Any byte of the metadata changed, checksum and all: it opens or it does not, and every record
 * decodes or it does not; nothing is read that is not there (run this under a sanitizer). */
static void lying_metadata(void **state)
{
	(void)state;
	make_image();
	struct layout_section *metadata = &head.slot[0].metadata;
	char *bytes = malloc(metadata->length);
	assert_int_equal(pread(image_file_fd, bytes, metadata->length, (off_t)metadata->offset),
			 metadata->length);
	static const char values[] = {0, 1, 0x7f, (char)0x80, (char)0xff};
	for (uint64_t at = 0; at < metadata->length; at++) {
		char good = bytes[at];
		for (size_t i = 0; i < sizeof(values); i++) {
			bytes[at] = values[i];
			write_section(metadata, bytes);
			struct fsnap_error err = {0};
			struct image *image = image_open(NULL, image_path, &err);
			for (size_t n = 0; image && n < image_count(image, IMAGE_FILE); n++) {
				image_file file = {0};
				if (image_get(image, IMAGE_FILE, n, (xdrproc_t)xdr_image_file,
					      &file, &err) == 0)
					xdr_free((xdrproc_t)xdr_image_file, &file);
			}
			image_close(image);
		}
		bytes[at] = good;
	}
	write_section(metadata, bytes);
	free(bytes);
	expect_whole();
}

/* --- records -------------------------------------------------------------------------------- */

static void write_with_unknown(const char *name, bool required)
{
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	struct image_writer *writer = image_writer_open(store, name, PAGES, &err);
	image_itimer unknown = {.value_us = 1};
	assert_int_equal(image_writer_put(writer, 4711, required, "quantum state",
					  (xdrproc_t)xdr_image_itimer, &unknown, &err),
			 0);
	seed_fill(writer, SEED, PAGES, &err);
	assert_int_equal(image_writer_commit(writer, NULL, &err), 0);
	store_close(store);
	snprintf(image_path, sizeof(image_path), "%s/images/%s.fsnap", world, name);
}

static void unknown_records(void **state)
{
	(void)state;
	write_with_unknown("optional", false);
	seed_expect(NULL, image_path, SEED, PAGES);
	write_with_unknown("required", true);
	expect_refused(FSNAP_E_IMAGE_FORMAT, "'quantum state'");
}

static void a_body_longer_than_its_struct(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	struct image_writer *writer = image_writer_open(store, "a", 0, &err);
	image_creds creds = {.uid = {1}};
	image_writer_put(writer, IMAGE_GHOST, true, "ghost", (xdrproc_t)xdr_image_creds, &creds,
			 &err);
	assert_int_equal(image_writer_commit(writer, NULL, &err), 0);
	struct image *image = image_open(store, "a", &err);
	assert_non_null(image);
	image_itimer timer = {0};
	assert_int_equal(image_get(image, IMAGE_GHOST, 0, (xdrproc_t)xdr_image_itimer, &timer, &err),
			 -1);
	assert_int_equal(err.code, FSNAP_E_IMAGE_CORRUPT);
	memset(&err, 0, sizeof(err));
	assert_int_equal(image_get(image, IMAGE_GHOST, 1, (xdrproc_t)xdr_image_creds, &creds, &err),
			 -1);
	assert_int_equal(err.code, FSNAP_E_IMAGE_CORRUPT);
	assert_int_equal(image_count(image, 4711), 0);
	image_close(image);
	store_close(store);
}

static void a_record_beyond_the_bounds_is_not_written(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	struct image_writer *writer = image_writer_open(store, "a", 0, &err);
	char *path = malloc(IMAGE_NAME + 2);
	memset(path, 'x', IMAGE_NAME + 1);
	path[IMAGE_NAME + 1] = '\0';
	image_special special = {.name = path};
	assert_int_equal(image_writer_put(writer, IMAGE_MACHINE, true, "machine",
					  (xdrproc_t)xdr_image_special, &special, &err),
			 -1);
	assert_non_null(strstr(err.message, "machine"));
	path[IMAGE_NAME] = '\0';
	assert_int_equal(image_writer_put(writer, IMAGE_MACHINE, true, "machine",
					  (xdrproc_t)xdr_image_special, &special, &err),
			 0);
	assert_int_equal(image_writer_commit(writer, NULL, &err), 0);
	free(path);
	store_close(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(truncated),
		STORE_TEST(every_byte_flipped),
		STORE_TEST(a_flipped_page_is_found),
		STORE_TEST(foreign_files),
		STORE_TEST(two_slots),
		STORE_TEST(lying_slots),
		STORE_TEST(lying_runs),
		STORE_TEST(damaged_hints_cost_the_hints),
		STORE_TEST(lying_metadata),
		STORE_TEST(unknown_records),
		STORE_TEST(a_body_longer_than_its_struct),
		STORE_TEST(a_record_beyond_the_bounds_is_not_written),
	};
	world_base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	return cmocka_run_group_tests(tests, NULL, NULL);
}
