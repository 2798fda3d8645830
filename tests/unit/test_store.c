/*
 * test_store.c - a store as its user sees it.
 *
 * Shown: what is written is what is read; names, the newest, the list; removed space is recycled
 * and only when nobody can notice; writers side by side; a store that is full, read-only, or that
 * holds what is not ours.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/internal.h"
#include "store/store.h"

#include <cmocka.h>

#include "test_store.h"

/* --- writing and reading ------------------------------------------------------- */

static void round_trip(void **state)
{
	(void)state;
	static const uint64_t sizes[] = {0, 1, 255, 256, 257, 3000};
	struct store *store = world_store(STORE_WRITE);
	for (unsigned i = 0; i < 6; i++) {
		char name[16];
		snprintf(name, sizeof(name), "size-%u", i);
		seed_make(store, name, i, sizes[i]);
		seed_expect(store, name, i, sizes[i]);
	}
	assert_int_equal(files_in("tmp"), 0);
	store_close(store);
}

static void tables_larger_than_the_gap_go_behind(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	struct image_writer *writer = image_writer_open(store, "big", 4, &err);
	assert_non_null(writer);
	seed_fill(writer, 5, 4, &err);
	for (unsigned i = 0; i < 200000; i++) {
		struct page_run run = {.page = 3ull * i, .at = i % 4, .npages = 1, .space = 99};
		assert_int_equal(image_writer_add_run(writer, &run, &err), 0);
	}
	uint64_t bytes;
	assert_int_equal(image_writer_commit(writer, &bytes, &err), 0);
	assert_true(bytes > MB(2) + 200000 * sizeof(struct page_run));

	seed_expect(store, "big", 5, 4);
	struct image *image = image_open(store, "big", &err);
	size_t count;
	const struct page_run *runs = image_runs(image, 99, &count);
	assert_int_equal(count, 200000);
	assert_int_equal(runs[199999].page, 3 * 199999);
	assert_int_equal(image_file_bytes(image), bytes);
	image_close(image);
	store_close(store);
}

static void neighbouring_runs_become_one(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	struct image_writer *writer = image_writer_open(store, "runs", 8, &err);
	image_writer_take(writer, 8);
	for (unsigned i = 0; i < 8; i++) {
		struct page_run run = {.page = 50 + i, .at = i, .npages = 1, .space = 3};
		image_writer_add_run(writer, &run, &err);
	}
	assert_int_equal(image_writer_commit(writer, NULL, &err), 0);
	struct image *image = image_open(store, "runs", &err);
	size_t count;
	const struct page_run *runs = image_runs(image, 3, &count);
	assert_int_equal(count, 1);
	assert_int_equal(runs->npages, 8);
	assert_null(image_runs(image, 4, &count));
	assert_int_equal(count, 0);
	image_close(image);
	store_close(store);
}

/* The estimate was too small: more is reserved while pages are filled, addresses stay, and a
 * checksum computed before the block was full is not believed. */
static void growing_while_filling(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	struct image_writer *writer = image_writer_open(store, "grown", 1, &err);
	assert_non_null(writer);
	for (uint64_t i = 0; i < 5000; i++) {
		if (i % 50 == 0)
			assert_int_equal(image_writer_reserve(writer, i + 50, &err), 0);
		uint64_t at = image_writer_take(writer, 1);
		seed_page(image_writer_page(writer, at), 4, at);
		if (i % 70 == 0)
			image_writer_checksum(writer, at / STORE_BLOCK_PAGES, 1);
	}
	assert_int_equal(image_writer_commit(writer, NULL, &err), 0);
	struct image *image = image_open(store, "grown", &err);
	assert_non_null(image);
	uint8_t page[STORE_PAGE];
	for (uint64_t i = 0; i < 5000; i++) {
		seed_page(page, 4, i);
		assert_memory_equal(page, image_page(image, i), sizeof(page));
	}
	assert_int_equal(image_verify_blocks(image, 0, image_blocks(image), &err), 0);
	image_close(image);
	store_close(store);
}

static void overlapping_runs_are_refused(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	struct image_writer *writer = image_writer_open(store, "bad", 8, &err);
	image_writer_take(writer, 8);
	struct page_run one = {.page = 10, .at = 0, .npages = 4, .space = 3};
	struct page_run two = {.page = 13, .at = 4, .npages = 4, .space = 3};
	image_writer_add_run(writer, &one, &err);
	image_writer_add_run(writer, &two, &err);
	assert_int_equal(image_writer_commit(writer, NULL, &err), -1);
	assert_int_equal(err.code, FSNAP_E_USAGE);
	assert_int_equal(files_in("images"), 0);
	store_close(store);
}

