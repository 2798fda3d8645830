#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/heat/apart.h"
#include "store/scope.h"

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Pipes of the caller, above all, must not be held open by us. */
static void close_all_but(int *fds, size_t n)
{
	unsigned next = 0;
	qsort(fds, n, sizeof(*fds), by_number);
	for (size_t i = 0; i < n; i++) {
		if ((unsigned)fds[i] > next)
			syscall(SYS_close_range, next, fds[i] - 1, 0);
		next = (unsigned)fds[i] + 1;
	}
	syscall(SYS_close_range, next, ~0u, 0);
}

/* In a child of vfork(2), which has our memory: no handler of the caller's may run in it, so signals are blocked. */
static _Noreturn void be_apart(void (*work)(void *arg), void *arg, int *fds, size_t n, const sigset_t *mask, int writer)
{
	pid_t number = fork();
	if (number == 0) {
		sigprocmask(SIG_SETMASK, mask, NULL);
		setsid();
		signal(SIGHUP, SIG_IGN);
		close_all_but(fds, n);
		work(arg);
		_exit(0);
	}
	_exit(write(writer, &number, sizeof(number)) != sizeof(number));
}

int apart_run(void (*work)(void *arg), void *arg, int *fds, size_t n, int *pidfd, const char *what,
	      struct fsnap_error *err)
{
	int tell[2];
	if (pipe2(tell, O_CLOEXEC) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "a process that %s", what);
	cleanup_fd int reader = tell[0], writer = tell[1];
	sigset_t all, mask;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &mask);
	/* Its parent is gone at once: nobody has a child that he does not know of. And it takes no copy of our memory,
	 * which would take as long again as the one that is wanted. */
	pid_t pid = vfork(), number = -1; /* NOLINT(clang-analyzer-security.insecureAPI.vfork) */
	if (pid == 0)
		be_apart(work, arg, fds, n, &mask, writer);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	if (pid < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "a process that %s", what);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	close(steal_fd(&writer));
	bool told = read(reader, &number, sizeof(number)) == sizeof(number) && number > 0;
	if (pidfd)
		*pidfd = told ? (int)syscall(SYS_pidfd_open, number, 0) : -1;
	return 0;
}
