/*
 * test_store_coded.c - images that are compressed, encrypted, or both.
 *
 * Shown: each reads as if it were stored as it is, block by block and through a descriptor, alone and in a chain, made to
 * stand alone, signed; nothing of an encrypted one can be read in its file, or in any file while it is written; without
 * the key, or with another, it is refused. What has been altered: test_store_coded_damage.c.
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
		STORE_TEST(as_it_was), STORE_TEST(nothing_can_be_read), STORE_TEST(keys),     STORE_TEST(chains),
		STORE_TEST(signed_too), STORE_TEST(what_is_asked_for),	 STORE_TEST(passphrases), STORE_TEST(recycled),
	};
	world_base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	return cmocka_run_group_tests(tests, NULL, NULL);
}
