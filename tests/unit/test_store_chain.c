/*
 * test_store_chain.c - images that build on one another.
 *
 * Shown: each reads as if it had been written whole, in chains of twenty, whichever of them are removed or made to
 * stand alone, in whatever order; what nobody needs is gone then; one that is not there, or not what it was, is
 * refused by name; and killed at any moment, a compaction leaves the old image or the new one.
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
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/internal.h"
#include "store/store.h"

#include <cmocka.h>

#include "test_store.h"

#define LENGTH 20
#define PAGES 600 /* more than two blocks */
#define SPACE 5

static unsigned random_state = 1;

/* A disk waits for every image: there, the short way. */
static bool on_disk(void)
{
	return strcmp(world_base, "/tmp") == 0;
}

static unsigned next_random(unsigned below)
{
	random_state = random_state * 1103515245 + 12345;
	return (random_state >> 16 & 0x7fff) % below;
}

static const char *name_of(int i)
{
	static char names[4][16];
	static unsigned next;
	char *name = names[next++ % 4];
	snprintf(name, sizeof(names[0]), "link-%03d", i);
	return name;
}

/* Which image a page of image i was last changed in; -1: it has none there. */
static int changed_in(int i, unsigned page)
{
	for (int j = i; j > 0; j--) {
		unsigned what = (page * 2654435761u + (unsigned)j * 40503u) >> 8;
		if (what % 97 == 0)
			return -1;
		if (what % 11 == 0)
			return j;
	}
	return 0;
}

static void add_page(struct image_writer *writer, unsigned page, uint64_t at)
{
	struct page_run run = {.page = page, .at = at, .npages = 1, .space = SPACE};
	assert_int_equal(image_writer_add_run(writer, &run, NULL), 0);
}

/* Image i on top of its parent, which may be NULL. */
static int write_link(struct store *store, int i, const struct image *parent, uint64_t tidy, struct fsnap_error *err)
{
	struct image_writer *writer = image_writer_open(store, name_of(i), PAGES, err);
	if (!writer)
		return -1;
	if (parent && image_writer_inherit(writer, parent, err) < 0) {
		image_writer_abort(writer);
		return -1;
	}
	image_writer_tidy(writer, tidy);
	for (unsigned page = 0; page < PAGES; page++) {
		int changed = changed_in(i, page);
		if (changed < 0)
			continue;
		if (parent && changed != i) {
			add_page(writer, page, STORE_REFERRED | page_at(parent, SPACE, page));
			continue;
		}
		uint64_t at = image_writer_take(writer, 1);
		seed_page(image_writer_page(writer, at), (unsigned)changed, page);
		add_page(writer, page, at);
	}
	image_tree tree = {.root_pid = i, .comm = "worker", .host = "", .writer = "test", .hold = "", .boot_id = ""};
	assert_int_equal(image_writer_put(writer, IMAGE_TREE, true, "tree", (xdrproc_t)xdr_image_tree, &tree, err), 0);
	return image_writer_commit(writer, NULL, err);
}

static struct image *open_link(struct store *store, const char *name)
{
	struct fsnap_error err = {0};
	struct image *image = image_open(store, name, &err);
	if (!image)
		fail_msg("%s: %s", name, err.message);
	return image;
}

static void make_link(struct store *store, int i)
{
	struct fsnap_error err = {0};
	struct image *parent = i ? open_link(store, name_of(i - 1)) : NULL;
	if (write_link(store, i, parent, 0, &err) < 0)
		fail_msg("writing %d: %s", i, err.message);
	image_close(parent);
}

static void make_chain(struct store *store, int length)
{
	for (int i = 0; i < length; i++)
		make_link(store, i);
}

