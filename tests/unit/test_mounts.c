/* The table of mounts is read as the kernel writes it: with blanks in names, optional fields or none, empty sources. */
#include "engine/mounts.h" /* before cmocka makes a macro of fail */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void fields_are_told(void **state)
{
	(void)state;
	char text[] = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n"
		      "37 35 0:12 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
	char *cursor = text;
	struct mounts_line line;
	assert_int_equal(mounts_next(&cursor, &line), 1);
	assert_int_equal(line.id, 36);
	assert_int_equal(line.major, 98);
	assert_int_equal(line.minor, 0);
	assert_int_equal(mounts_device(&line), 98 << 20);
	assert_string_equal(line.root, "/mnt1");
	assert_string_equal(line.point, "/mnt2");
	assert_string_equal(line.type, "ext3");
	assert_string_equal(line.source, "/dev/root");
	assert_string_equal(line.super_options, "rw,errors=continue");
	assert_int_equal(mounts_next(&cursor, &line), 1);
	assert_string_equal(line.point, "/sys/fs/cgroup/cpu");
	assert_string_equal(line.type, "cgroup");
	assert_string_equal(line.super_options, "rw,cpu,cpuacct");
	assert_int_equal(mounts_next(&cursor, &line), 0);
	assert_int_equal(mounts_next(&cursor, &line), 0);
}

static void escapes_are_undone(void **state)
{
	(void)state;
	char text[] = "1 0 8:1 /a\\040b /with\\040blank\\011tab\\012line\\134back\\9 rw - ext4 /dev/a\\040- rw";
	char *cursor = text;
	struct mounts_line line;
	assert_int_equal(mounts_next(&cursor, &line), 1);
	assert_string_equal(line.root, "/a b");
	assert_string_equal(line.point, "/with blank\ttab\nline\\back\\9");
	assert_string_equal(line.source, "/dev/a -");
	assert_int_equal(mounts_next(&cursor, &line), 0);
}

static void odd_lines_do_no_harm(void **state)
{
	(void)state;
	char text[] = "\nno such line\n1 0 8:1 / /cut rw - ext4\nx y z - - - -\n2 0 0:5 / /empty rw -   rw\n"
		      "3 0 0:6 / /none rw - tmpfs  rw\n";
	char *cursor = text;
	struct mounts_line line;
	assert_int_equal(mounts_next(&cursor, &line), 1);
	assert_string_equal(line.point, "/empty");
	assert_string_equal(line.type, "");
	assert_int_equal(mounts_next(&cursor, &line), 1);
	assert_string_equal(line.point, "/none");
	assert_string_equal(line.source, "");
	assert_int_equal(mounts_next(&cursor, &line), 0);
}

static void our_own_has_a_root(void **state)
{
	(void)state;
	struct fsnap_error err = { 0 };
	char *text = mounts_read(&err), *cursor = text;
	struct mounts_line line;
	int roots = 0;
	assert_non_null(text);
	while (mounts_next(&cursor, &line))
		roots += strcmp(line.point, "/") == 0;
	assert_true(roots >= 1);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_are_told),
		cmocka_unit_test(escapes_are_undone),
		cmocka_unit_test(odd_lines_do_no_harm),
		cmocka_unit_test(our_own_has_a_root),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
