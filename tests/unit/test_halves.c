/*
 * What could be read in part only is not taken for the whole.
 *
 * Shown, with calls failing midway: a directory that is saved with the tree has not fewer files, nor a file a hole where
 * its data is; a directory of trusted keys that cannot be read to its end does not trust whomever; what cannot be
 * asked about leases opens nobody's file.
 */
#include "engine/heat/heat.h" /* before cmocka makes a macro of fail */
#include "engine/with/with.h"
#include "store/internal.h"
#include "store/signature.h"

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
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "test_store.h"

struct dirent *__real_readdir(DIR *dir);
struct dirent *__wrap_readdir(DIR *dir);
off_t __real_lseek(int fd, off_t offset, int whence);
off_t __wrap_lseek(int fd, off_t offset, int whence);

static struct fsnap_error err;
static unsigned entries_left; /* then reading a directory fails, if one is to */
static bool directories_fail, seeking_fails;

struct dirent *__wrap_readdir(DIR *dir)
{
	if (!directories_fail || entries_left)
		return entries_left--, __real_readdir(dir);
	errno = EIO;
	return NULL;
}

off_t __wrap_lseek(int fd, off_t offset, int whence)
{
	if (!seeking_fails || (whence != SEEK_DATA && whence != SEEK_HOLE))
		return __real_lseek(fd, offset, whence);
	errno = EIO;
	return -1;
}

static void fail_after(unsigned entries)
{
	directories_fail = true;
	entries_left = entries;
	err = (struct fsnap_error){ 0 };
}

static int new_directory(const char *name)
{
	assert_int_equal(mkdir(world_path(name), 0700), 0);
	int fd = open(world_path(name), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static void put_file(int dir, const char *name, const char *text)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void half_a_directory_is_none(void **state)
{
	(void)state;
	struct with_list list;
	int dir = new_directory("tree");
	put_file(dir, "one", "1");
	put_file(dir, "two", "2");
	assert_int_equal(with_list_read(dir, NULL, &list, &err), 0);
	assert_int_equal(list.n, 2);
	with_list_free(&list);
	for (unsigned entries = 0; entries < 4; entries++) {
		fail_after(entries);
		assert_int_equal(with_list_read(dir, NULL, &list, &err), -1);
		assert_int_equal(err.sys, EIO);
		with_list_free(&list);
	}
	directories_fail = false;
	close(dir);
}

static void an_error_is_no_hole(void **state)
{
	(void)state;
	struct stat stat;
	struct with_copier copier = { .from = new_directory("from"), .to = new_directory("to") };
	put_file(copier.from, "file", "what it holds");
	assert_int_equal(fstatat(copier.from, "file", &stat, 0), 0);
	seeking_fails = true;
	err = (struct fsnap_error){ 0 };
	int result = with_copy(&copier, "file", "file", &stat, &err);
	seeking_fails = false;
	if (result == 0) { /* blocks are shared here, and nothing is sought */
		char found[64] = "";
		int fd = openat(copier.to, "file", O_RDONLY | O_CLOEXEC);
		assert_true(read(fd, found, sizeof(found) - 1) >= 0);
		assert_string_equal(found, "what it holds");
		close(fd);
	} else {
		assert_int_equal(err.sys, EIO);
	}
	with_copier_free(&copier);
	close(copier.from);
	close(copier.to);
}

static void trust_is_read_to_the_end(void **state)
{
	(void)state;
	struct trust trust;
	close(new_directory("trusted"));
	setenv("FSNAP_TRUSTED", world_path("trusted"), 1);
	fail_after(0);
	assert_int_equal(trust_load(&trust, &err), -1);
	assert_int_equal(err.sys, EIO);
	directories_fail = false;
	unsetenv("FSNAP_TRUSTED");
	trust_free(&trust);
}

static void leases_that_cannot_be_asked_for_are_minded(void **state)
{
	(void)state;
	struct leases leases = { 0 }, none = { 0 };
	struct rlimit limit, little;
	assert_false(leases_known(&none, 1));
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	little = (struct rlimit){ 0, limit.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &little), 0);
	bool held = leases_hold(&leases, 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_true(held);
	assert_true(leases_known(&leases, 2));
	leases_free(&leases);
	assert_false(leases_hold(&none, 1)); /* no file has this number, and all could be asked */
	leases_free(&none);
}

int main(void)
{
#define WORLD(test) cmocka_unit_test_setup_teardown(test, world_set_up, world_tear_down)
	const struct CMUnitTest tests[] = {
		WORLD(half_a_directory_is_none),
		WORLD(an_error_is_no_hole),
		WORLD(trust_is_read_to_the_end),
		WORLD(leases_that_cannot_be_asked_for_are_minded),
	};
	world_base = "/var/tmp";
	return cmocka_run_group_tests(tests, NULL, NULL);
}
