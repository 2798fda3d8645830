/*
 * odd_tasks KIND: is, or has below it, tasks that share or separate what others do not, or that somebody
 * of its own tree traces. Otherwise as holder.c: "ready", and a byte in "answers" for every SIGUSR1.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int keep(int result)
{
	if (result < 0) {
		perror("odd_tasks");
		exit(77);
	}
	return result;
}

static void share(unsigned long flags)
{
	if (keep((int)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0)) == 0)
		for (;;)
			pause();
}

static void shared_files(void)
{
	share(CLONE_FILES);
}

static void shared_directory(void)
{
	share(CLONE_FS);
}

static void *separate(void *flag)
{
	keep(unshare((int)(long)flag));
	close(open("separate", O_WRONLY | O_CREAT, 0644));
	for (;;)
		pause();
	return NULL;
}

static void separate_thread(int flag)
{
	pthread_t thread;
	pthread_create(&thread, NULL, separate, (void *)(long)flag);
	while (access("separate", F_OK) < 0)
		usleep(1000);
	unlink("separate");
}

static void thread_files(void)
{
	separate_thread(CLONE_FILES);
}

static void thread_directory(void)
{
	separate_thread(CLONE_FS);
}

/* As gdb and the program below it: nobody else may trace it, or read with which options it is traced. */
static void traced_inside(void)
{
	pid_t child = keep(fork());
	if (child == 0)
		for (;;)
			pause();
	keep((int)ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_TRACESYSGOOD));
}

/* vfork(2) whose child takes its time: the parent sleeps until it executes something or ends. */
static void *in_vfork(void *arg)
{
	if (vfork() == 0) {
		close(open("separate", O_WRONLY | O_CREAT, 0644));
		sleep(1000);
		_exit(0);
	}
	return arg;
}

static void stuck_vfork(void)
{
	pthread_t thread;
	pthread_create(&thread, NULL, in_vfork, NULL);
	while (access("separate", F_OK) < 0)
		usleep(1000);
	unlink("separate");
}

static const struct {
	const char *name;
	void (*become)(void);
} kinds[] = {
	{ "shared_files", shared_files },	 { "shared_directory", shared_directory },
	{ "thread_files", thread_files },	 { "thread_directory", thread_directory },
	{ "traced_inside", traced_inside },	 { "stuck_vfork", stuck_vfork },
};

int main(int argc, char **argv)
{
	sigset_t usr1;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (argc > 1 && strcmp(argv[1], kinds[i].name) == 0)
			kinds[i].become();
	close(open("ready", O_WRONLY | O_CREAT, 0644));
	for (;;) {
		if (sigwaitinfo(&usr1, NULL) != SIGUSR1)
			continue;
		int fd = open("answers", O_WRONLY | O_CREAT | O_APPEND, 0644);
		if (write(fd, ".", 1) != 1)
			return 3;
		close(fd);
	}
}
