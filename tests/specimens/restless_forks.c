/*
 * A program that starts and collects children all the time, several at once,
 * some of which have children: the tree that is dumped is one that existed, no
 * child is lost or counted twice, and the program goes on with its work.
 *
 * harness: restless
 */
#include "specimen.h"

#include <sys/wait.h>

enum { AT_ONCE = 6 };

static volatile int stop;

static void *watch(void *arg)
{
	specimen_ready();
	stop = 1;
	return arg;
}

static int burrow(int depth)
{
	if (depth == 0)
		return 0;
	pid_t pid = fork();
	if (pid == 0)
		_exit(burrow(depth - 1) + 1);
	int status = -1;
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return 100;
	return WEXITSTATUS(status);
}

int main(void)
{
	while (specimen_round()) {
		stop = 0;
		pthread_t thread;
		MUST_ZERO(pthread_create(&thread, NULL, watch, NULL));
		long started = 0, collected = 0, wrong = 0;
		pid_t pids[AT_ONCE] = { 0 };
		while (!stop) {
			for (int i = 0; i < AT_ONCE; i++) {
				pids[i] = fork();
				if (pids[i] == 0)
					_exit(burrow(i % 3) + 10 * i);
				started += pids[i] > 0;
			}
			for (int i = 0; i < AT_ONCE; i++) {
				int status = -1;
				pid_t pid = waitpid(pids[i], &status, 0);
				collected += pid == pids[i];
				wrong +=
					!WIFEXITED(status) || WEXITSTATUS(status) != i % 3 + 10 * i;
			}
		}
		MUST_ZERO(pthread_join(thread, NULL));
		expect_int("children collected", started, collected);
		expect_int("children with another status", 0, wrong);
		expect_errno("children left", ECHILD, waitpid(-1, NULL, WNOHANG));
		expect_between("children in all", AT_ONCE, 1000000000, started);
	}
	return specimen_end();
}
