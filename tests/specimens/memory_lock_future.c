/*
 * mlockall(MCL_CURRENT | MCL_FUTURE): all that was mapped is locked, PROT_NONE guard
 * pages of thread stacks included, what is mapped later is locked as well and present
 * at once, and the limit that an ordinary user has counts as before.
 */
#include "specimen_memory.h"

#include <sys/resource.h>

enum { LIMIT = 64 << 20, PAGES = 10 };

static long locked_kib(void)
{
	char text[64];
	return atol(proc_field("/proc/self/status", "VmLck", text, sizeof(text)));
}

static void *rest(void *round)
{
	for (;;)
		pause();
	return round;
}

int main(void)
{
	struct rlimit limit;
	getrlimit(RLIMIT_MEMLOCK, &limit);
	limit.rlim_cur = limit.rlim_max < LIMIT ? limit.rlim_max : LIMIT;
	MUST(setrlimit(RLIMIT_MEMLOCK, &limit));
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 << 10);
	pthread_t thread;
	MUST_ZERO(pthread_create(&thread, &small, rest, NULL));
	char *area = anonymous(PAGES, PROT_READ | PROT_WRITE);
	char *nothing = anonymous(PAGES, PROT_NONE);
	if (mlockall(MCL_CURRENT | MCL_FUTURE) < 0)
		specimen_skip("mlockall: %s (limit %llu)", strerror(errno), (unsigned long long)limit.rlim_cur);
	pattern_fill(area, PAGES * PAGE, 1);

	while (specimen_round()) {
		long before = locked_kib();
		specimen_ready();
		expect_int("locked memory (KiB)", before, locked_kib());
		expect_int("an old mapping is locked", 1, has_flag(area, "lo"));
		expect_int("one without access, too", 1, has_flag(nothing, "lo"));
		expect_pattern("its content", area, PAGES * PAGE, 1);
		char *more = anonymous(PAGES, PROT_READ | PROT_WRITE);
		expect_int("a new mapping is locked", 1, has_flag(more, "lo"));
		expect_int("not only when it is touched", 0, has_flag(more, "lf"));
		expect_int("it is present at once", 1, page_present(more + (PAGES - 1) * PAGE));
		MUST(munmap(more, PAGES * PAGE));
		if (geteuid() != 0) /* CAP_IPC_LOCK */
			expect_errno("more than the limit", EAGAIN,
				     (intptr_t)mmap(NULL, LIMIT + PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	}
	return specimen_end();
}
