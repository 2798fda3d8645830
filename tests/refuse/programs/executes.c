/*
 * executes THREADS [US] - beside so many threads that sleep, one waits for a millisecond, or so long, and executes the same
 * again: it takes the number of the main thread, and all others are killed. The number of times is in the file `times`.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static char **args;
static unsigned pause_us = 1000;

static void *sleeps(void *none)
{
	for (;;)
		usleep(pause_us);
	return none;
}

static void *executes(void *none)
{
	usleep(pause_us);
	execv("/proc/self/exe", args);
	perror("execv");
	_exit(2);
	return none;
}

static void count_one(void)
{
	int fd = open("times", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(uint64_t)) < 0)
		_exit(3);
	uint64_t *times = mmap(NULL, sizeof(*times), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (times == MAP_FAILED)
		_exit(3);
	++*times;
	munmap(times, sizeof(*times));
	close(fd);
}

int main(int argc, char **argv)
{
	pthread_t thread;
	args = argv;
	if (argc > 2)
		pause_us = (unsigned)atoi(argv[2]);
	count_one();
	for (int i = 0; argc > 1 && i < atoi(argv[1]); i++)
		if (pthread_create(&thread, NULL, sleeps, NULL) != 0)
			return 4;
	if (pthread_create(&thread, NULL, executes, NULL) != 0)
		return 4;
	for (;;)
		pause();
}
