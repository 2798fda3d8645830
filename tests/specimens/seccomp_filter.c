/*
 * Seccomp filters, two of them, one on top of the other, in all threads: what
 * they forbid fails the same way afterwards, what they allow works, and a child
 * made later is under them too.
 */
#include "specimen.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>

static void forbid(long number, int error, bool again)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };
	MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, again ? SECCOMP_FILTER_FLAG_TSYNC : 0,
		     &program));
}

static volatile int number, through;

static void check(const char *who)
{
	struct utsname name;
	char text[32];
	expect_errno(who, EDOM, syscall(SYS_uname, &name));
	expect_errno(who, EXDEV, syscall(SYS_getpriority, 0, 0));
	expect_ok("an allowed call", syscall(SYS_getuid));
	expect_text("Seccomp", "2", proc_field("/proc/thread-self/status", "Seccomp", text, 32));
	expect_text("filters", "2",
		    proc_field("/proc/thread-self/status", "Seccomp_filters", text, 32));
	expect_int("no_new_privs", 1, prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
}

static void *other(void *arg)
{
	for (int mine = 1;; mine++) {
		while (number < mine)
			sleep_ms(1);
		check("forbidden call in a thread");
		through = mine;
	}
	return arg;
}

int main(void)
{
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	forbid(SYS_uname, EDOM, false);
	start_blocked(other, NULL);
	forbid(SYS_getpriority, EXDEV, true);
	while (specimen_round()) {
		specimen_ready();
		check("forbidden call");
		number = specimen_number();
		while (through < number)
			sleep_ms(1);
		pid_t pid = MUST(fork());
		if (pid == 0) {
			check("forbidden call in a child");
			_exit(specimen_end());
		}
		int status = -1;
		waitpid(pid, &status, 0);
		expect_int("the child's status", 0, status);
	}
	return specimen_end();
}
