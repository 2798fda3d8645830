/*
 * Limits on memory count as before: the heap grows as far as RLIMIT_DATA allows, nothing
 * is mapped beyond RLIMIT_AS, nothing locked beyond RLIMIT_MEMLOCK; a process that uses
 * more than it may now (its limits were lowered afterwards) is dumped and restored all
 * the same.
 */
#include "specimen_memory.h"

#include <sys/resource.h>
#include <sys/syscall.h>

static char *move_break(char *to)
{
	return (char *)syscall(SYS_brk, to);
}

static void limit(int which, size_t bytes)
{
	struct rlimit now;
	getrlimit(which, &now);
	now.rlim_cur = bytes < now.rlim_max ? bytes : now.rlim_max;
	MUST(setrlimit(which, &now));
}

static size_t status_kib(const char *key)
{
	char text[64];
	return (size_t)atol(proc_field("/proc/self/status", key, text, sizeof(text)));
}

static size_t room(const char *key, size_t bytes)
{
	return status_kib(key) * 1024 + bytes;
}

int main(void)
{
	char *locked = anonymous(8, PROT_READ | PROT_WRITE);
	if (mlock(locked, 8 * PAGE) < 0)
		specimen_skip("mlock: %s", strerror(errno));
	limit(RLIMIT_MEMLOCK, 4 * PAGE); /* half of what it has locked */
	void *warm = malloc(1000);	  /* what stdio and malloc need later is there */
	FILE *file = fopen("/proc/self/status", "re");
	if (file)
		fclose(file);
	free(warm);
	limit(RLIMIT_AS, room("VmSize", 64 * MIB));
	limit(RLIMIT_DATA, room("VmData", 32 * MIB));

	while (specimen_round()) {
		char *end = move_break(NULL);
		specimen_ready();
		expect_hex("the heap's end", (uintptr_t)end, (uintptr_t)move_break(NULL));
		expect_hex("the heap grows", (uintptr_t)end + 20 * MIB, (uintptr_t)move_break(end + 20 * MIB));
		end[19 * MIB] = 1;
		expect_hex("but not beyond its limit", (uintptr_t)end + 20 * MIB, (uintptr_t)move_break(end + 40 * MIB));
		expect_hex("the heap shrinks", (uintptr_t)end, (uintptr_t)move_break(end));
		void *much = mmap(NULL, 60 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		expect_int("mapping what may be", 1, much != MAP_FAILED);
		expect_errno("and more than that", ENOMEM,
			     (intptr_t)mmap(NULL, 60 * MIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
		munmap(much, 60 * MIB);
		expect_int("what was locked is", 1, has_flag(locked, "lo"));
		if (geteuid() != 0) /* CAP_IPC_LOCK */
			expect_errno("locking more", ENOMEM, mlock(end - PAGE, 1));
	}
	return specimen_end();
}
