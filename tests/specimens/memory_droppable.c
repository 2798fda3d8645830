/*
 * Memory that the kernel may drop (MAP_DROPPABLE, Linux 6.11) is such memory again: it
 * is wiped in children, is not dumped, and that cannot be changed.
 */
#include "specimen_memory.h"

#include <sys/wait.h>

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif

enum { PAGES = 5 };

int main(void)
{
	char *area = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		specimen_skip("this kernel has no MAP_DROPPABLE (Linux 6.11)");
	pattern_fill(area, PAGES * PAGE, 1);

	while (specimen_round()) {
		specimen_ready();
		expect_pattern("content", area, PAGES * PAGE, 1);
		expect_int("droppable", 1, has_flag(area, "dp"));
		expect_errno("it cannot become dumpable", EINVAL, madvise(area, PAGE, MADV_DODUMP));
		pid_t pid = MUST(fork());
		int status;
		if (pid == 0)
			_exit(area[1] != 0);
		MUST(waitpid(pid, &status, 0));
		expect_int("a child finds zeroes", 0, status);
	}
	return specimen_end();
}
