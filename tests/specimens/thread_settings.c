/*
 * What a single thread has set with prctl(2) and personality(2), or its process for all of them: names of
 * odd bytes, personality, time stamp counter, machine checks, parent-death signal, speculation, huge
 * pages but where advised, merging of equal pages.
 */
#include "specimen.h"

#include <fcntl.h>
#include <linux/prctl.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif

static const struct facts {
	char name[16];
	unsigned personality;
	int tsc, mce, pdeath;
} wanted[] = {
	{ "main\n\"\x01\xff\\ )( ", ADDR_COMPAT_LAYOUT, PR_TSC_ENABLE, PR_MCE_KILL_DEFAULT, 0 },
	{ "", 0, PR_TSC_ENABLE, PR_MCE_KILL_EARLY, SIGUSR2 },
	{ "fifteen bytes..", ADDR_COMPAT_LAYOUT | STICKY_TIMEOUTS, PR_TSC_SIGSEGV, PR_MCE_KILL_LATE, 0 },
};
enum { THREADS = sizeof(wanted) / sizeof(wanted[0]) };

static volatile int set, go, checked;

static void become(const struct facts *facts)
{
	MUST(prctl(PR_SET_NAME, facts->name));
	MUST(syscall(SYS_personality, facts->personality));
	MUST(prctl(PR_MCE_KILL, PR_MCE_KILL_SET, facts->mce, 0, 0));
	MUST(prctl(PR_SET_PDEATHSIG, facts->pdeath));
	MUST(prctl(PR_SET_TSC, facts->tsc)); /* last: libc may read clocks with it */
}

static void check(const struct facts *facts)
{
	char name[17] = "";
	int tsc = -1, pdeath = -1;
	MUST(prctl(PR_GET_TSC, &tsc));
	expect_int("time stamp counter", facts->tsc, tsc);
	MUST(prctl(PR_GET_NAME, name));
	expect_bytes("name", facts->name, name, 16);
	expect_hex("personality", facts->personality, (unsigned)syscall(SYS_personality, 0xffffffff));
	expect_int("machine checks", facts->mce, prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
	MUST(prctl(PR_GET_PDEATHSIG, &pdeath));
	expect_int("parent-death signal", facts->pdeath, pdeath);
}

static void *live(void *arg)
{
	const struct facts *facts = arg;
	become(facts);
	__atomic_add_fetch(&set, 1, __ATOMIC_RELEASE);
	for (int seen = 0;; seen++) {
		while (__atomic_load_n(&go, __ATOMIC_ACQUIRE) == seen)
			sleep_ms(1);
		check(facts);
		__atomic_add_fetch(&checked, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void live_with_threads(void)
{
	pthread_t thread;
	for (int i = 1; i < THREADS; i++)
		MUST_ZERO(pthread_create(&thread, NULL, live, (void *)(uintptr_t)&wanted[i]));
	become(&wanted[0]);
	while (__atomic_load_n(&set, __ATOMIC_ACQUIRE) < THREADS - 1)
		sleep_ms(1);
	/* Linux 6.18: huge pages where madvise(2) has asked for them, and nowhere else. */
	bool except = prctl(PR_SET_THP_DISABLE, 1, 2 /* PR_THP_DISABLE_EXCEPT_ADVISED */, 0, 0) == 0;
	bool merge = prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) == 0;
	int speculation = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0);
	if (speculation >= 0 && speculation & PR_SPEC_PRCTL)
		MUST(prctl(PR_SET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, PR_SPEC_DISABLE, 0, 0));
	speculation = prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0);
	close(open(specimen_path("set"), O_WRONLY | O_CREAT, 0644));
	while (specimen_child_round()) {
		check(&wanted[0]);
		if (except)
			expect_int("huge pages", 3, prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
		if (merge)
			expect_int("merging", 1, prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0));
		expect_int("speculation", speculation,
			   prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 0, 0, 0));
		checked = 0;
		__atomic_add_fetch(&go, 1, __ATOMIC_RELEASE);
		while (__atomic_load_n(&checked, __ATOMIC_ACQUIRE) < THREADS - 1)
			sleep_ms(1);
	}
	_exit(specimen_end());
}

/* Signals for a parent's death are a child's business: the first process' parent may end. */
int main(void)
{
	pid_t child = MUST(fork());
	if (child == 0)
		live_with_threads();
	while (access(specimen_path("set"), F_OK) < 0)
		sleep_ms(1);
	while (specimen_round()) {
		specimen_ready();
		specimen_await(1);
	}
	MUST(waitpid(child, NULL, 0));
	return specimen_end();
}