static void check_open(const struct image *image, int i)
{
	uint8_t want[STORE_PAGE];
	for (unsigned page = 0; page < PAGES; page++) {
		uint64_t at = page_at(image, SPACE, page);
		int changed = changed_in(i, page);
		if (changed < 0) {
			assert_true(at == UINT64_MAX);
			continue;
		}
		assert_true(at != UINT64_MAX);
		seed_page(want, (unsigned)changed, page);
		assert_memory_equal(image_page(image, at), want, sizeof(want));
		/* and the file says the same as the mapping */
		uint8_t read[STORE_PAGE];
		struct image_place place = image_locate(image, at);
		assert_int_equal(pread(image_descriptor(image, place.file), read, sizeof(read), (off_t)place.offset),
				 sizeof(read));
		assert_memory_equal(read, want, sizeof(want));
	}
	struct fsnap_error err = {0};
	if (image_verify_blocks(image, 0, image_blocks(image), &err) < 0)
		fail_msg("image %d: %s", i, err.message);
	image_tree tree = {0};
	assert_int_equal(image_get(image, IMAGE_TREE, 0, (xdrproc_t)xdr_image_tree, &tree, NULL), 0);
	assert_int_equal(tree.root_pid, i);
	xdr_free((xdrproc_t)xdr_image_tree, &tree);
}

static void check_link(struct store *store, int i)
{
	struct image *image = open_link(store, name_of(i));
	check_open(image, i);
	image_close(image);
}

static void shuffle(int *order, int n)
{
	for (int i = 0; i < n; i++)
		order[i] = i;
	for (int i = n - 1; i > 0; i--) {
		int j = (int)next_random((unsigned)i + 1), was = order[i];
		order[i] = order[j];
		order[j] = was;
	}
}

/* --- reading and removing -------------------------------------------------------------------- */

static void a_chain_of_twenty(void **state)
{
	(void)state;
	struct store *store = world_store(STORE_WRITE);
	make_chain(store, LENGTH);
	for (int i = 0; i < LENGTH; i++)
		check_link(store, i);
	struct image *last = open_link(store, name_of(LENGTH - 1));
	assert_true(image_files(last) > 5);
	assert_true(image_pages(last) < PAGES / 5);
	uint64_t pages;
	assert_string_equal(image_parent(last, 1, &pages), name_of(LENGTH - 2));
	assert_null(image_parent(last, LENGTH, &pages));

	/* another opened beside it shares what both build on */
	struct image *beside = image_open_beside(store, name_of(LENGTH - 2), last, NULL);
	assert_non_null(beside);
	check_open(beside, LENGTH - 2);
	assert_int_equal(image_descriptor(beside, 1), image_descriptor(last, 2));
	image_close(last);
	check_open(beside, LENGTH - 2);
	image_close(beside);
	store_close(store);
}

static void removed_in_any_order(void **state)
{
	(void)state;
	for (int round = on_disk() ? 5 : 0; round < 5; round++) {
		struct store *store = world_store(STORE_WRITE);
		int order[LENGTH], gone[LENGTH] = {0};
		make_chain(store, LENGTH);
		shuffle(order, LENGTH);
		for (int i = 0; i < LENGTH; i++) {
			int which = round == 0 ? i : round == 1 ? LENGTH - 1 - i : order[i];
			assert_int_equal(store_remove(store, name_of(which), NULL), 0);
			gone[which] = 1;
			for (int j = 0; j < LENGTH; j++)
				if (!gone[j] && (i + j) % 4 == 0)
					check_link(store, j);
				else if (gone[j])
					assert_int_equal(open_code(store, name_of(j)), FSNAP_E_IMAGE_MISSING);
			assert_int_equal(files_in("images"), LENGTH - 1 - i);
		}
		assert_int_equal(files_in("ancestors"), 0);
		assert_true(files_in("pool") > 0);
		store_close(store);
	}
}

/* --- made to stand alone ------------------------------------------------------------------------ */