/* --- names ---------------------------------------------------------------------- */

static void names(void **state)
{
	(void)state;
	char longest[129];
	memset(longest, 'x', 128);
	longest[128] = '\0';
	static const char *const bad[] = {"", ".", "..", ".a", "-a", "a/b", "a b", "a\n", "\xc3\xa4"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct fsnap_error err = {0};
		assert_int_equal(store_check_name(bad[i], &err), -1);
		assert_int_equal(err.code, FSNAP_E_BAD_NAME);
		assert_true(err.hint[0]);
	}
	assert_int_equal(store_check_name(longest, NULL), -1);
	longest[127] = '\0';
	assert_int_equal(store_check_name(longest, NULL), 0);
	struct store *store = world_store(STORE_WRITE);
	seed_make(store, longest, 1, 2);
	seed_expect(store, longest, 1, 2);
	store_close(store);
}

static void an_existing_name_is_refused_early_and_late(void **state)
{
	(void)state;
	struct fsnap_error early = {0}, late = {0};
	struct store *store = world_store(STORE_WRITE);
	struct image_writer *slow = image_writer_open(store, "a", 3, &late);
	seed_make(store, "a", 1, 3);
	assert_null(image_writer_open(store, "a", 3, &early));
	assert_int_equal(early.code, FSNAP_E_IMAGE_EXISTS);
	assert_non_null(strstr(early.message, "image a"));
	assert_true(early.hint[0]);

	assert_int_equal(seed_fill(slow, 2, 3, &late), 0);
	assert_int_equal(image_writer_commit(slow, NULL, &late), -1);
	assert_int_equal(late.code, FSNAP_E_IMAGE_EXISTS);
	seed_expect(store, "a", 1, 3);
	assert_int_equal(files_in("tmp"), 0);
	store_close(store);
}

static void newest_and_list(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	assert_null(image_open(store, NULL, &err));
	assert_int_equal(err.code, FSNAP_E_IMAGE_MISSING);

	seed_make(store, "zebra", 1, 10);
	seed_make(store, "ant", 2, 20);
	seed_make(store, "bee", 3, 30);
	int fd = open(world_path("images/broken.fsnap"), O_CREAT | O_WRONLY, 0600);
	assert_int_equal(write(fd, "FSNA", 4), 4);
	const struct timespec later[2] = {{time(NULL) + 10, 0}, {time(NULL) + 10, 0}};
	assert_int_equal(futimens(fd, later), 0); /* a damaged one is sorted by its file's time */
	close(fd);
	fd = open(world_path("images/not-an-image.txt"), O_CREAT | O_WRONLY, 0600);
	close(fd);
	seed_expect(store, NULL, 3, 30);

	struct store_entry *entries;
	size_t count;
	assert_int_equal(store_list(store, &entries, &count, &err), 0);
	assert_int_equal(count, 4);
	assert_string_equal(entries[0].name, "broken");
	assert_int_equal(entries[0].damage.code, FSNAP_E_IMAGE_TRUNCATED);
	assert_string_equal(entries[1].name, "bee");
	assert_int_equal(entries[1].page_bytes, 30 * STORE_PAGE);
	assert_true(entries[1].file_bytes > entries[1].page_bytes);
	assert_true(entries[1].created_ns > entries[2].created_ns);
	assert_string_equal(entries[3].name, "zebra");
	free(entries);
	store_close(store);
}

static void by_path_without_a_store(void **state)
{
	(void)state;
	struct store *store = world_store(STORE_WRITE);
	seed_make(store, "a", 1, 3);
	store_close(store);
	seed_expect(NULL, world_path("images/a.fsnap"), 1, 3);
}

/* --- removing and recycling -------------------------------------------------------- */

static void removed_space_is_recycled(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	seed_make(store, "old", 1, 2000);
	assert_int_equal(store_remove(store, "old", &err), 0);
	assert_int_equal(open_code(store, "old"), FSNAP_E_IMAGE_MISSING);
	assert_int_equal(files_in("pool"), 1);

	struct image_writer *writer = image_writer_open(store, "new", 1500, &err);
	assert_true(image_writer_recycled(writer));
	assert_int_equal(files_in("pool"), 0);
	assert_int_equal(seed_fill(writer, 2, 1500, &err), 0);
	assert_int_equal(image_writer_commit(writer, NULL, &err), 0);
	seed_expect(store, "new", 2, 1500);

	assert_int_equal(store_remove(store, "new", &err), 0);
	assert_true(store_trim(store, &err) >= 1500 * STORE_PAGE);
	assert_int_equal(files_in("pool"), 0);
	assert_int_equal(store_trim(store, &err), 0);
	assert_int_equal(store_remove(store, "new", &err), -1);
	assert_int_equal(err.code, FSNAP_E_IMAGE_MISSING);
	store_close(store);
}

