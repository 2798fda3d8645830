/*
 * fsnap_cmocka.h - a fixture that is set up once, and that each test of cmocka starts from.
 *
 *	static int fill(void **state) { *state = a_large_index(); return 0; }	// slow; threads, children: as you like
 *	static void removes(void **state) { index_remove_all(*state); ... }	// may destroy it
 *	static void finds(void **state) { assert_true(index_find(*state, 7)); }	// as it was set up
 *
 *	FSNAP_FIXTURE(index_fixture, fill);
 *	FSNAP_TEST(index_fixture, removes)
 *	FSNAP_TEST(index_fixture, finds)
 *
 *	int main(void)
 *	{
 *		const struct CMUnitTest tests[] = { fsnap_unit_test(removes), fsnap_unit_test(finds) };
 *		return cmocka_run_group_tests(tests, fsnap_setup(index_fixture), fsnap_teardown(index_fixture));
 *	}
 *
 * The setup runs in a process of its own, which is saved when it is done. For each test a copy is restored, runs it,
 * and ends; the test passes if it does. What a test finds in memory, in threads and in child processes is what the
 * setup has left, whatever other tests did. Link with libfsnap and cmocka. Copies have process numbers of their own.
 */
#ifndef FSNAP_CMOCKA_H
#define FSNAP_CMOCKA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <fsnap/fsnap.h>

struct fsnap_fixture {
	CMFixtureFunction setup;
	char store[64]; /* a directory of this run's own */
};

static int fsnap_fixture_begin(struct fsnap_fixture *fixture);
static int fsnap_fixture_end(struct fsnap_fixture *fixture);
static void fsnap_fixture_run(struct fsnap_fixture *fixture, const struct CMUnitTest *test);

#define FSNAP_FIXTURE(name, setup_function)                                 \
	static struct fsnap_fixture name = { .setup = setup_function };     \
	static int fsnap_begin_##name(void **state)                         \
	{                                                                   \
		(void)state;                                                \
		return fsnap_fixture_begin(&(name));                        \
	}                                                                   \
	static int fsnap_end_##name(void **state)                           \
	{                                                                   \
		(void)state;                                                \
		return fsnap_fixture_end(&(name));                          \
	}                                                                   \
	struct fsnap_fixture

#define fsnap_setup(name) fsnap_begin_##name
#define fsnap_teardown(name) fsnap_end_##name

/* The test in two forms: as it was written, which runs in the copy, and what cmocka is given. */
#define FSNAP_TEST(name, test)                                                        \
	static void fsnap_test_##test(void **state)                                   \
	{                                                                             \
		const struct CMUnitTest only = { #test, test, NULL, NULL, NULL };     \
		(void)state;                                                          \
		fsnap_fixture_run(&(name), &only);                                    \
	}
#define fsnap_unit_test(test) { #test, fsnap_test_##test, NULL, NULL, NULL }

/* --- in the process of the fixture ------------------------------------------------------ */

/* Never returns. In each copy the message is the test: its code is where it was, in the same program. */
static void fsnap_fixture_live(struct fsnap_fixture *fixture)
{
	struct fsnap_checkpoint_report report = { .size = sizeof(report) };
	struct fsnap_checkpoint_options options = { .size = sizeof(options), .store = fixture->store, .name = "fixture" };
	struct fsnap_error err = { 0 };
	void *state = NULL;

	if (fixture->setup(&state))
		_exit(1);
	fflush(NULL);
	int where = fsnap_checkpoint(&options, &report, &err);
	if (where < 0)
		fprintf(stderr, "fixture: %s\n%s\n", err.message, err.hint);
	if (where != FSNAP_COPY) /* the original has done its part */
		_exit(where != FSNAP_ORIGINAL);
	struct CMUnitTest test;
	memcpy(&test, report.message, sizeof(test));
	test.initial_state = state;
	const struct CMUnitTest tests[] = { test };
	int failed = cmocka_run_group_tests_name(test.name, tests, NULL, NULL);
	fflush(NULL);
	_exit(failed != 0);
}

/* --- in the process of the tests --------------------------------------------------------- */

static int fsnap_fixture_begin(struct fsnap_fixture *fixture)
{
	int status;

	snprintf(fixture->store, sizeof(fixture->store), "%s", "/tmp/fsnap-cmocka-XXXXXX");
	if (!mkdtemp(fixture->store))
		return -1;
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0)
		fsnap_fixture_live(fixture);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
		print_error("the fixture was not set up, or not saved\n");
		return -1;
	}
	return 0;
}

static void fsnap_fixture_run(struct fsnap_fixture *fixture, const struct CMUnitTest *test)
{
	struct fsnap_restore_options options = { .size = sizeof(options), .store = fixture->store, .image = "fixture",
						 .message = test, .message_length = sizeof(*test),
						 .pids = FSNAP_PIDS_NEW };
	struct fsnap_restore_report report = { .size = sizeof(report) };
	struct fsnap_error err = { 0 };
	int status;

	if (fsnap_restore(&options, &report, &err))
		fail_msg("%s: %s", err.message, err.hint);
	if (waitpid(report.pid, &status, 0) != report.pid || status != 0)
		fail_msg("%s failed in its copy (status %#x)", test->name, (unsigned)status);
}

static int fsnap_fixture_end(struct fsnap_fixture *fixture)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", fixture->store);
	return system(command);
}

#endif
