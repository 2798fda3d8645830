/* What the kernel's own flags of mappings tell is what /proc/PID/smaps tells; and where they do not tell all, they say so. */
#include "engine/dump.h" /* before cmocka makes a macro of fail */
#include "engine/seize.h"
#include "engine/smaps.h"
#include "store/scope.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "needs_reader.h"

#define MIB ((size_t)1 << 20)
#define PAGE ((size_t)4096)

/* --- who is asked about: does what it is told, one letter at a time ---------------------------- */

static char *map(size_t length, int flags)
{
	char *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);
	if (at == MAP_FAILED)
		_exit(3);
	return at;
}

/* One of each; what this kernel does not know is left out. */
static void make_mappings(void)
{
	static const int advice[] = { MADV_DONTFORK, MADV_WIPEONFORK, MADV_DONTDUMP,   MADV_HUGEPAGE,
				      MADV_NOHUGEPAGE, MADV_SEQUENTIAL, MADV_RANDOM };
	for (size_t i = 0; i < sizeof(advice) / sizeof(advice[0]); i++) {
		char *at = map(4 * PAGE, MAP_PRIVATE);
		madvise(at, 2 * PAGE, advice[i]);
		memset(at, 1, 2 * PAGE);
	}
	mlock(map(PAGE, MAP_PRIVATE), PAGE);
	mlock2(map(PAGE, MAP_PRIVATE), PAGE, MLOCK_ONFAULT);
	map(PAGE, MAP_PRIVATE | MAP_NORESERVE)[0] = 1;
	map(16 * PAGE, MAP_PRIVATE | MAP_GROWSDOWN)[15 * PAGE] = 1;
	mprotect(map(PAGE, MAP_SHARED), PAGE, PROT_READ);
	mprotect(map(PAGE, MAP_PRIVATE), PAGE, PROT_NONE);
	int key = pkey_alloc(0, 0);
	if (key > 0)
		pkey_mprotect(map(PAGE, MAP_PRIVATE), PAGE, PROT_READ | PROT_WRITE, key);
	memset(map(8 * MIB, MAP_PRIVATE), 1, 8 * MIB);
}

static void obey(char order)
{
	static pid_t child;
	static char *memory;
	switch (order) {
	case 'f':
		child = fork();
		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				pause();
		}
		break;
	case 'k':
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		break;
	case 'm':
	case 't':
		memory = map(4 * MIB, order == 't' ? MAP_SHARED : MAP_PRIVATE);
		memset(memory, 1, 4 * MIB);
		if (order == 'm' && madvise(memory, 4 * MIB, MADV_MERGEABLE) < 0)
			_exit(3);
		break;
	case 'u':
		munmap(memory, 4 * MIB);
		break;
	}
}

/* As a daemon it has forked, and the parent is gone, all but its number. */
static void be_target(bool daemon)
{
	char order;
	pid_t child;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	make_mappings();
	if (daemon && (child = fork()) != 0)
		_exit(write(1, &child, sizeof(child)) == sizeof(child) ? 0 : 3);
	if (!daemon && write(1, &(pid_t){ getpid() }, sizeof(pid_t)) != sizeof(pid_t))
		_exit(3);
	while (read(0, &order, 1) == 1) {
		obey(order);
		if (write(1, &order, 1) != 1)
			break;
	}
	_exit(0);
}

/* --- the other side -------------------------------------------------------------------------- */

static struct fsnap_error err;
static struct tree tree;
static struct process *process;
static struct flags_reader *reader;
static int orders[2], answers[2];

static void start(const char *how)
{
	pid_t started, pid;
	assert_int_equal(pipe2(orders, O_CLOEXEC), 0);
	assert_int_equal(pipe2(answers, O_CLOEXEC), 0);
	started = fork();
	assert_true(started >= 0);
	if (started == 0) {
		dup2(orders[0], 0);
		dup2(answers[1], 1);
		execl("/proc/self/exe", "target", how, NULL);
		_exit(3);
	}
	assert_int_equal(read(answers[0], &pid, sizeof(pid)), sizeof(pid));
	if (pid != started)
		waitpid(started, NULL, 0);
	process = seize_prepare(&tree, pid, 0, &err);
	assert_non_null(process);
}