static void compacted_in_any_order(void **state)
{
	(void)state;
	for (int round = on_disk() ? 3 : 0; round < 3; round++) {
		struct store *store = world_store(STORE_WRITE);
		int order[LENGTH];
		make_chain(store, LENGTH);
		shuffle(order, LENGTH);
		for (int i = 0; i < LENGTH; i++) {
			int which = round == 0 ? i : round == 1 ? LENGTH - 1 - i : order[i];
			struct fsnap_error err = {0};
			struct image *reader = open_link(store, name_of(which));
			uint64_t created = image_created_ns(reader), bytes;
			if (store_compact(store, name_of(which), &bytes, &err) < 0)
				fail_msg("compacting %d: %s", which, err.message);
			check_open(reader, which); /* who has it open reads on */
			image_close(reader);
			struct image *image = open_link(store, name_of(which));
			assert_int_equal(image_files(image), 1);
			assert_int_equal(image_created_ns(image), created);
			image_close(image);
			for (int j = i % 4; j < LENGTH; j += 4)
				check_link(store, j);
		}
		for (int j = 0; j < LENGTH; j++)
			check_link(store, j);
		store_collect(store, NULL);
		assert_int_equal(files_in("ancestors"), 0);
		assert_int_equal(files_in("tmp"), 0);
		for (int i = 0; i < LENGTH; i++)
			assert_int_equal(store_remove(store, name_of(i), NULL), 0);
		store_close(store);
	}
}

/* --- what is not there, or not what it was ----------------------------------------------------------- */

static void ancestor_file(char *path, size_t size, const char *wanted)
{
	struct stat want, st;
	assert_int_equal(stat(world_path(wanted), &want), 0);
	DIR *dir = opendir(world_path("ancestors"));
	for (struct dirent *entry; (entry = readdir(dir));) {
		snprintf(path, size, "ancestors/%s", entry->d_name);
		if (stat(world_path(path), &st) == 0 && st.st_ino == want.st_ino)
			break;
	}
	closedir(dir);
}

static void an_ancestor_that_is_missing(void **state)
{
	(void)state;
	struct store *store = world_store(STORE_WRITE);
	struct fsnap_error err = {0};
	char path[300];
	make_chain(store, 3);
	ancestor_file(path, sizeof(path), "images/link-000.fsnap");
	assert_int_equal(rename(world_path(path), world_path("aside")), 0);
	assert_null(image_open(store, name_of(2), &err));
	assert_int_equal(err.code, FSNAP_E_IMAGE_MISSING);
	assert_non_null(strstr(err.message, "link-002"));
	assert_non_null(strstr(err.message, "link-000"));
	assert_non_null(strstr(err.hint, "ancestors/"));
	check_link(store, 0);

	/* another image in its place */
	seed_make(store, "other", 3, 10);
	assert_int_equal(rename(world_path("images/other.fsnap"), world_path(path)), 0);
	memset(&err, 0, sizeof(err));
	assert_null(image_open(store, name_of(2), &err));
	assert_int_equal(err.code, FSNAP_E_IMAGE_CORRUPT);
	assert_non_null(strstr(err.message, "not what it was"));

	/* itself, but a page of it is not what it was */
	assert_int_equal(rename(world_path("aside"), world_path(path)), 0);
	check_link(store, 2);
	struct image *image = open_link(store, name_of(2));
	uint64_t at = page_at(image, SPACE, 1);
	struct image_place place = image_locate(image, at);
	image_close(image);
	assert_int_equal(place.file, 2);
	int fd = open(world_path(path), O_WRONLY);
	assert_int_equal(pwrite(fd, "x", 1, (off_t)place.offset), 1);
	close(fd);
	image = open_link(store, name_of(2));
	memset(&err, 0, sizeof(err));
	assert_int_equal(image_verify_blocks(image, 0, image_blocks(image), &err), -1);
	assert_int_equal(err.code, FSNAP_E_IMAGE_CORRUPT);
	assert_non_null(strstr(err.message, "link-000"));
	image_close(image);
	/* it cannot be made to stand alone then: its damage would be hidden */
	assert_int_equal(store_compact(store, name_of(2), NULL, &err), -1);
	assert_int_equal(files_in("tmp"), 0);
	store_close(store);
}

