/*
 * test_copies.c - a program that dumps itself, and what its copies are given: fsnap_checkpoint(), fsnap_spawn(),
 * fsnap_clones(), as a program uses them. This one is the program, too: run with a word it plays that part.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/fsnap.h"

static char work[64], self[4096];

/* --- the program ------------------------------------------------------------------- */

/* The locks of malloc and of stdout are taken all the time, that of stderr for good. */
static void *hold_locks(void *arg)
{
	flockfile(stderr);
	for (;;)
		free(malloc(100000));
	return arg;
}

static int reseeded;

static void reseed(void *arg, const struct fsnap_checkpoint_report *report)
{
	*(int *)arg = 1000 + (int)report->copy;
}

/* Memory of some size, which whoever has looked at it overwrites. */
enum { WORDS = 1 << 20 };
static uint64_t *memory;

static int memory_is_good(void)
{
	int good = 1;
	for (uint64_t i = 0; i < WORDS; i++) {
		good &= memory[i] == i * 0x9e3779b97f4a7c15u;
		memory[i] = 1;
	}
	return good;
}

static void say(const struct fsnap_checkpoint_report *report, int result, const char *error)
{
	char text[1024], directory[256];
	const char *variable = result == FSNAP_COPY ? fsnap_copy_variable(report, "LONG") : NULL;
	int n = snprintf(text, sizeof(text), "%d copy %u seed %d says '%.*s' variable %s in %s image %s%s\n", result,
			 report->copy, reseeded, (int)report->message_length, report->message ? report->message : "",
			 variable ? variable : "none", getcwd(directory, sizeof(directory)), report->image, error);
	if (write(STDOUT_FILENO, text, (size_t)n) != n)
		_exit(99);
}

static int program(const char *store)
{
	pthread_t threads[3];
	struct fsnap_error err = { 0 };
	struct fsnap_checkpoint_report report = { .size = sizeof(report) };
	struct fsnap_checkpoint_options options = { .size = sizeof(options), .store = store, .name = "me",
						    .command = FSNAP_COMMAND, .on_copy = reseed,
						    .on_copy_arg = &reseeded };
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, hold_locks, NULL);
	memory = mmap(NULL, WORDS * sizeof(*memory), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (uint64_t i = 0; i < WORDS; i++)
		memory[i] = i * 0x9e3779b97f4a7c15u;
	usleep(20000);
	int result = fsnap_checkpoint(&options, &report, &err);
	say(&report, result, err.message);
	if (!memory_is_good())
		_exit(90);
	_exit(result == FSNAP_COPY ? 40 + (int)report.copy : result == FSNAP_ORIGINAL ? 0 : 1);
}

/* --- what it says -------------------------------------------------------------------- */

static char *path(const char *name)
{
	static char paths[8][128];
	static unsigned next;
	char *to = paths[next++ % 8];
	snprintf(to, sizeof(paths[0]), "%s/%s", work, name);
	return to;
}

