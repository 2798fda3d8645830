/*
 * test_store_crash.c - whatever a power cut takes of a store, there is the old set of images or the new one.
 *
 * Images are written, into fresh space and into that of others; removed; built on one another; made to stand alone;
 * signed. At every call that changes a name or makes something durable the power is cut, and every way in which
 * what was not durable can be lost is opened (store_recorder.h).
 *
 * Shown: each image that is listed is one that was meant to be, to the last byte; the set of them is the one before
 * the step or the one after it, and once the step has returned the one after it; and what is left can be written to.
 * FSNAP_CRASHES=1 tries more ways.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <sodium.h>
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

#include "store_recorder.h"

#define PAGES 10
#define SPACE 5

/* Images are called a, b, ...: a set of them is a set of bits. */
static unsigned allowed[2];
static const char *step_name;
static int parent_of[26]; /* whose the odd pages are; 0: its own */

static unsigned bit(int name)
{
	return 1u << (name - 'a');
}

static int write_image(struct store *store, int name, int parent, struct fsnap_error *err)
{
	char called[2] = {(char)name}, under[2] = {(char)parent};
	struct image *below = parent ? image_open(store, under, err) : NULL;
	struct image_writer *writer = image_writer_open(store, called, PAGES, err);
	if (!writer || (below && image_writer_inherit(writer, below, err) < 0))
		return -1;
	for (unsigned page = 0; page < PAGES; page++) {
		struct page_run run = {.page = page, .npages = 1, .space = SPACE};
		if (below && page % 2) {
			run.at = STORE_REFERRED | page_at(below, SPACE, page);
		} else {
			run.at = image_writer_take(writer, 1);
			seed_page(image_writer_page(writer, run.at), (unsigned)name, page);
		}
		if (image_writer_add_run(writer, &run, err) < 0)
			return -1;
	}
	image_tree tree = {.root_pid = name, .comm = "", .host = "", .writer = "", .hold = "", .boot_id = ""};
	if (image_writer_put(writer, IMAGE_TREE, true, "tree", (xdrproc_t)xdr_image_tree, &tree, err) < 0)
		return -1;
	int result = image_writer_commit(writer, NULL, err);
	image_close(below);
	return result;
}

/* --- what a crash left -------------------------------------------------------------------------- */

static const char *wrong_with(const struct image *image, int name)
{
	size_t n;
	uint8_t want[STORE_PAGE];
	image_tree tree = {0};
	if (image_get(image, IMAGE_TREE, 0, (xdrproc_t)xdr_image_tree, &tree, NULL) < 0 || tree.root_pid != name)
		return "is another";
	xdr_free((xdrproc_t)xdr_image_tree, &tree);
	const struct page_run *runs = image_runs(image, SPACE, &n);
	uint64_t pages = 0;
	for (size_t i = 0; i < n; i++)
		for (uint64_t j = 0; j < runs[i].npages; j++, pages++) {
			uint64_t page = runs[i].page + j;
			int parent = parent_of[name - 'a'];
			seed_page(want, (unsigned)(parent && page % 2 ? parent : name), page);
			if (memcmp(image_page(image, runs[i].at + j), want, STORE_PAGE) != 0)
				return "has other pages";
		}
	if (pages != PAGES)
		return "has not all its pages";
	return image_verify_blocks(image, 0, image_blocks(image), NULL) < 0 ? "does not verify" : NULL;
}

static unsigned set_of(struct store *store, const char *how)
{
	struct store_entry *entries = NULL;
	size_t n = 0;
	unsigned set = 0;
	struct fsnap_error err = {0};
	if (store_list(store, &entries, &n, &err) < 0)
		fail_msg("%s, %s: list: %s", step_name, how, err.message);
	for (size_t i = 0; i < n; i++) {
		struct image *image = image_open(store, entries[i].name, &err);
		if (!image)
			fail_msg("%s, %s: %s", step_name, how, err.message);
		const char *wrong = wrong_with(image, entries[i].name[0]);
		image_close(image);
		if (wrong)
			fail_msg("%s, %s: image %s %s", step_name, how, entries[i].name, wrong);
		set |= bit(entries[i].name[0]);
	}
	free(entries);
	return set;
}