static void copied_elsewhere(void **state)
{
	(void)state;
	struct store *store = world_store(STORE_WRITE);
	struct fsnap_error err = {0};
	char path[300], command[1200];
	make_chain(store, 2);
	ancestor_file(path, sizeof(path), "images/link-000.fsnap");
	snprintf(command, sizeof(command), "mkdir -p %s && cp %s %s", world_path("far/away"),
		 world_path("images/link-001.fsnap"), world_path("far/away/x.fsnap"));
	assert_int_equal(system(command), 0);
	assert_null(image_open(NULL, world_path("far/away/x.fsnap"), &err));
	assert_int_equal(err.code, FSNAP_E_IMAGE_MISSING);
	assert_non_null(strstr(err.hint, "compact"));
	snprintf(command, sizeof(command), "cp %s %s", world_path(path), world_path("far/away/"));
	assert_int_equal(system(command), 0);
	struct image *image = open_link(NULL, world_path("far/away/x.fsnap"));
	check_open(image, 1);
	image_close(image);
	/* and by its path in the store */
	image = open_link(NULL, world_path("images/link-001.fsnap"));
	check_open(image, 1);
	image_close(image);
	store_close(store);
}

/* --- removed while another is being written on top of it ------------------------------------------------- */

static void removed_under_a_writer(void **state)
{
	(void)state;
	struct store *store = world_store(STORE_WRITE);
	make_chain(store, 2);
	struct image *parent = open_link(store, name_of(1));
	struct image_writer *writer = image_writer_open(store, name_of(2), PAGES, NULL);
	assert_int_equal(image_writer_inherit(writer, parent, NULL), 0);
	assert_int_equal(store_remove(store, name_of(0), NULL), 0);
	assert_int_equal(store_remove(store, name_of(1), NULL), 0);
	assert_int_equal(files_in("ancestors"), 2);
	image_writer_abort(writer);
	assert_int_equal(write_link(store, 2, parent, 0, NULL), 0);
	image_close(parent);
	check_link(store, 2);

	/* gone before: nothing can build on it */
	make_link(store, 3);
	parent = open_link(store, name_of(3));
	assert_int_equal(store_remove(store, name_of(3), NULL), 0);
	struct fsnap_error err = {0};
	assert_int_equal(write_link(store, 4, parent, 0, &err), -1);
	image_close(parent);
	check_link(store, 2);
	assert_int_equal(store_remove(store, name_of(2), NULL), 0);
	assert_int_equal(files_in("ancestors"), 0);
	store_close(store);
}

/* --- without end --------------------------------------------------------------------------------------------- */

/* Hundreds of images, of which the last three are kept: neither lineage nor space grows. */
static void a_ring_without_end(void **state)
{
	(void)state;
	struct store *store = world_store(STORE_WRITE);
	struct image *parent = NULL;
	unsigned most = 0;
	int images = on_disk() ? 20 : 300;
	for (int i = 0; i < images; i++) {
		struct fsnap_error err = {0};
		if (write_link(store, i, parent, 64, &err) < 0)
			fail_msg("%d: %s", i, err.message);
		struct image *next = image_open_beside(store, name_of(i), parent, &err);
		assert_non_null(next);
		image_close(parent);
		parent = next;
		assert_true(image_files(parent) <= 65);
		if (i >= 3)
			assert_int_equal(store_remove_name(store, name_of(i - 3), NULL), 0);
		if (i % 16 == 0)
			assert_int_equal(store_collect(store, NULL), 0);
		if (files_in("ancestors") > most)
			most = files_in("ancestors");
		if (i % 50 == 49)
			check_open(parent, i);
	}
	image_close(parent);
	for (int i = images - 3; i < images; i++)
		check_link(store, i);
	assert_true(most < 100);
	store_close(store);
}

