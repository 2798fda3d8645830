#include "engine/helper.h"

#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/restore.h"

/* Would it sit on a number that a task needs? */
static bool is_wanted(const struct restore *restore, pid_t pid)
{
	for (size_t i = 0; i < restore->model.n_processes; i++)
		for (u_int j = 0; j < restore->model.processes[i].threads.threads_len; j++)
			if (restore->model.processes[i].threads.threads_val[j].tid == pid)
				return true;
	return false;
}

pid_t helper_spawn(const struct restore *restore, void (*work)(void *arg, pid_t parent), void *arg)
{
	pid_t self = getpid(), pid = (pid_t)syscall(SYS_clone, (unsigned long)CLONE_UNTRACED, NULL, NULL, NULL, 0ul);
	if (pid == 0) {
		sigset_t all;
		sigfillset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		work(arg, self);
		_exit(0);
	}
	if (pid < 0 || !is_wanted(restore, pid))
		return pid;
	pid_t other = helper_spawn(restore, work, arg); /* the next number, while this one is taken */
	kill(pid, SIGKILL);
	waitpid(pid, NULL, __WALL);
	return other;
}
