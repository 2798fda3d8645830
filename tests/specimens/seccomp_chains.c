/*
 * Chains of seccomp filters: three in all threads, the middle one logged, and a fourth in one thread
 * only. Those of all threads are the same, not only equal: the one with more may still give its own to
 * everybody (SECCOMP_FILTER_FLAG_TSYNC). A child in strict mode may read and write, and ends
 * otherwise.
 * harness: root
 */
#include "specimen.h"

#include <linux/filter.h>
#include <linux/ptrace.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

long ptrace(int request, ...); /* <sys/ptrace.h> cannot stand beside <linux/ptrace.h> */

enum { COMMON = 3, LOGGED = 1, REFUSED = SYS_acct };

static int forbid(long number, int error, unsigned flags)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static int filters(void)
{
	char text[32];
	return atoi(proc_field("/proc/thread-self/status", "Seccomp_filters", text, sizeof(text)));
}

/* Flags of the thread's filters, oldest first, one digit each; they can be seen by a tracer only. */
static int flags_of(pid_t tid)
{
	int flags = 0;
	struct __ptrace_seccomp_metadata { uint64_t off, flags; } one;
	if (ptrace(PTRACE_SEIZE, tid, 0, 0) < 0 || ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0)
		return -1;
	waitpid(tid, NULL, __WALL);
	for (one.off = 0; ptrace(PTRACE_SECCOMP_GET_METADATA, tid, sizeof(one), &one) > 0; one.off++)
		flags = flags * 10 + (int)one.flags;
	ptrace(PTRACE_DETACH, tid, 0, 0);
	return flags;
}

static volatile int number, through, more;
static volatile pid_t deep_tid;
static volatile int given = -1;

static void *deep(void *arg)
{
	deep_tid = gettid();
	for (int mine = 1;; mine++) {
		MUST(forbid(REFUSED, 100 + mine, 0));
		more = mine;
		while (number < mine)
			sleep_ms(1);
		int before = filters();
		expect_int("filters of the one with more", COMMON + 2 * mine - 1, before);
		expect_errno("its own", 100 + mine, syscall(REFUSED));
		given = forbid(SYS_getpriority, 50 + mine, SECCOMP_FILTER_FLAG_TSYNC);
		expect_int("its filters for all, with one more", 0, given);
		through = mine;
	}
	return arg;
}

/* Only read, write, exit and sigreturn: no libc here. */
static _Noreturn void strict(int in, int out)
{
	char byte;
	MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
	while (syscall(SYS_read, in, &byte, 1) == 1 && byte != 'x')
		syscall(SYS_write, out, &byte, 1);
	syscall(SYS_getpid);
	syscall(SYS_exit, 1);
	__builtin_unreachable();
}

static void check_strict(pid_t pid, int in, int out, bool last)
{
	char byte = 0;
	expect_int("asking who is strict", 1, write(in, "a", 1));
	expect_int("it answers", 1, read(out, &byte, 1));
	expect_int("the same", 'a', byte);
	if (!last)
		return;
	int status = -1;
	MUST(write(in, "x", 1));
	MUST(waitpid(pid, &status, 0));
	expect_int("any other call ends it", SIGKILL, WIFSIGNALED(status) ? WTERMSIG(status) : -1);
}

/* Who is under filters itself may not look at those of others. */
static int asked[2], answered[2];

static void watch(void)
{
	pid_t tid;
	while (read(asked[0], &tid, sizeof(tid)) == sizeof(tid)) {
		int flags = flags_of(tid);
		MUST(write(answered[1], &flags, sizeof(flags)));
	}
	_exit(0);
}

static void check_flags(pid_t tid, int expected)
{
	int seen = -1;
	MUST(write(asked[1], &tid, sizeof(tid)));
	MUST(read(answered[0], &seen, sizeof(seen)));
	expect_int("filters that are logged", expected, seen);
}

int main(void)
{
	int in[2], out[2];
	MUST(pipe(in));
	MUST(pipe(out));
	MUST(pipe(asked));
	MUST(pipe(answered));
	pid_t watcher = MUST(fork());
	if (watcher == 0) {
		close(asked[1]);
		watch();
	}
	pid_t child = MUST(fork());
	if (child == 0)
		strict(in[0], out[1]);
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	MUST(forbid(SYS_uname, EDOM, SECCOMP_FILTER_FLAG_SPEC_ALLOW));
	MUST(forbid(SYS_setns, EXDEV, SECCOMP_FILTER_FLAG_LOG));
	MUST(forbid(SYS_vhangup, EL2HLT, 0));
	start_blocked(deep, NULL);
	int all = COMMON, flags = 0;
	while (specimen_round()) {
		int round = specimen_number();
		while (more < round)
			sleep_ms(1);
		specimen_ready();
		expect_int("filters of the others", all, filters());
		expect_errno("the first", EDOM, syscall(SYS_uname, NULL));
		expect_errno("the second", EXDEV, syscall(SYS_setns, -1, 0));
		expect_errno("the third", EL2HLT, syscall(SYS_vhangup));
		flags = SECCOMP_FILTER_FLAG_LOG;
		for (int i = LOGGED + 1; i < all; i++)
			flags *= 10;
		check_flags(getpid(), flags);
		number = round;
		while (through < round)
			sleep_ms(1);
		all += 2;
		expect_int("filters given to the others", all, filters());
		expect_errno("the new one", 50 + round, syscall(SYS_getpriority, 0, 0));
		check_strict(child, in[1], out[0], false);
	}
	check_strict(child, in[1], out[0], true);
	close(asked[1]);
	waitpid(watcher, NULL, 0);
	return specimen_end();
}
