/*
 * called.c - threads that each sleep in a call which a signal's handler ends: it counts, and they sleep again. Ends with 2 if
 * such a call has ended in a thread in which no handler ran.
 *
 * The file `counts` has a word for each; `ready` their numbers.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREADS 4

static volatile uint32_t *counts;
static pid_t tids[THREADS];
static int silent[2]; /* a pipe into which nobody writes */

static __thread volatile sig_atomic_t handled;

static void handle(int number)
{
	(void)number;
	handled++;
}

static int call(long which)
{
	const struct timespec long_time = { .tv_sec = 100000 };
	struct pollfd nothing = { .fd = silent[0], .events = POLLIN };
	char byte;
	switch (which) {
	case 0:
		return pause();
	case 1:
		return (int)read(silent[0], &byte, 1);
	case 2:
		return poll(&nothing, 1, 100000000);
	default:
		return nanosleep(&long_time, NULL);
	}
}

static void *wait_for_ever(void *arg)
{
	long which = (long)arg;
	__atomic_store_n(&tids[which], (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	while (call(which) < 0 && errno == EINTR) {
		if (!handled)
			_exit(2);
		handled = 0;
		__atomic_add_fetch(&counts[which], 1, __ATOMIC_RELEASE);
	}
	_exit(1);
}

static void say_ready(void)
{
	FILE *file = fopen("ready.new", "w");
	for (int i = 0; i < THREADS; i++) {
		while (!__atomic_load_n(&tids[i], __ATOMIC_ACQUIRE))
			usleep(1000);
		fprintf(file, "%d ", tids[i]);
	}
	fclose(file);
	rename("ready.new", "ready");
}

int main(void)
{
	struct sigaction action = { .sa_handler = handle };
	int fd = open("counts", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || ftruncate(fd, THREADS * sizeof(*counts)) < 0 || pipe(silent) < 0)
		return 1;
	counts = mmap(NULL, THREADS * sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	sigaction(SIGUSR1, &action, NULL);
	tids[0] = getpid();
	for (long i = 1; i < THREADS; i++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, wait_for_ever, (void *)i))
			return 1;
	}
	say_ready();
	wait_for_ever(0);
}
