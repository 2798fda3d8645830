/*
 * test_family.c - who makes whom: every process of these trees gets its session and group, or is
 * refused by name. The trees are those that a kernel can bring about.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "engine/family.h"

#include <cmocka.h> /* last: its fail() is a macro */

#define CHLD 17

static struct family plan(const struct kin *kin, size_t n, int expected, struct fsnap_error *err)
{
	struct family family = { .kin = calloc(n, sizeof(*kin)), .n = n };
	assert_non_null(family.kin);
	memcpy(family.kin, kin, n * sizeof(*kin));
	assert_int_equal(expected, family_plan(&family, err));
	return family;
}

#define PLAN(kin, expected, err) plan(kin, sizeof(kin) / sizeof(*(kin)), expected, err)

/* { pid, parent, group, session } */
#define KIN(PID, PARENT, GROUP, SESSION, ...) \
	{ .pid = PID, .ppid = PARENT, .pgid = GROUP, .sid = SESSION, .exit_signal = CHLD, __VA_ARGS__ }

static void shell_job(void **state)
{
	const struct kin kin[] = { KIN(10, 0, 10, 5), KIN(11, 10, 10, 5), KIN(12, 10, 12, 5) };
	struct family family = PLAN(kin, 0, NULL);
	(void)state;
	assert_int_equal(BIRTH_CHILD, family.kin[1].birth);
	assert_int_equal(0, family.kin[1].born_in);
	assert_int_equal(10, family.kin[1].joins);
	assert_int_equal(12, family.kin[2].joins);
	assert_int_equal(2, family.n_groups);
	family_free(&family);
}

/* Forked before its parent's setsid(). */
static void older_than_the_session(void **state)
{
	const struct kin kin[] = { KIN(10, 0, 10, 10), KIN(11, 10, 9, 9), KIN(12, 10, 10, 10) };
	struct family family = PLAN(kin, 0, NULL);
	(void)state;
	assert_true(family.kin[1].before);
	assert_false(family.kin[2].before);
	family_free(&family);
}

/* A daemon: the leader of its session has ended, and so has its group. */
static void daemon_root(void **state)
{
	const struct kin kin[] = { KIN(10, 0, 9, 9, .session_lost = true, .group_lost = true),
				   KIN(11, 10, 9, 9, .session_lost = true, .group_lost = true) };
	struct family family = PLAN(kin, 0, NULL);
	(void)state;
	assert_int_equal(1, family.n_stand_ins);
	assert_int_equal(9, family.stand_ins[0].pid);
	assert_true(family.stand_ins[0].session);
	assert_true(family.stand_ins[0].parent == KIN_NONE);
	assert_int_equal(BIRTH_STAND_IN, family.kin[0].birth);
	assert_int_equal(0, family.kin[0].joins);
	assert_int_equal(BIRTH_CHILD, family.kin[1].birth);
	assert_int_equal(0, family.n_joiners);
	family_free(&family);
}

static void lost_group(void **state)
{
	const struct kin kin[] = { KIN(10, 0, 10, 10), KIN(11, 10, 7, 10, .group_lost = true),
				   KIN(12, 10, 7, 10, .group_lost = true) };
	struct family family = PLAN(kin, 0, NULL);
	(void)state;
	assert_int_equal(1, family.n_stand_ins);
	assert_false(family.stand_ins[0].session);
	assert_int_equal(1, family.stand_ins[0].parent);
	assert_int_equal(2, family.n_joiners);
	assert_int_equal(2, family.n_groups);
	family_free(&family);
}

static void brothers_and_cousins(void **state)
{
	const struct kin kin[] = { KIN(10, 0, 10, 10), KIN(20, 10, 20, 20), KIN(30, 10, 10, 10),
				   KIN(21, 10, 20, 20), KIN(40, 30, 40, 40), KIN(41, 10, 40, 40) };
	struct family family = PLAN(kin, 0, NULL);
	(void)state;
	assert_int_equal(BIRTH_SIBLING, family.kin[3].birth);
	assert_int_equal(1, family.kin[3].maker);
	assert_int_equal(BIRTH_ORPHAN, family.kin[5].birth);
	assert_int_equal(4, family.kin[5].maker);
	assert_true(family.kin[0].adopts);
	assert_int_equal(1, family.n_orphans);
	family_free(&family);
}

/* Two subreapers, one above the other, with orphans of one session each: nobody can make both. */
static void refused(void **state)
{
	const struct kin kin[] = { KIN(10, 0, 10, 10), KIN(11, 10, 10, 10),
				   KIN(12, 10, 7, 7, .session_lost = true),
				   KIN(13, 11, 7, 7, .session_lost = true) };
	struct fsnap_error err = { 0 };
	struct family family = PLAN(kin, -1, &err);
	(void)state;
	assert_int_equal(FSNAP_E_UNSUPPORTED, err.code);
	assert_non_null(strstr(err.message, "process 13"));
	family_free(&family);
}

/* What no kernel brings about, an image may: an answer, whichever, and no endless search. */
static void nonsense(void **state)
{
	const struct kin kin[] = { KIN(10, 0, 10, 12), KIN(11, 10, 10, 12), KIN(12, 11, 12, 12),
				   KIN(13, 12, 11, 13) };
	struct fsnap_error err = { 0 };
	struct family family = { .kin = calloc(4, sizeof(*kin)), .n = 4 };
	(void)state;
	memcpy(family.kin, kin, sizeof(kin));
	if (family_plan(&family, &err) < 0)
		assert_int_equal(FSNAP_E_UNSUPPORTED, err.code);
	family_free(&family);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shell_job),	     cmocka_unit_test(older_than_the_session),
		cmocka_unit_test(daemon_root),	     cmocka_unit_test(lost_group),
		cmocka_unit_test(brothers_and_cousins), cmocka_unit_test(refused),
		cmocka_unit_test(nonsense),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
