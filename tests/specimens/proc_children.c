/*
 * The parent of restored children is told how they end: an exit status, a
 * signal, a stop and a continuation, and SIGCHLD with each.
 */
#include "specimen.h"

#include <signal.h>
#include <sys/wait.h>

static volatile sig_atomic_t child_signals;

static void on_child(int number)
{
	(void)number;
	child_signals++;
}

static void exit_later(int status)
{
	char *path = specimen_path("exit.%d", status);
	while (access(path, F_OK) < 0)
		sleep_ms(2);
	_exit(status);
}

int main(void)
{
	struct sigaction act = { .sa_handler = on_child, .sa_flags = SA_RESTART };
	MUST(sigaction(SIGCHLD, &act, NULL));
	while (specimen_round()) {
		int wanted = specimen_number() + 40, status;
		pid_t exits = MUST(fork());
		if (exits == 0)
			exit_later(wanted);
		pid_t killed = MUST(fork());
		if (killed == 0)
			for (;;)
				pause();
		specimen_ready();
		int before = child_signals;
		fclose(fopen(specimen_path("exit.%d", wanted), "w"));
		expect_int("waiting for the one that exits", exits, waitpid(exits, &status, 0));
		expect_int("its exit status", wanted, WIFEXITED(status) ? WEXITSTATUS(status) : -1);

		MUST(kill(killed, SIGSTOP));
		expect_int("waiting for a stop", killed, waitpid(killed, &status, WUNTRACED));
		expect_int("stopped by", SIGSTOP, WIFSTOPPED(status) ? WSTOPSIG(status) : -1);
		MUST(kill(killed, SIGCONT));
		expect_int("waiting for it to go on", killed, waitpid(killed, &status, WCONTINUED));
		expect_int("continued", 1, WIFCONTINUED(status));
		MUST(kill(killed, SIGKILL));
		expect_int("waiting for the killed one", killed, waitpid(killed, &status, 0));
		expect_int("killed by", SIGKILL, WIFSIGNALED(status) ? WTERMSIG(status) : -1);
		expect_between("SIGCHLDs", before + 2, before + 4, child_signals);
		expect_errno("no more children", ECHILD, waitpid(-1, &status, 0));
	}
	return specimen_end();
}
