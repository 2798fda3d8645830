/*
 * A sandboxed process that may make only the few system calls it needs, on pain
 * of death. Whether fsnap can save it or refuses, it lives, and its filter is
 * in force afterwards.
 *
 * harness: may-refuse
 */
#include "specimen.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* What specimen.c uses, and fork with wait for the last check. */
static const int allowed[] = { SYS_openat,
			       SYS_read,
			       SYS_write,
			       SYS_close,
			       SYS_clock_nanosleep,
			       SYS_nanosleep,
			       SYS_gettid,
			       SYS_brk,
			       SYS_exit_group,
			       SYS_clone,
			       SYS_wait4,
			       SYS_rt_sigreturn,
			       SYS_restart_syscall,
			       SYS_newfstatat,
			       SYS_fstat,
			       SYS_set_robust_list,
			       SYS_rseq,
			       SYS_rt_sigprocmask };
enum { COUNT = sizeof(allowed) / sizeof(allowed[0]) };

static void enter(void)
{
	struct sock_filter code[COUNT + 3];
	int n = 0;
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, nr));
	for (int i = 0; i < COUNT; i++)
		code[n++] = (struct sock_filter)BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)allowed[i], (uint8_t)(COUNT - i), 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { (unsigned short)n, code };
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

int main(void)
{
	static char memory[40000];
	pattern_fill(memory, sizeof(memory), 1);
	char *early = malloc(100000); /* malloc's own first calls */
	early[0] = 1;
	enter();
	while (specimen_round()) {
		specimen_ready();
		expect_pattern("memory", memory, sizeof(memory), 1);
		pid_t pid = fork();
		if (pid == 0) {
			syscall(SYS_getppid);
			_exit(0);
		}
		int status = 0;
		expect_int("waiting for the one that breaks the rules", pid,
			   wait4(pid, &status, 0, NULL));
		expect_int("it was killed by", SIGSYS, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	}
	return specimen_end();
}
