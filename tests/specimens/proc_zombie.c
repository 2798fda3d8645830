/*
 * Children that have ended and were not waited for yet: their statuses, an exit
 * and a signal, are still there to be collected after the dump and the restore.
 *
 * harness: differs=limit|SigBlk|SigCgt|Cap|THP|timerslack|coredump
 */
#include "specimen.h"

#include <signal.h>
#include <sys/wait.h>

static pid_t dead(int status, int signal_number)
{
	pid_t pid = MUST(fork());
	if (pid == 0) {
		if (signal_number)
			raise(signal_number);
		_exit(status);
	}
	siginfo_t info;
	MUST(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT));
	return pid;
}

int main(void)
{
	while (specimen_round()) {
		pid_t exited = dead(42, 0), killed = dead(0, SIGTERM);
		specimen_ready();
		int status = -1;
		expect_int("the exited one", exited, waitpid(exited, &status, WNOHANG));
		expect_int("its status", 42, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
		status = -1;
		expect_int("the killed one", killed, waitpid(killed, &status, WNOHANG));
		expect_int("its signal", SIGTERM, WIFSIGNALED(status) ? WTERMSIG(status) : -1);
	}
	return specimen_end();
}