/* Whoever has an image open, or mapped, or linked under a second name, keeps what it has. */
static void nothing_in_use_is_recycled(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	seed_make(store, "read", 1, 300);
	struct image *reader = image_open(store, "read", &err);
	assert_int_equal(store_remove(store, "read", &err), 0);
	assert_int_equal(files_in("pool"), 0);
	assert_null(seed_check(reader, 1, 300));
	image_close(reader);

	seed_make(store, "mapped", 2, 300);
	reader = image_open(store, "mapped", &err);
	uint8_t page[STORE_PAGE], *map = mmap(NULL, STORE_PAGE, PROT_READ, MAP_PRIVATE,
					      image_descriptor(reader, 0),
					      (off_t)image_locate(reader, 7).offset);
	image_close(reader);
	assert_int_equal(store_remove(store, "mapped", &err), 0);
	assert_int_equal(files_in("pool"), 0);
	seed_make(store, "other", 3, 300);
	seed_page(page, 2, 7);
	assert_memory_equal(map, page, sizeof(page));
	munmap(map, STORE_PAGE);

	assert_int_equal(link(world_path("images/other.fsnap"), world_path("backup")), 0);
	assert_int_equal(store_remove(store, "other", &err), 0);
	assert_int_equal(files_in("pool"), 0);
	seed_expect(NULL, world_path("backup"), 3, 300);
	store_close(store);
}

static void the_pool_is_bounded(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	enum { LARGE = 12, ALL = LARGE + STORE_POOL_SMALL + 4 };
	for (unsigned i = 0; i < ALL; i++) {
		char name[16];
		snprintf(name, sizeof(name), "n%u", i);
		seed_make(store, name, i, i == 5 ? 3200 : i < LARGE ? 1600 : 10);
	}
	for (unsigned i = 0; i < ALL; i++) {
		char name[16];
		snprintf(name, sizeof(name), "n%u", i);
		assert_int_equal(store_remove(store, name, &err), 0);
		if (i == LARGE - 1)
			assert_int_equal(files_in("pool"), STORE_POOL_FILES);
	}
	assert_int_equal(files_in("pool"), STORE_POOL_FILES + STORE_POOL_SMALL);
	struct image_writer *writer = image_writer_open(store, "large", 3200, &err);
	assert_true(image_writer_recycled(writer)); /* the largest was kept */
	image_writer_abort(writer);
	store_close(store);
}

/* A small image leaves a large file to the next large one; a middling one takes it, and cuts off
 * what it does not need. */
static void a_file_far_too_large(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	struct image_writer *writer = image_writer_open(store, "estimate", 40000, &err);
	image_writer_abort(writer);
	assert_int_equal(files_in("pool"), 1);
	seed_make(store, "small", 1, 100);
	assert_int_equal(files_in("pool"), 1);
	seed_make(store, "middling", 2, 5000);
	assert_int_equal(files_in("pool"), 0);
	struct stat st;
	assert_int_equal(stat(world_path("images/middling.fsnap"), &st), 0);
	assert_true((uint64_t)st.st_size <= MB(2) + 5000 * STORE_PAGE + MB(2));
	seed_expect(store, "middling", 2, 5000);
	store_close(store);
}

/* More than the machine has is refused before anything is taken. */
static void far_too_large_an_image(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	assert_null(image_writer_open(store, "a", 1ull << 30, &err)); /* 4 TiB */
	assert_int_equal(err.code, FSNAP_E_STORE_FULL);
	assert_true(err.hint[0]);
	assert_null(image_writer_open(store, "a", 1ull << 60, NULL));
	assert_int_equal(files_in("pool"), 0);
	assert_int_equal(files_in("tmp"), 0);
	store_close(store);
}

static void an_aborted_image_leaves_nothing(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	struct image_writer *writer = image_writer_open(store, "a", 100, &err);
	seed_fill(writer, 1, 100, &err);
	image_writer_abort(writer);
	image_writer_abort(NULL);
	assert_int_equal(files_in("images"), 0);
	assert_int_equal(files_in("tmp"), 0);
	assert_int_equal(open_code(store, "a"), FSNAP_E_IMAGE_MISSING);
	seed_make(store, "a", 2, 100);
	seed_expect(store, "a", 2, 100);
	store_close(store);
}

