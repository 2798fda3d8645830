/*
 * A child stopped by SIGSTOP, as a shell's Ctrl-Z leaves it, is still stopped
 * afterwards and goes on at SIGCONT from where it was.
 */
#include "specimen.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

static char state(pid_t pid)
{
	char path[64], text[64];
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	return proc_field(path, "State", text, sizeof(text))[0];
}

int main(void)
{
	volatile int *counter =
		MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
	pid_t pid = MUST(fork());
	if (pid == 0)
		for (;; sleep_ms(1))
			++*counter;
	while (specimen_round()) {
		int status;
		while (*counter == 0)
			sleep_ms(1);
		MUST(kill(pid, SIGSTOP));
		MUST(waitpid(pid, &status, WUNTRACED));
		int count = *counter;
		specimen_ready();
		expect_int("state of the child", 'T', state(pid));
		sleep_ms(20);
		expect_int("it has not gone on", count, *counter);
		MUST(kill(pid, SIGCONT));
		for (int i = 0; i < 500 && *counter == count; i++)
			sleep_ms(2);
		expect_int("it goes on at SIGCONT", 1, *counter > count);
		MUST(waitpid(pid, &status, WCONTINUED));
	}
	MUST(kill(pid, SIGKILL));
	waitpid(pid, NULL, 0);
	return specimen_end();
}