/* What is left can be gone on with; tried where it matters little how often. */
static void go_on(struct store *store, unsigned set, const char *how)
{
	struct fsnap_error err = {0};
	if (write_image(store, 'y', 0, &err) < 0 || write_image(store, 'z', 0, &err) < 0)
		fail_msg("%s, %s: writing on: %s", step_name, how, err.message);
	assert_int_equal(set_of(store, how), set | bit('y') | bit('z'));
	for (int name = 'a'; name <= 'z'; name++) {
		char called[2] = {(char)name};
		if ((set | bit('y')) & bit(name))
			assert_int_equal(store_remove(store, called, NULL), 0);
	}
	assert_int_equal(set_of(store, how), bit('z'));
}

static void look(const char *directory, const char *how)
{
	struct fsnap_error err = {0};
	struct store *store = store_open(directory, STORE_WRITE, &err);
	if (!store)
		fail_msg("%s, %s: %s", step_name, how, err.message);
	unsigned set = set_of(store, how);
	if (set != allowed[0] && set != allowed[1])
		fail_msg("%s, %s: a third thing: %#x, neither %#x nor %#x", step_name, how, set, allowed[0], allowed[1]);
	if (recorder.states % 16 == 0)
		go_on(store, set, how);
	store_close(store);
}

/* --- steps ---------------------------------------------------------------------------------------- */

static struct store *store;

static void begin(const char *what, unsigned after)
{
	step_name = what;
	allowed[1] = after;
}

static void end(int result, const struct fsnap_error *err)
{
	if (result < 0)
		fail_msg("%s: %s", step_name, err->message);
	allowed[0] = allowed[1];
	recorder.on = false;
	crash(); /* it has returned: it holds */
	recorder.on = true;
}

static void make(int name, int parent)
{
	struct fsnap_error err = {0};
	parent_of[name - 'a'] = parent && parent_of[parent - 'a'] ? parent_of[parent - 'a'] : parent;
	begin("writing an image", allowed[0] | bit(name));
	end(write_image(store, name, parent, &err), &err);
}

static void drop(int name)
{
	struct fsnap_error err = {0};
	char called[2] = {(char)name};
	begin("removing an image", allowed[0] & ~bit(name));
	end(store_remove(store, called, &err), &err);
}

static void compact(int name)
{
	struct fsnap_error err = {0};
	char called[2] = {(char)name};
	begin("compacting an image", allowed[0]);
	end(store_compact(store, called, NULL, &err), &err);
}

static void sign(int name)
{
	struct fsnap_error err = {0};
	uint8_t public[crypto_sign_PUBLICKEYBYTES], secret[crypto_sign_SECRETKEYBYTES];
	char called[2] = {(char)name};
	assert_true(sodium_init() >= 0);
	crypto_sign_keypair(public, secret);
	begin("signing an image", allowed[0]);
	struct image *image = image_open(store, called, &err);
	assert_non_null(image);
	int result = image_sign(image, secret, &err);
	image_close(image);
	end(result, &err);
}

static void played(void (*steps)(void))
{
	allowed[0] = allowed[1] = 0;
	memset(parent_of, 0, sizeof(parent_of));
	store = world_store(STORE_WRITE);
	recorder_start(look);
	steps();
	recorder_stop();
	store_close(store);
	print_message("%lu moments, %lu losses of names, %lu directories\n", recorder.moments, recorder.orders,
		      recorder.states);
	assert_true(recorder.states > 100);
}

static void recycling(void)
{
	make('a', 0);
	make('b', 0);
	drop('a');
	make('c', 0); /* where a was */
	drop('b');
	drop('c');
	make('b', 0); /* a name that was there before */
}

static void building_on(void)
{
	make('a', 0);
	make('b', 'a');
	drop('a'); /* its file stays */
	make('c', 'b');
	compact('b');
	drop('c'); /* a's file goes */
	make('d', 0);
	drop('b');
}

static void signing(void)
{
	make('a', 0);
	sign('a');
	sign('a');
	make('b', 'a');
	sign('b');
	drop('a');
}

static void images_recycle_space(void **state)
{
	(void)state;
	played(recycling);
}

static void images_build_on_one_another(void **state)
{
	(void)state;
	played(building_on);
}

static void images_are_signed(void **state)
{
	(void)state;
	played(signing);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(images_recycle_space),
		STORE_TEST(images_build_on_one_another),
		STORE_TEST(images_are_signed),
	};
	world_base = "/tmp";
	return cmocka_run_group_tests_name("on a disk", tests, NULL, NULL);
}