static void a_dead_writers_space_comes_back(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	pid_t child = fork();
	if (child == 0) {
		struct store *store = store_open(world, STORE_WRITE, &err);
		static struct image_writer *volatile writer; /* whose end is none: it is not lost, it goes with the process */
		writer = image_writer_open(store, "a", 100, &err);
		_exit(writer ? 0 : 1);
	}
	int status;
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	assert_int_equal(files_in("tmp"), 1);

	struct store *store = world_store(STORE_WRITE);
	struct image_writer *alive = image_writer_open(store, "b", 100, &err);
	assert_true(image_writer_recycled(alive));
	struct store *second = world_store(STORE_WRITE); /* leaves what is locked alone */
	assert_int_equal(files_in("tmp"), 1);
	assert_int_equal(seed_fill(alive, 1, 100, &err), 0);
	assert_int_equal(image_writer_commit(alive, NULL, &err), 0);
	seed_expect(second, "b", 1, 100);
	store_close(second);
	store_close(store);
}

/* --- side by side -------------------------------------------------------------------- */

static void *write_and_remove(void *arg)
{
	unsigned who = (unsigned)(uintptr_t)arg;
	struct fsnap_error err = {0};
	struct store *store = store_open(world, STORE_WRITE, &err);
	for (unsigned i = 0; i < 15 && store; i++) {
		char name[32];
		snprintf(name, sizeof(name), "w%u-%u", who, i);
		if (seed_write(store, name, 100 * who + i, 100 + i, &err) < 0 ||
		    (i % 2 && store_remove(store, name, &err) < 0))
			break;
	}
	store_close(store);
	return err.code ? strdup(err.message) : NULL;
}

static void writers_side_by_side(void **state)
{
	(void)state;
	pthread_t thread[4];
	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, write_and_remove, (void *)i);
	for (unsigned i = 0; i < 4; i++) {
		void *message;
		pthread_join(thread[i], &message);
		if (message)
			fail_msg("writer %u: %s", i, (char *)message);
	}
	struct store *store = world_store(STORE_READ);
	for (unsigned who = 0; who < 4; who++) {
		for (unsigned i = 0; i < 15; i += 2) {
			char name[32];
			snprintf(name, sizeof(name), "w%u-%u", who, i);
			seed_expect(store, name, 100 * who + i, 100 + i);
		}
	}
	assert_int_equal(files_in("images"), 4 * 8);
	assert_int_equal(files_in("tmp"), 0);
	store_close(store);
}

/* --- a store that cannot -------------------------------------------------------------- */

