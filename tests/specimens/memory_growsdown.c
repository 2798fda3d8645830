/*
 * A mapping that grows downwards grows, by what the stack's limit allows and no nearer
 * to its neighbour than the kernel's guard gap; below the gap there is nothing.
 */
#include "specimen_memory.h"

enum { GAP = 256, ROOM = 600 }; /* pages; stack_guard_gap */

int main(void)
{
	char *space = empty_place(ROOM * PAGE, PAGE);
	char *neighbour = MUST(mmap(space, 4 * PAGE, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
	char *top = space + ROOM * PAGE;
	char *stack = MUST(mmap(top - 3 * PAGE, 3 * PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0));
	pattern_fill(stack, 3 * PAGE, 1);
	pattern_fill(neighbour, 4 * PAGE, 2);
	catch_faults();
	char *low = stack, *floor = neighbour + (4 + GAP) * PAGE;

	while (specimen_round()) {
		specimen_ready();
		expect_int("it grows downwards", 1, has_flag(stack, "gd"));
		expect_pattern("content", stack, 3 * PAGE, 1);
		expect_pattern("its neighbour", neighbour, 4 * PAGE, 2);
		expect_int("in the gap above its neighbour", SIGSEGV, access_signal(floor - PAGE, true));
		low -= 2 * PAGE;
		expect_int("it grows", 0, access_signal(low, true));
		expect_zero("by zeroes", low, PAGE);
		expect_int("by several pages at once", 0, access_signal(low -= 10 * PAGE, true));
	}
	expect_int("down to the gap", 0, access_signal(floor, true));
	expect_int("and no further", SIGSEGV, access_signal(floor - PAGE, true));
	return specimen_end();
}