static int end(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		close(orders[i]);
		close(answers[i]);
	}
	if (process) {
		kill(process->pid, SIGKILL);
		waitpid(process->pid, NULL, 0);
	}
	process = NULL;
	tree_free(&tree);
	tree = (struct tree){ 0 };
	return 0;
}

static void tell(char letter)
{
	char seen;
	assert_int_equal(write(orders[1], &letter, 1), 1);
	assert_int_equal(read(answers[0], &seen, 1), 1);
}

static int by_flags(void)
{
	return vm_flags_survey(reader, process, 0, &err);
}

/* --- trials ------------------------------------------------------------------------------------ */

static void test_same_as_smaps(void **state)
{
	(void)state;
	NEEDS_READER();
	start("plain");
	assert_int_equal(by_flags(), 0);
	assert_false(process->shares);
	assert_true(process->dirty < MIB); /* memory of tmpfs only, for it was told that there is nothing else */
	size_t n = process->n_advice;
	struct advice *told = process->advice;
	process->advice = NULL;
	assert_int_equal(smaps_survey(process, &err), 0);
	const struct advice *smaps = process->advice;
	unsigned flags = 0;
	assert_true(process->n_advice == n || process->n_advice == n + 1); /* with [vsyscall] */
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(told[i].start, smaps[i].start);
		assert_int_equal(told[i].end, smaps[i].end);
		assert_int_equal(told[i].flags, smaps[i].flags);
		assert_int_equal(told[i].marks, smaps[i].marks);
		assert_int_equal(told[i].pkey, smaps[i].pkey);
		flags |= smaps[i].flags;
	}
	assert_int_equal(flags & ADVICE_WIPEONFORK, ADVICE_WIPEONFORK);
	assert_true(process->dirty >= 8 * MIB);
	free(told);
}

static void test_who_shares(void **state)
{
	(void)state;
	NEEDS_READER();
	start("plain");
	assert_int_equal(by_flags(), 0);
	tell('f');
	assert_int_equal(by_flags(), 1);
	assert_int_equal(smaps_survey(process, &err), 0);
	assert_true(process->shares);
	tell('k');
	assert_int_equal(by_flags(), 0);
	assert_false(process->shares);
}

/* Whose parent is gone may still have siblings. */
static void test_daemon(void **state)
{
	(void)state;
	NEEDS_READER();
	start("daemon");
	assert_int_equal(by_flags(), 1);
}

/* A page of theirs may be mapped by somebody whom no fork tells of, or by a huge one. */
static void test_left_to_smaps(void **state)
{
	(void)state;
	NEEDS_READER();
	start("plain");
	for (const char *order = "tm"; *order; order++) {
		tell(*order);
		assert_int_equal(by_flags(), 1);
		tell('u');
		assert_int_equal(by_flags(), 0);
	}
}

static void test_many(void **state)
{
	enum { MANY = 5000 };
	(void)state;
	NEEDS_READER();
	char *at = mmap(NULL, MANY * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < MANY; i += 2)
		assert_int_equal(mprotect(at + i * PAGE, PAGE, PROT_NONE), 0);
	size_t n, found = 0;
	cleanup_free struct flags_mapping *mappings = flags_ask(reader, getpid(), &n, &err);
	assert_non_null(mappings);
	for (size_t i = 0; i < n; i++) {
		assert_true(i == 0 || mappings[i].start >= mappings[i - 1].end);
		found += mappings[i].start >= (uintptr_t)at && mappings[i].end <= (uintptr_t)at + MANY * PAGE;
	}
	assert_true(found >= MANY - 2); /* its ends may have become one with neighbours */
	munmap(at, MANY * PAGE);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		be_target(strcmp(argv[1], "daemon") == 0);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_same_as_smaps, end), cmocka_unit_test_teardown(test_who_shares, end),
		cmocka_unit_test_teardown(test_daemon, end),	    cmocka_unit_test_teardown(test_left_to_smaps, end),
		cmocka_unit_test(test_many),
	};
	reader = flags_open(&err);
	int result = cmocka_run_group_tests(tests, NULL, NULL);
	flags_close(reader);
	return result;
}
