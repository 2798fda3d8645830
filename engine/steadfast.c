#include "engine/steadfast.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/error.h"

#define STACK (256 << 10)

struct errand {
	int (*step)(void *arg);
	void *arg;
	int result;
};

static int go(void *arg)
{
	struct errand *errand = arg;
	setsid(); /* kill -PGID is not meant for us */
	errand->result = errand->step(errand->arg);
	_exit(0);
}

int steadfast(int (*step)(void *arg), void *arg, struct fsnap_error *err)
{
	struct errand errand = { step, arg, -1 };
	sigset_t all, before;
	char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED)
		return fail(err, FSNAP_E_NOMEM, errno, "a stack");
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	/* No exit signal: the caller's SIGCHLD handler is not concerned. */
	pid_t pid = clone(go, stack + STACK, CLONE_VM | CLONE_FILES | CLONE_VFORK, &errand);
	int sys = errno;
	if (pid > 0)
		waitpid(pid, NULL, __WCLONE);
	sigprocmask(SIG_SETMASK, &before, NULL);
	munmap(stack, STACK);
	return pid < 0 ? fail(err, FSNAP_E_SYSTEM, sys, "clone") : errand.result;
}
