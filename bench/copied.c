/*
 * copied.c - what `clones` makes copies of: 64 MiB of memory and five threads; waits for SIGTERM, and ends with 0 if its
 * memory is what it was.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MIB64 = 64 << 20, THREADS = 4 };

static void *sleep_on(void *arg)
{
	for (;;)
		pause();
	return arg;
}

int main(int argc, char **argv)
{
	uint64_t *memory = mmap(NULL, MIB64, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t thread;
	sigset_t set;
	int number;
	for (size_t i = 0; i < MIB64 / 8; i++)
		memory[i] = i * 0x9e3779b97f4a7c15u;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < THREADS; i++)
		pthread_create(&thread, NULL, sleep_on, NULL);
	close(open(argc > 1 ? argv[1] : "ready", O_CREAT | O_WRONLY, 0600));
	sigwait(&set, &number);
	for (size_t i = 0; i < MIB64 / 8; i++)
		if (memory[i] != i * 0x9e3779b97f4a7c15u)
			_exit(1);
	_exit(0);
}
