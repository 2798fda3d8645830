#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/doctor/doctor.h"

/* fork(2) without an exit signal: the caller's SIGCHLD handler is not concerned. */
static pid_t split(void)
{
	return (pid_t)syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
}

static void wait_for(pid_t pid, int *status)
{
	while (waitpid(pid, status, __WALL) < 0 && errno == EINTR)
		;
}

pid_t subject_start(void (*setup)(void))
{
	int pipe_ends[2];
	char ready;

	if (pipe2(pipe_ends, O_CLOEXEC) < 0)
		return -1;
	pid_t pid = split();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (setup)
			setup();
		close(pipe_ends[0]);
		if (write(pipe_ends[1], "", 1) == 1)
			for (;;)
				syscall(SYS_pause);
		_exit(1);
	}
	int saved = errno;
	close(pipe_ends[1]);
	if (pid > 0 && read(pipe_ends[0], &ready, 1) != 1) {
		subject_end(pid);
		saved = ESRCH;
		pid = -1;
	}
	close(pipe_ends[0]);
	errno = saved;
	return pid;
}

void subject_end(pid_t pid)
{
	int saved = errno;

	kill(pid, SIGKILL);
	wait_for(pid, NULL);
	errno = saved;
}

bool subject_run(void (*work)(void *arg), void *arg)
{
	int status = 0;
	pid_t pid = split();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		work(arg);
		_exit(0);
	}
	if (pid < 0)
		return false;
	wait_for(pid, &status);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
