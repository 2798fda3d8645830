/*
 * Blocked in wait4 and waitid for children that are dumped with it: the waits
 * go on and end when the children do, with the right status.
 */
#include "specimen.h"

#include <sys/wait.h>

struct one {
	pid_t pid, result;
	int status;
};

static pid_t child(int status)
{
	char *path = specimen_path("end.%d", specimen_number());
	pid_t pid = MUST(fork());
	if (pid == 0) {
		while (access(path, F_OK) < 0)
			sleep_ms(2);
		_exit(status);
	}
	return pid;
}

static void *in_wait4(void *arg)
{
	struct one *one = arg;
	one->result = wait4(one->pid, &one->status, 0, NULL);
	return NULL;
}

static void *in_waitid(void *arg)
{
	struct one *one = arg;
	siginfo_t info = { 0 };
	int result = waitid(P_PID, (id_t)one->pid, &info, WEXITED);
	one->result = result == 0 ? info.si_pid : -errno;
	one->status = info.si_status << 8;
	return NULL;
}

int main(void)
{
	while (specimen_round()) {
		struct one ones[2] = { { .pid = child(5) }, { .pid = child(6) } };
		pthread_t threads[2] = { start_blocked(in_wait4, &ones[0]),
					 start_blocked(in_waitid, &ones[1]) };
		specimen_ready();
		fclose(fopen(specimen_path("end.%d", specimen_number()), "w"));
		for (int i = 0; i < 2; i++) {
			MUST_ZERO(pthread_join(threads[i], NULL));
			expect_int(i ? "waitid" : "wait4", ones[i].pid, ones[i].result);
			expect_int("exit status", 5 + i, WEXITSTATUS(ones[i].status));
		}
	}
	return specimen_end();
}
