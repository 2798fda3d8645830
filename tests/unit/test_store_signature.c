/*
 * test_store_signature.c - where somebody is trusted, only what they signed is opened.
 *
 * Shown: an image that is not signed, signed by another, altered in any part, or cut, is refused before
 * anything else is said of it; one that is signed is what it was; ancestors count; what cannot be
 * understood of the trusted keys trusts nobody; key files.
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

#define SEED 7
#define PAGES 600 /* more than two blocks */

static uint8_t secret[KEY_SECRET], other_secret[KEY_SECRET];
static uint8_t public[1][KEY_PUBLIC];
static const struct trust trust = { public, 1 };

static void make_keys(void)
{
	struct fsnap_error err = { 0 };
	assert_int_equal(key_make(world_path("key"), &err), 0);
	assert_int_equal(key_make(world_path("other"), &err), 0);
	assert_int_equal(key_read_secret(world_path("key"), secret, &err), 0);
	assert_int_equal(key_read_secret(world_path("other"), other_secret, &err), 0);
	assert_int_equal(key_read_public(world_path("key.pub"), public[0], &err), 0);
}

static void sign(struct store *store, const char *name, const uint8_t *key)
{
	struct trust nobody = { 0 };
	struct fsnap_error err = { 0 };
	struct image *image = image_open_signed(store, name, &nobody, &err);
	assert_non_null(image);
	if (image_sign(image, key, &err) < 0)
		fail_msg("signing %s: %s", name, err.message);
	image_close(image);
}

/* Opening it, or at the latest reading its pages. */
static void expect_refused(struct store *store, const char *name, const char *words)
{
	struct fsnap_error err = { 0 };
	struct image *image = image_open_signed(store, name, &trust, &err);
	if (image && image_verify_blocks(image, 0, image_blocks(image), &err) == 0)
		fail_msg("%s is accepted", name);
	image_close(image);
	assert_int_equal(err.code, FSNAP_E_IMAGE_SIGNATURE);
	if (!strstr(err.message, words) || !err.hint[0])
		fail_msg("expected '%s' and a hint in: %s", words, err.message);
}

static void expect_accepted(struct store *store, const char *name)
{
	struct fsnap_error err = { 0 };
	struct image *image = image_open_signed(store, name, &trust, &err);
	if (!image)
		fail_msg("%s", err.message);
	assert_null(seed_check(image, SEED, PAGES));
	image_close(image);
}

static struct store *signed_image(void)
{
	struct store *store = world_store(STORE_WRITE);
	make_keys();
	seed_make(store, "a", SEED, PAGES);
	sign(store, "a", secret);
	return store;
}

static void flip(const char *path, off_t at)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t byte;
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

static void only_what_they_signed(void **state)
{
	(void)state;
	struct store *store = world_store(STORE_WRITE);
	make_keys();
	seed_make(store, "a", SEED, PAGES);
	expect_refused(store, "a", "not signed");
	sign(store, "a", other_secret);
	expect_refused(store, "a", "not trusted");
	sign(store, "a", secret);
	expect_accepted(store, "a");
	sign(store, "a", secret);
	expect_accepted(store, "a");
	store_close(store);
}

static off_t length_of(const char *path)
{
	struct layout_slot slot = { 0 };
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(image_read_head(fd, (uint64_t)st.st_size, "a", &slot, NULL), 0);
	close(fd);
	return (off_t)slot.length;
}

static void altered(void **state)
{
	(void)state;
	struct store *store = signed_image();
	const char *path = world_path("images/a.fsnap");
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	/* The image; what rounds it to whole pages is nobody's; then the hashes. */
	for (off_t at = 0; at < length_of(path); at += at < 16384 ? 511 : 99991) {
		flip(path, at);
		expect_refused(store, "a", "");
		flip(path, at);
	}
	for (off_t at = 0; at < 4 * 32; at += 7) {
		off_t table = (off_t)align_up((uint64_t)length_of(path), 4096);
		flip(path, table + at);
		expect_refused(store, "a", "");
		flip(path, table + at);
	}
	for (off_t at = st.st_size - 4096; at < st.st_size - 4096 + 160; at += 3) {
		flip(path, at);
		expect_refused(store, "a", "");
		flip(path, at);
	}
	expect_accepted(store, "a");
	assert_int_equal(truncate(path, st.st_size - 1), 0);
	expect_refused(store, "a", "not signed");
	store_close(store);
}

/* Its signature is right, but it is another's. */
static void of_another_image(void **state)
{
	(void)state;
	struct store *store = signed_image();
	seed_make(store, "b", SEED + 1, PAGES);
	struct stat from, to;
	int a = open(world_path("images/a.fsnap"), O_RDONLY | O_CLOEXEC);
	int b = open(world_path("images/b.fsnap"), O_RDWR | O_CLOEXEC);
	assert_int_equal(fstat(a, &from) | fstat(b, &to), 0);
	char *tail = malloc((size_t)from.st_size);
	struct layout_slot slot;
	assert_int_equal(image_read_head(a, (uint64_t)from.st_size, "a", &slot, NULL), 0);
	ssize_t length = pread(a, tail, (size_t)from.st_size, (off_t)slot.length);
	assert_int_equal(pwrite(b, tail, (size_t)length, (off_t)slot.length), length);
	assert_int_equal(ftruncate(b, (off_t)slot.length + length), 0);
	free(tail);
	close(a);
	close(b);
	expect_refused(store, "b", "altered");
	store_close(store);
}

static void trusted_directory(void **state)
{
	(void)state;
	struct fsnap_error err = { 0 };
	struct store *store = signed_image();
	assert_int_equal(mkdir(world_path("trusted"), 0755), 0);
	setenv("FSNAP_TRUSTED", world_path("trusted"), 1);
	assert_null(image_open(store, "a", &err)); /* asked for keys, and none is there */
	assert_int_equal(rename(world_path("key.pub"), world_path("trusted/key.pub")), 0);
	err = (struct fsnap_error){ 0 };
	struct image *image = image_open(store, "a", &err);
	assert_non_null(image);
	image_close(image);
	seed_make(store, "b", SEED, PAGES);
	assert_null(image_open(store, "b", &err));
	assert_int_equal(err.code, FSNAP_E_IMAGE_SIGNATURE);

	int fd = open(world_path("trusted/odd.pub"), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	assert_int_equal(write(fd, "what is this\n", 13), 13);
	close(fd);
	err = (struct fsnap_error){ 0 };
	assert_null(image_open(store, "a", &err));
	assert_non_null(strstr(err.message, "odd.pub"));
	unsetenv("FSNAP_TRUSTED");
	store_close(store);
}

static void key_files(void **state)
{
	(void)state;
	struct fsnap_error err = { 0 };
	struct stat st;
	make_keys();
	assert_int_equal(stat(world_path("key"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(key_make(world_path("key"), &err), -1); /* never over another */
	assert_int_equal(key_read_secret(world_path("key.pub"), secret, NULL), -1);
	assert_int_equal(key_read_public(world_path("key"), public[0], NULL), -1);
	assert_int_equal(chmod(world_path("key.pub"), 0666), 0);
	assert_int_equal(key_read_public(world_path("key.pub"), public[0], NULL), -1);
}

#define SIGNATURE_TEST(name) cmocka_unit_test_setup_teardown(name, world_set_up, world_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SIGNATURE_TEST(only_what_they_signed),
		SIGNATURE_TEST(altered),
		SIGNATURE_TEST(of_another_image),
		SIGNATURE_TEST(trusted_directory),
		SIGNATURE_TEST(key_files),
	};
	world_base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	return cmocka_run_group_tests(tests, NULL, NULL);
}
