/*
 * test_store_order.c - an image exists whole or not at all, whenever the machine stops.
 *
 * The store tells of every range once it is durable. At each such moment the test plays the crash:
 * what was made durable before is on the disk, of all else any part may be, old, new or torn.
 * Shown: what then opens is the image as it was before, or the new one to the last byte.
 * And the same with the process killed at each moment, and the store opened by another.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/internal.h"
#include "store/store.h"

#include <cmocka.h>

#include "test_store.h"

#define OLD_SEED 11
#define NEW_SEED 22
#define PAGES 300
#define SECTOR 512
#define MIXES 40 /* random crashes per moment */

static char *durable;	   /* the file as the disk has it */
static uint64_t durable_length;
static unsigned moments;
static unsigned seen_old, seen_new, seen_none;
static unsigned random_state;

static unsigned next_random(void)
{
	random_state = random_state * 1103515245 + 12345;
	return random_state >> 16 & 0x7fff;
}

static char *read_file(int fd, uint64_t *length)
{
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	char *bytes = malloc((size_t)st.st_size);
	assert_int_equal(pread(fd, bytes, (size_t)st.st_size, 0), st.st_size);
	*length = (uint64_t)st.st_size;
	return bytes;
}

/* The file as a crash left it, opened. */
static void expect_old_or_new(const char *bytes, uint64_t length, const char *how)
{
	const char *path = world_path("crashed");
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
	assert_int_equal(write(fd, bytes, length), length);
	close(fd);

	struct fsnap_error err = {0};
	struct image *image = image_open(NULL, path, &err);
	if (!image) {
		/* no superblock yet; or no commit slot */
		assert_true(err.code == FSNAP_E_IMAGE_FORMAT ||
			    err.code == FSNAP_E_IMAGE_CORRUPT);
		seen_none++;
		return;
	}
	const char *not_old = seed_check(image, OLD_SEED, PAGES);
	const char *not_new = seed_check(image, NEW_SEED, PAGES);
	image_close(image);
	seen_old += !not_old;
	seen_new += !not_new;
	if (not_old && not_new)
		fail_msg("moment %u, %s: a third thing opened (old: %s; new: %s)", moments, how,
			 not_old, not_new);
}

/* Of each sector that is not durable: old, new, or garbage. */
static void mix(char *out, const char *now, uint64_t length, bool garbage)
{
	unsigned page_choice = 0;
	bool torn = next_random() % 2;
	for (uint64_t at = 0; at < length; at += SECTOR) {
		if (torn || at % STORE_PAGE == 0)
			page_choice = next_random();
		bool changed = memcmp(durable + at, now + at, SECTOR) != 0;
		if (changed && garbage && page_choice % 3 == 2)
			memset(out + at, 0xa5, SECTOR);
		else
			memcpy(out + at, (page_choice % 2 ? now : durable) + at, SECTOR);
	}
}

static void crash_before(const char *now, uint64_t length)
{
	char *out = malloc(length);
	expect_old_or_new(durable, length, "nothing else written");
	expect_old_or_new(now, length, "everything written");
	for (unsigned i = 0; i < MIXES; i++) {
		mix(out, now, length, i % 2);
		expect_old_or_new(out, length, "some written");
	}
	free(out);
}

static void play_crash(int fd, uint64_t offset, uint64_t persisted)
{
	uint64_t length;
	char *now = read_file(fd, &length);
	if (length > durable_length) { /* a file grows with zeros */
		durable = realloc(durable, length);
		memset(durable + durable_length, 0, length - durable_length);
	}
	durable_length = length;
	moments++;
	assert_int_equal(files_in("images"), 0); /* the name comes after everything else */
	crash_before(now, length);
	memcpy(durable + offset, now + offset, persisted);
	crash_before(now, length);
	free(now);
}

static void write_and_crash(struct store *store)
{
	moments = seen_old = seen_new = seen_none = 0;
	random_state = 1;
	medium_persisted_hook = play_crash;
	seed_make(store, "new", NEW_SEED, PAGES);
	medium_persisted_hook = NULL;
	assert_int_equal(files_in("images"), 1);
	seed_expect(store, "new", NEW_SEED, PAGES);
	free(durable);
	durable = NULL;
	durable_length = 0;
	assert_true(seen_none > 0);
	assert_true(seen_new > 0);
}

static void a_fresh_file(void **state)
{
	(void)state;
	struct store *store = world_store(STORE_WRITE);
	write_and_crash(store);
	assert_int_equal(moments, 4); /* superblock, tables, pages; slot */
	assert_int_equal(seen_old, 0);
	store_close(store);
}

/* Moves the only file of images/ to the pool with all that makes it an image. */
static void pool_as_it_is(void)
{
	DIR *dir = opendir(world_path("pool"));
	struct dirent *entry;
	while ((entry = readdir(dir)) && entry->d_name[0] == '.')
		;
	assert_non_null(entry);
	char pooled[300];
	snprintf(pooled, sizeof(pooled), "pool/%s", entry->d_name);
	closedir(dir);
	int fd = open(world_path(pooled), O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, durable, durable_length, 0), durable_length);
	close(fd);
}

/* The space of an image whose removal left its commit slot where it was, as a crash could. */
static void a_recycled_file(void **state)
{
	(void)state;
	struct store *store = world_store(STORE_WRITE);
	seed_make(store, "old", OLD_SEED, PAGES);
	int fd = open(world_path("images/old.fsnap"), O_RDONLY);
	durable = read_file(fd, &durable_length);
	close(fd);
	assert_int_equal(store_remove(store, "old", NULL), 0);
	pool_as_it_is();

	write_and_crash(store);
	assert_int_equal(moments, 5); /* the old slots first */
	assert_true(seen_old > 0);    /* before they are gone */
	store_close(store);
}

/* --- killed ------------------------------------------------------------------------ */

static unsigned kill_at;

static void kill_self(int fd, uint64_t offset, uint64_t length)
{
	(void)fd, (void)offset, (void)length;
	if (moments++ == kill_at)
		raise(SIGKILL);
}

static bool write_and_die(unsigned at)
{
	pid_t child = fork();
	if (child == 0) {
		struct fsnap_error err = {0};
		struct store *store = store_open(world, STORE_WRITE, &err);
		moments = 0;
		kill_at = at;
		medium_persisted_hook = kill_self;
		_exit(seed_write(store, "new", NEW_SEED, PAGES, &err) == 0 ? 0 : 1);
	}
	int status;
	waitpid(child, &status, 0);
	assert_true(status == 0 || WIFSIGNALED(status));
	return status != 0;
}

static void killed_at_every_moment(void **state)
{
	(void)state;
	struct store *store = world_store(STORE_WRITE);
	seed_make(store, "kept", OLD_SEED, PAGES);
	store_close(store);

	unsigned at = 0;
	for (; write_and_die(at); at++) {
		assert_int_equal(files_in("images"), 1);
		assert_int_equal(files_in("tmp"), 1);
		store = world_store(STORE_WRITE); /* what was left over goes to the pool */
		assert_int_equal(files_in("tmp"), 0);
		assert_int_equal(files_in("pool"), 1);
		seed_expect(store, NULL, OLD_SEED, PAGES);
		store_close(store);
	}
	assert_true(at >= 4);
	store = world_store(STORE_READ);
	seed_expect(store, NULL, NEW_SEED, PAGES);
	seed_expect(store, "kept", OLD_SEED, PAGES);
	store_close(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(a_fresh_file),
		STORE_TEST(a_recycled_file),
		STORE_TEST(killed_at_every_moment),
	};
	return RUN_ON_BOTH_MEDIA(tests);
}
