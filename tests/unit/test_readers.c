/* Where control groups are mounted is known from image to image, until a mount changes. */
#include "engine/chain/chain.h" /* before cmocka makes a macro of fail */

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include <cmocka.h>

static struct chain chain = { .stays_open = true };

/* As one image after the other does: known from the one before, or read; and left for the next. */
static bool was_known(void)
{
	struct dump dump = { .chain = &chain };
	bool known = readers_take_cgroup_mounts(&dump);
	if (!known) { /* as if one were there, whether or not this machine has any */
		assert_int_equal(dump.cgroup_mounts.n, 0);
		dump.cgroup_mounts.mounts = calloc(1, sizeof(*dump.cgroup_mounts.mounts));
		dump.cgroup_mounts.mounts[0].point = strdup("/sys/fs/cgroup");
		dump.cgroup_mounts.n = 1;
	}
	assert_string_equal(dump.cgroup_mounts.mounts[0].point, "/sys/fs/cgroup");
	readers_leave_cgroup_mounts(&dump);
	assert_int_equal(dump.cgroup_mounts.n, 0);
	return known;
}

static void test_mounts(void **state)
{
	(void)state;
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		print_message("no mount namespace of its own: not root\n");
		skip();
	}
	assert_false(was_known());
	assert_true(was_known());
	assert_true(was_known());
	assert_int_equal(mount("none", "/mnt", "tmpfs", 0, NULL), 0);
	assert_false(was_known());
	assert_true(was_known());
	assert_int_equal(mount("none", "/mnt", NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
	assert_false(was_known());
	assert_int_equal(umount("/mnt"), 0);
	assert_false(was_known());
	assert_true(was_known());
	readers_free(&chain.readers);
}

/* A dump of its own keeps nothing. */
static void test_none(void **state)
{
	(void)state;
	struct dump dump = { 0 };
	assert_false(readers_take_cgroup_mounts(&dump));
	dump.cgroup_mounts.n = 1;
	readers_leave_cgroup_mounts(&dump);
	assert_int_equal(dump.cgroup_mounts.n, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mounts),
		cmocka_unit_test(test_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
