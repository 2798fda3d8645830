/*
 * Shared anonymous memory between parent and child is one memory afterwards:
 * what either writes after the restore is seen by the other, at different
 * addresses too, and what was in it before is there.
 */
#include "specimen.h"

#include <sys/mman.h>
#include <sys/wait.h>

enum { PAGE = 4096, PAGES = 40 };

struct board {
	volatile int to_child, to_parent;
};

/* Until *word is value or five seconds are over; what it is then. */
static int await(volatile int *word, int value)
{
	for (long long end = now_ms() + 5000; *word != value && now_ms() < end;)
		sleep_ms(1);
	return *word;
}

static void child(char *area, struct board *board)
{
	/* Look at the same memory elsewhere: identity is not the address. */
	char *moved = MUST(mremap(area, PAGES * PAGE, PAGES * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
				  (char *)board + (1 << 24)));
	int number = 0;
	while (specimen_child_round()) {
		number++;
		expect_int("child sees the parent's write", number,
			   await(&board->to_child, number));
		expect_pattern("child's view of the area", moved, (PAGES / 2) * PAGE,
			       (uint64_t)number);
		pattern_fill(moved + (PAGES / 2) * PAGE, (PAGES / 2) * PAGE, 50 + (uint64_t)number);
		board->to_parent = number;
	}
	_exit(specimen_end());
}

int main(void)
{
	char *area = MUST(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	struct board *board =
		MUST(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	pattern_fill(area, PAGES * PAGE, 49);
	pid_t pid = MUST(fork());
	if (pid == 0)
		child(area, board);

	while (specimen_round()) {
		specimen_ready();
		int number = specimen_number();
		if (number == 1)
			expect_pattern("what was there before", area, PAGES * PAGE, 49);
		pattern_fill(area, (PAGES / 2) * PAGE, (uint64_t)number);
		board->to_child = number;
		expect_int("parent sees the child's write", number,
			   await(&board->to_parent, number));
		expect_pattern("parent's view of the child's half", area + (PAGES / 2) * PAGE,
			       (PAGES / 2) * PAGE, 50 + (uint64_t)number);
		specimen_await(1);
	}
	int status;
	MUST(waitpid(pid, &status, 0));
	expect_int("child's status", 0, status);
	return specimen_end();
}