static void a_store_that_is_missing(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	assert_null(store_open(world_path("none"), STORE_READ, &err));
	assert_int_equal(err.code, FSNAP_E_STORE_MISSING);
	assert_non_null(strstr(err.message, "none"));
	assert_true(err.hint[0]);

	struct store *store = store_open(world_path("made/on/the/way"), STORE_WRITE, NULL);
	assert_non_null(store);
	struct stat st;
	assert_int_equal(stat(store_path(store), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	seed_make(store, "a", 1, 1);
	assert_int_equal(stat(world_path("made/on/the/way/images/a.fsnap"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	store_close(store);

	int fd = open(world_path("file"), O_CREAT | O_WRONLY, 0600);
	close(fd);
	memset(&err, 0, sizeof(err));
	assert_null(store_open(world_path("file"), STORE_WRITE, &err));
	assert_int_equal(err.code, FSNAP_E_STORE_MISSING);
}

/* Mounts of the test are its own. */
static bool may_mount(void)
{
	if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
		return true;
	print_message("skipped: no permission to mount (%s)\n", strerror(errno));
	return false;
}

static void a_read_only_store(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	struct store *store = world_store(STORE_WRITE);
	seed_make(store, "a", 1, 5);
	if (!may_mount()) {
		store_close(store);
		skip();
	}
	assert_int_equal(mount(world, world, NULL, MS_BIND, NULL), 0);
	assert_int_equal(mount(NULL, world, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), 0);
	store_close(store);
	struct store *refused = store_open(world, STORE_WRITE, &err);
	store = world_store(STORE_READ);
	seed_expect(store, "a", 1, 5);
	seed_expect(store, NULL, 1, 5);
	store_close(store);
	assert_int_equal(umount2(world, MNT_DETACH), 0);
	assert_null(refused);
	assert_int_equal(err.code, FSNAP_E_STORE_READONLY);
	assert_true(err.hint[0]);
}

/* Small images until there is no room; then one is removed and there is room again. */
static void a_full_store(void **state)
{
	(void)state;
	struct fsnap_error err = {0};
	if (!may_mount())
		skip();
	assert_int_equal(mount("none", world, "tmpfs", 0, "size=16m"), 0);
	struct store *store = world_store(STORE_WRITE);
	assert_null(image_writer_open(store, "huge", 8192, &err));
	assert_int_equal(err.code, FSNAP_E_STORE_FULL);
	assert_true(err.hint[0]);
	assert_int_equal(files_in("tmp"), 0);

	memset(&err, 0, sizeof(err));
	unsigned made = 0;
	for (char name[16]; !err.code && made < 20; made++) {
		snprintf(name, sizeof(name), "n%u", made);
		seed_write(store, name, made, 700, &err);
	}
	assert_int_equal(err.code, FSNAP_E_STORE_FULL);
	made--; /* the last was refused */
	assert_true(made >= 3);
	assert_int_equal(files_in("images"), made);
	for (unsigned i = 0; i < made; i++) {
		char name[16];
		snprintf(name, sizeof(name), "n%u", i);
		seed_expect(store, name, i, 700);
	}

	memset(&err, 0, sizeof(err));
	struct image_writer *writer = image_writer_open(store, "grows", 1, &err);
	if (writer) { /* room for one page, but not for more */
		assert_int_equal(image_writer_reserve(writer, 4000, &err), -1);
		image_writer_abort(writer);
	}
	assert_int_equal(err.code, FSNAP_E_STORE_FULL);
	assert_int_equal(store_remove(store, "n0", NULL), 0);
	seed_make(store, "again", 7, 650);
	seed_expect(store, "again", 7, 650);
	store_close(store);
	assert_int_equal(umount2(world, MNT_DETACH), 0);
}

static void what_is_not_ours(void **state)
{
	(void)state;
	struct store *store = world_store(STORE_WRITE);
	seed_make(store, "a", 1, 5);
	assert_int_equal(symlink("a.fsnap", world_path("images/link.fsnap")), 0);
	assert_int_equal(open_code(store, "link"), FSNAP_E_IMAGE_OWNER);
	assert_int_equal(mkfifo(world_path("images/fifo.fsnap"), 0600), 0);
	assert_int_equal(open_code(store, "fifo"), FSNAP_E_IMAGE_OWNER);
	assert_int_equal(open_code(store, world_path("images")), FSNAP_E_IMAGE_OWNER);
	chmod(world_path("images/a.fsnap"), 0622);
	assert_int_equal(open_code(store, "a"), FSNAP_E_IMAGE_OWNER);
	chmod(world_path("images/a.fsnap"), 0600);
	seed_expect(store, "a", 1, 5);
	if (geteuid() == 0) {
		assert_int_equal(chown(world_path("images/a.fsnap"), 1234, 1234), 0);
		assert_int_equal(open_code(store, "a"), FSNAP_E_IMAGE_OWNER);
	}
	assert_int_equal(store_remove(store, "link", NULL), 0);
	assert_int_equal(store_remove(store, "a", NULL), 0);
	assert_int_equal(files_in("pool"), geteuid() == 0 ? 0 : 1);
	store_close(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(round_trip),
		STORE_TEST(tables_larger_than_the_gap_go_behind),
		STORE_TEST(neighbouring_runs_become_one),
		STORE_TEST(growing_while_filling),
		STORE_TEST(overlapping_runs_are_refused),
		STORE_TEST(names),
		STORE_TEST(an_existing_name_is_refused_early_and_late),
		STORE_TEST(newest_and_list),
		STORE_TEST(by_path_without_a_store),
		STORE_TEST(removed_space_is_recycled),
		STORE_TEST(nothing_in_use_is_recycled),
		STORE_TEST(the_pool_is_bounded),
		STORE_TEST(a_file_far_too_large),
		STORE_TEST(far_too_large_an_image),
		STORE_TEST(an_aborted_image_leaves_nothing),
		STORE_TEST(a_dead_writers_space_comes_back),
		STORE_TEST(writers_side_by_side),
		STORE_TEST(a_store_that_is_missing),
		STORE_TEST(a_read_only_store),
		STORE_TEST(a_full_store),
		STORE_TEST(what_is_not_ours),
	};
	return RUN_ON_BOTH_MEDIA(tests);
}
