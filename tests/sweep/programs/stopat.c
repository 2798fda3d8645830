/*
 * stopat N MS FILE COMMAND... - runs COMMAND and ends it at its N-th system call stop.
 *
 * Every entry into and every return from a system call counts, in all its threads; children are
 * left alone.  At the N-th the command stands still for MS milliseconds, as after SIGSTOP, and then
 * gets SIGKILL.  FILE tells where it was ended, or how many stops there were if it came to its end.
 * N 0 counts only.  The exit status is the command's; 137 if it was killed.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static long stops;

static void tell(const char *path, const char *what, pid_t tid)
{
	struct user_regs_struct regs = { 0 };
	if (tid)
		ptrace(PTRACE_GETREGS, tid, 0, &regs);
	FILE *file = fopen(path, "w");
	if (!file)
		return;
	fprintf(file, "%ld %s", stops, what);
	if (tid)
		fprintf(file, " call %lld (%llx, %llx, %llx, %llx) = %lld", regs.orig_rax, regs.rdi,
			regs.rsi, regs.rdx, regs.r10, regs.rax);
	fprintf(file, "\n");
	fclose(file);
}

static pid_t start(char **argv)
{
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		raise(SIGSTOP);
		execv(argv[0], argv);
		_exit(127);
	}
	int status;
	waitpid(pid, &status, WUNTRACED);
	long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL | PTRACE_O_TRACEEXEC;
	if (pid < 0 || ptrace(PTRACE_SEIZE, pid, 0, options) < 0)
		exit(126);
	kill(pid, SIGCONT);
	return pid;
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return 2;
	long last = atol(argv[1]), ms = atol(argv[2]);
	pid_t pid = start(argv + 4);
	int begun = 0, killed = 0;
	for (;;) {
		int status;
		pid_t tid = waitpid(-1, &status, __WALL);
		if (tid < 0)
			return errno == EINTR ? 99 : 98;
		if (!WIFSTOPPED(status)) {
			if (tid != pid)
				continue;
			if (!killed)
				tell(argv[3], "ended", 0);
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		}
		int event = status >> 16, number = WSTOPSIG(status), deliver = 0;
		if (event == PTRACE_EVENT_EXEC)
			begun = 1; /* from here on it is the command's own */
		else if (number == (SIGTRAP | 0x80) && begun && ++stops == last) {
			usleep((useconds_t)ms * 1000);
			tell(argv[3], "killed", tid);
			killed = 1;
			kill(pid, SIGKILL);
			continue;
		} else if (!event && number != (SIGTRAP | 0x80))
			deliver = number;
		ptrace(PTRACE_SYSCALL, tid, 0, deliver);
	}
}