/* What is copied and given up again, because the parent has it, has had its checksum by then. Here comes to lie just as much in
 * its place: a page of the file of which least is left, where a lineage would become too long. */
static void given_up_before_others_come(void **state)
{
	(void)state;
	struct store *store = world_store(STORE_WRITE);
	struct image *parent = NULL;
	struct fsnap_error err = {0};
	bool carried = false;
	for (unsigned i = 0; i < 80; i++) {
		struct image_writer *writer = image_writer_open(store, name_of((int)i), PAGES, &err);
		assert_non_null(writer);
		if (parent)
			assert_int_equal(image_writer_inherit(writer, parent, &err), 0);
		for (unsigned page = 0; page < PAGES; page++) {
			bool own = !parent || page == i;
			uint64_t at = own ? image_writer_take(writer, 1) : STORE_REFERRED | page_at(parent, SPACE, page);
			if (own)
				seed_page(image_writer_page(writer, at), i, page);
			add_page(writer, page, at);
		}
		uint64_t taken = image_writer_taken(writer);
		assert_int_equal(image_writer_reserve(writer, taken + 1, &err), 0);
		memset(image_writer_page(writer, image_writer_take(writer, 1)), 0xee, STORE_PAGE);
		image_writer_checksum(writer, 0, taken / STORE_BLOCK_PAGES + 1);
		image_writer_shrink(writer, taken);
		assert_int_equal(image_writer_commit(writer, NULL, &err), 0);
		struct image *next = image_open_beside(store, name_of((int)i), parent, &err);
		assert_non_null(next);
		image_close(parent);
		parent = next;
		carried = carried || image_pages(parent) > taken;
		if (image_verify_blocks(parent, 0, image_blocks(parent), &err) < 0)
			fail_msg("%u: %s", i, err.message);
	}
	assert_true(carried);
	image_close(parent);
	store_close(store);
}

/* --- killed --------------------------------------------------------------------------------------------------- */

static unsigned moments, kill_at;

static void kill_self(int fd, uint64_t offset, uint64_t length)
{
	(void)fd, (void)offset, (void)length;
	if (moments++ == kill_at)
		raise(SIGKILL);
}

static bool compact_and_die(unsigned at)
{
	pid_t child = fork();
	if (child == 0) {
		struct store *store = store_open(world, STORE_WRITE, NULL);
		moments = 0;
		kill_at = at;
		medium_persisted_hook = kill_self;
		_exit(store_compact(store, name_of(3), NULL, NULL) == 0 ? 0 : 1);
	}
	int status;
	waitpid(child, &status, 0);
	assert_true(status == 0 || WIFSIGNALED(status));
	return status != 0;
}

static void killed_while_compacting(void **state)
{
	(void)state;
	struct store *store = world_store(STORE_WRITE);
	make_chain(store, 5);
	store_close(store);
	unsigned at = 0;
	for (; compact_and_die(at); at++) {
		store = world_store(STORE_WRITE);
		assert_int_equal(files_in("tmp"), 0);
		for (int i = 0; i < 5; i++)
			check_link(store, i);
		store_close(store);
	}
	assert_true(at >= 4);
	store = world_store(STORE_WRITE);
	for (int i = 0; i < 5; i++)
		check_link(store, i);
	struct image *image = open_link(store, name_of(3));
	assert_int_equal(image_files(image), 1);
	image_close(image);
	store_close(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(a_chain_of_twenty),
		STORE_TEST(removed_in_any_order),
		STORE_TEST(compacted_in_any_order),
		STORE_TEST(an_ancestor_that_is_missing),
		STORE_TEST(copied_elsewhere),
		STORE_TEST(removed_under_a_writer),
		STORE_TEST(a_ring_without_end),
		STORE_TEST(given_up_before_others_come),
		STORE_TEST(killed_while_compacting),
	};
	return RUN_ON_BOTH_MEDIA(tests);
}
