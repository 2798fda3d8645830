/*
 * test_copies.c - a program that dumps itself, and what its copies are given: fsnap_checkpoint(), fsnap_spawn(),
 * fsnap_clones(), as a program uses them. This one is the program, too: run with a word it plays that part.
 */
#include <dlfcn.h>
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
#include <sys/random.h>
#include <sys/resource.h>
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
	for (int i = 0; i < 1000; i++) /* whoever held that lock has come along, and gives it back */
		free(malloc(100000));
	_exit(result == FSNAP_COPY ? 40 + (int)report.copy : result == FSNAP_ORIGINAL ? 0 : 1);
}

/* --- a program that throws dice ------------------------------------------------------ */

struct dice { /* of the kernel's interface (vdso(7)) */
	uint32_t size, prot, flags, reserved[13];
};
typedef ssize_t (*vdso_random)(void *, size_t, unsigned, void *, size_t);

/* Its state lies in memory of ours, and was used before the image is made. NULL: this kernel has none (Linux 6.11). */
static vdso_random find_vdso(struct dice *dice, void **state)
{
	void *vdso = dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD);
	vdso_random draw = vdso ? (vdso_random)dlsym(vdso, "__vdso_getrandom") : NULL;
	uint64_t unused;
	if (!draw || draw(NULL, 0, 0, dice, ~0ul) != 0)
		return NULL;
	*state = mmap(NULL, 4096, (int)dice->prot, (int)dice->flags, -1, 0);
	return *state != MAP_FAILED && draw(&unused, sizeof(unused), 0, *state, dice->size) > 0 ? draw : NULL;
}

static void seed_anew(void *arg, const struct fsnap_checkpoint_report *report)
{
	unsigned seed;
	(void)arg;
	(void)report;
	if (getrandom(&seed, sizeof(seed), 0) == sizeof(seed))
		srandom(seed);
}

