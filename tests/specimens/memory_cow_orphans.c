/*
 * Siblings share frames that no living ancestor has: two masters fill the same addresses with
 * content of their own, each forks three workers and ends; their parent, which the workers come
 * to, has executed the program anew since, and has other mappings where they have theirs.
 *
 * harness: shares
 */
#include "specimen.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { PAGE = 4096, PAGES = 128, MASTERS = 2, WORKERS = 3 };

static char *area;
static int *born;

static void worker(int master, int who)
{
	int own = 10 + who;
	pattern_fill(area + own * PAGE, PAGE, 900 + (uint64_t)who);
	__atomic_add_fetch(born, 1, __ATOMIC_SEQ_CST);
	while (specimen_child_round()) {
		for (int page = 0; page < PAGES; page++)
			expect_pattern("page of the master", area + page * PAGE, PAGE,
				       page == own ? 900 + (uint64_t)who : 1000 * (uint64_t)master + (uint64_t)page);
		pattern_fill(area + own * PAGE, PAGE, 900 + (uint64_t)who);
	}
	_exit(specimen_end());
}

static void master(int number)
{
	for (int page = 0; page < PAGES; page++)
		pattern_fill(area + page * PAGE, PAGE, 1000 * (uint64_t)number + (uint64_t)page);
	for (int who = 0; who < WORKERS; who++)
		if (MUST(fork()) == 0)
			worker(number, who);
	_exit(0);
}

static void first_life(char **argv)
{
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	area = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	born = MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	memset(area, 1, PAGES * PAGE);
	for (int number = 1; number <= MASTERS; number++) {
		pid_t pid = MUST(fork());
		if (pid == 0)
			master(number);
		MUST(waitpid(pid, NULL, 0));
	}
	while (__atomic_load_n(born, __ATOMIC_SEQ_CST) < MASTERS * WORKERS)
		sleep_ms(1);
	char text[32];
	snprintf(text, sizeof(text), "%p", (void *)area);
	MUST(setenv("SPECIMEN_AREA", text, 1));
	MUST(execv("/proc/self/exe", argv));
}

int main(int argc, char **argv)
{
	(void)argc;
	const char *where = getenv("SPECIMEN_AREA");
	if (!where)
		first_life(argv);
	/* Shared memory in the middle of what the workers have as their own. */
	area = (char *)strtoul(where, NULL, 16);
	char *own = MUST(mmap(area + 20 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
	pattern_fill(own, 8 * PAGE, 7);
	while (specimen_round()) {
		specimen_ready();
		expect_pattern("what the parent has there", own, 8 * PAGE, 7);
		specimen_await(MASTERS * WORKERS);
	}
	for (int i = 0; i < MASTERS * WORKERS; i++) {
		int status = -1;
		expect_ok("waiting for a worker", wait(&status));
		expect_int("worker's status", 0, status);
	}
	return specimen_end();
}
