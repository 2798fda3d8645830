/*
 * pelted.c - threads that get signals all the time, which each handles on the stack it runs on, some way down.
 *
 * A process of its own session sends them, so that they come while everything else here stands still.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREADS 8
#define DEPTH 3000

static void handle(int number)
{
	volatile char below[DEPTH];
	(void)number;
	memset((void *)below, 0x5a, sizeof(below));
}

static void *body(void *arg)
{
	for (const struct timespec rest = { .tv_nsec = 20000000 };;)
		nanosleep(&rest, NULL);
	return arg;
}

/* The threads' numbers need not follow each other: whichever they are, they are among the next ones. */
static void pelt(pid_t pid)
{
	const struct timespec rest = { .tv_nsec = 3000000 };
	for (setsid(); kill(pid, 0) == 0; nanosleep(&rest, NULL))
		for (pid_t tid = pid; tid < pid + 4 * THREADS; tid++)
			syscall(SYS_tgkill, pid, tid, SIGUSR1);
	_exit(0);
}

int main(void)
{
	pid_t pid = getpid();
	struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESTART };
	sigaction(SIGUSR1, &action, NULL);
	for (int i = 0; i < THREADS; i++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, body, NULL))
			return 1;
	}
	if (fork() == 0) {
		if (fork() == 0)
			pelt(pid);
		_exit(0);
	}
	close(open("ready", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
	for (;;)
		pause();
}