static const char *said(const char *name)
{
	static char text[4096];
	int fd = open(path(name), O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
	text[n > 0 ? n : 0] = '\0';
	close(fd);
	return text;
}

static int make(const char *name)
{
	int fd = open(path(name), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	return fd;
}

static int end_of(int pidfd)
{
	siginfo_t info = { 0 };
	alarm(30); /* rather than hang */
	assert_int_equal(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED), 0);
	close(pidfd);
	return info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
}

static int set_up(void **state)
{
	(void)state;
	snprintf(work, sizeof(work), "/tmp/fsnap-copies-XXXXXX");
	return mkdtemp(work) && mkdir(path("elsewhere"), 0755) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[128];
	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", work);
	return system(command);
}

/* --- tests ------------------------------------------------------------------------------ */

static void original_goes_on(void **state)
{
	(void)state;
	int out = make("original");
	pid_t pid = fork();
	if (pid == 0) {
		dup2(open("/dev/null", O_RDWR), 0);
		dup2(out, 1);
		dup2(out, 2);
		setsid();
		close_range(3, ~0u, 0);
		execl(self, self, "program", path("store"), NULL);
		_exit(98);
	}
	close(out);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	char expected[512];
	char here[256];
	snprintf(expected, sizeof(expected), "0 copy 0 seed 0 says '' variable none in %s image me\n",
		 getcwd(here, sizeof(here)));
	assert_string_equal(said("original"), expected);
	assert_int_equal(status, 0);
}

static void a_copy_is_told(void **state)
{
	(void)state;
	int out = make("copy");
	int stdio[3] = { -1, out, out };
	static const char *const env[] = { "LONG=a variable that the program did not have", NULL };
	char store[128], elsewhere[128], expected[512];
	strcpy(store, path("store"));
	strcpy(elsewhere, path("elsewhere"));
	struct fsnap_error err = { 0 };
	struct fsnap_restore_options options = { .size = sizeof(options), .store = store, .stdio = stdio,
						 .cwd = elsewhere, .env = env, .message = "good morning",
						 .message_length = 12, .copy = 2,
						 .changed = FSNAP_CHANGED_ACCEPT };
	int pidfd = fsnap_spawn("me", &options, NULL, &err);
	close(out);
	if (pidfd < 0)
		fail_msg("%s (%s)", err.message, err.hint);
	assert_int_equal(end_of(pidfd), 42);
	snprintf(expected, sizeof(expected), "1 copy 2 seed 1002 says 'good morning' variable %s in %s image me\n",
		 "a variable that the program did not have", elsewhere);
	assert_string_equal(said("copy"), expected);
}

static void many_are_numbered(void **state)
{
	enum { N = 5 };
	(void)state;
	int out = make("many"), stdio[3] = { -1, out, out };
	struct fsnap_error err = { 0 };
	struct fsnap_restore_report reports[N] = { { .size = sizeof(reports[0]) } };
	struct fsnap_restore_options options = { .size = sizeof(options), .store = path("store"), .image = "me",
						 .stdio = stdio, .detach = 1, .pidfd = 1,
						 .changed = FSNAP_CHANGED_ACCEPT };
	if (fsnap_clones(&options, N, reports, &err) < 0)
		fail_msg("%s (%s)", err.message, err.hint);
	close(out);
	for (int i = 0; i < N; i++) {
		char line[64];
		assert_int_equal(reports[i].copy, i + 1);
		assert_int_equal(end_of(reports[i].pidfd), 41 + i);
		snprintf(line, sizeof(line), "1 copy %d seed %d ", i + 1, 1001 + i);
		assert_non_null(strstr(said("many"), line));
	}
}

static void a_template_stays_what_it_was(void **state)
{
	(void)state;
	int out = make("forked"), stdio[3] = { -1, out, out };
	struct fsnap_error err = { 0 };
	struct fsnap_template *held;
	if (fsnap_template_open(path("store"), "me", &held, &err) < 0)
		fail_msg("%s (%s)", err.message, err.hint);
	/* Unless this process has something just there, which is up to chance. */
	if (fsnap_template_bytes(held) < WORDS * sizeof(*memory))
		print_message("its memory could not be held\n");
	for (unsigned i = 1; i <= 3; i++) {
		struct fsnap_restore_options options = { .size = sizeof(options), .from = held, .stdio = stdio,
							 .copy = i, .changed = FSNAP_CHANGED_ACCEPT };
		int pidfd = fsnap_spawn(NULL, &options, NULL, &err);
		if (pidfd < 0)
			fail_msg("%s (%s)", err.message, err.hint);
		assert_int_equal(end_of(pidfd), 40 + (int)i);
	}
	fsnap_template_close(held);
	close(out);
}

static void errors_are_told(void **state)
{
	(void)state;
	struct fsnap_error err = { 0 };
	struct fsnap_checkpoint_options nowhere = { .size = sizeof(nowhere), .store = "/proc/nowhere",
						    .command = FSNAP_COMMAND };
	assert_int_equal(fsnap_checkpoint(&nowhere, NULL, &err), -1);
	assert_int_not_equal(err.code, 0);
	assert_true(err.message[0]);
	assert_int_equal(fsnap_spawn("nobody", NULL, NULL, &err), -1);
	static char large[2 << 20];
	struct fsnap_restore_options options = { .size = sizeof(options), .store = path("store"), .message = large,
						 .message_length = sizeof(large),
						 .changed = FSNAP_CHANGED_ACCEPT };
	err = (struct fsnap_error){ 0 };
	assert_int_equal(fsnap_spawn("me", &options, NULL, &err), -1);
	assert_int_equal(err.code, FSNAP_E_USAGE);
	assert_true(err.hint[0]);
}

int main(int argc, char **argv)
{
	if (argc > 2)
		return program(argv[2]);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	printf("skip: a sanitized program cannot be restored\n");
	return 77;
#endif
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n < 0 || argc > 1)
		return 1;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(original_goes_on),
		cmocka_unit_test(a_copy_is_told),
		cmocka_unit_test(many_are_numbered),
		cmocka_unit_test(a_template_stays_what_it_was),
		cmocka_unit_test(errors_are_told),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