static int throw_dice(const char *store)
{
	struct dice dice;
	void *state = NULL;
	uint64_t drawn = 0;
	uint32_t arc4 = 0;
	struct fsnap_error err = { 0 };
	struct fsnap_checkpoint_options options = { .size = sizeof(options), .store = store, .name = "dice",
						    .command = FSNAP_COMMAND, .on_copy = seed_anew };
	vdso_random draw = find_vdso(&dice, &state);
	srandom(1);
	srand48(1);
#if __GLIBC_PREREQ(2, 36)
	arc4 = arc4random();
#endif
	int result = fsnap_checkpoint(&options, NULL, &err);
	if (result < 0)
		_exit(1);
	if (draw && draw(&drawn, sizeof(drawn), 0, state, dice.size) < 0)
		_exit(2);
#if __GLIBC_PREREQ(2, 36)
	arc4 = arc4random();
#endif
	char text[128];
	int n = snprintf(text, sizeof(text), "%d %lx %x %lx %lx\n", result, (unsigned long)drawn, arc4, random(), lrand48());
	_exit(write(STDOUT_FILENO, text, (size_t)n) != n);
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

static int run_program(const char *part, int out)
{
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		dup2(open("/dev/null", O_RDWR), 0);
		dup2(out, 1);
		dup2(out, 2);
		setsid();
		close_range(3, ~0u, 0);
		execl(self, self, part, path("store"), NULL);
		_exit(98);
	}
	close(out);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void original_goes_on(void **state)
{
	(void)state;
	int status = run_program("program", make("original"));
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

/* The process that copies of a template are forked from. */
static pid_t find_keeper(void)
{
	char name[64], comm[32];
	pid_t pid = 0;
	snprintf(name, sizeof(name), "/proc/self/task/%d/children", getpid());
	FILE *children = fopen(name, "re");
	while (children && fscanf(children, "%d", &pid) == 1) {
		snprintf(name, sizeof(name), "/proc/%d/comm", pid);
		FILE *file = fopen(name, "re");
		int known = file && fgets(comm, sizeof(comm), file) && strcmp(comm, "fsnap-template\n") == 0;
		if (file)
			fclose(file);
		if (known)
			break;
		pid = 0;
	}
	if (children)
		fclose(children);
	return pid;
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
	for (unsigned i = 1; i <= 5; i++) {
		struct fsnap_restore_options options = { .size = sizeof(options), .from = held, .stdio = stdio,
							 .copy = i, .changed = FSNAP_CHANGED_ACCEPT };
		/* The last are forked from ourselves: whom others were forked from is gone. */
		if (i == 4) {
			pid_t keeper = find_keeper();
			assert_true(keeper > 0);
			kill(keeper, SIGKILL);
		}
		int pidfd = fsnap_spawn(NULL, &options, NULL, &err);
		if (pidfd < 0)
			fail_msg("%s (%s)", err.message, err.hint);
		assert_int_equal(end_of(pidfd), 40 + (int)i);
	}
	fsnap_template_close(held);
	assert_int_equal(find_keeper(), 0);
	close(out);
}

/* Copies have the memory of one instant, but not the vDSO's state of getrandom(), nor what their hook has seeded. What
 * nobody has seeded anew is the same in all of them. */
static void dice_differ(void **state)
{
	enum { N = 4 };
	unsigned long drawn[N], chosen[N], left[N];
	unsigned arc4[N];
	int copy, out = make("dice"), stdio[3] = { -1, out, out };
	struct fsnap_error err = { 0 };
	struct fsnap_restore_report reports[2] = { { .size = sizeof(reports[0]) } };
	struct fsnap_restore_options options = { .size = sizeof(options), .store = path("store"), .image = "dice",
						 .stdio = stdio, .detach = 1, .pidfd = 1 };
	(void)state;
	assert_int_equal(run_program("dice", dup(out)), 0);
	if (fsnap_clones(&options, 2, reports, &err) < 0) /* from a template */
		fail_msg("%s (%s)", err.message, err.hint);
	assert_int_equal(end_of(reports[0].pidfd), 0);
	assert_int_equal(end_of(reports[1].pidfd), 0);
	int pidfd = fsnap_spawn("dice", &options, NULL, &err);
	assert_true(pidfd >= 0);
	assert_int_equal(end_of(pidfd), 0);
	close(out);
	const char *line = said("dice");
	for (int i = 0; i < N; i++, line = strchr(line, '\n') + 1) {
		assert_int_equal(sscanf(line, "%d %lx %x %lx %lx", &copy, &drawn[i], &arc4[i], &chosen[i], &left[i]), 5);
		assert_int_equal(copy, i ? FSNAP_COPY : FSNAP_ORIGINAL);
		for (int j = 0; j < i; j++) {
			if (drawn[0])
				assert_int_not_equal(drawn[i], drawn[j]);
			if (arc4[0])
				assert_int_not_equal(arc4[i], arc4[j]);
			assert_int_not_equal(chosen[i], chosen[j]);
			assert_int_equal(left[i], left[j]);
		}
	}
	if (!drawn[0])
		print_message("this kernel's vDSO has no getrandom()\n");
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
	struct rlimit few = { 24, 24 }, was;
	struct fsnap_restore_options many = { .size = sizeof(many), .store = path("store"), .image = "me", .detach = 1,
					      .pidfd = 1 };
	pid_t pid = fork(); /* what is lowered cannot be raised again */
	if (pid == 0) {
		err = (struct fsnap_error){ 0 };
		_exit(setrlimit(RLIMIT_NOFILE, &few) == 0 && getrlimit(RLIMIT_NOFILE, &was) == 0 &&
		      fsnap_clones(&many, 30, NULL, &err) < 0 && strstr(err.message, "limit on open files") &&
		      strstr(err.hint, "ulimit -n") ? 0 : 1);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
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
		return strcmp(argv[1], "dice") == 0 ? throw_dice(argv[2]) : program(argv[2]);
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
		cmocka_unit_test(dice_differ),
		cmocka_unit_test(errors_are_told),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
