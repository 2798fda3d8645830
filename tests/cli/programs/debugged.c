/*
 * debugged.c - what a debugger is asked about in tests/cli/core.py: threads in functions with names and locals,
 * and one variable in each sort of memory. Writes "ready".
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What a debugger shows of locals shall not depend on what the compiler made of them. */
#ifdef __clang__
#pragma clang optimize off
#else
#pragma GCC optimize("O0")
#endif

#define PAGE 4096ul
#define APART (64ul << 20)

struct point {
	int x, y;
};

/* Not static: the compiler keeps what others could look at. */
int initialised = 1001;
int zeroed;
char *heap, *shared, *far_apart, *file, *secret, *anonymous_file;
struct point *point;
static volatile int ended;
static pthread_barrier_t everybody;

static void lie_asleep(int depth, double weight)
{
	volatile int local = depth * 100;

	if (depth)
		lie_asleep(depth - 1, weight / 2);
	pthread_barrier_wait(&everybody);
	while (!ended)
		pause();
	local++;
}

static void *worker(void *arg)
{
	lie_asleep(*(int *)arg, 8.0);
	return NULL;
}

static char *map(size_t size, int flags, int fd)
{
	char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (at == MAP_FAILED)
		abort();
	return at;
}

static void fill(void)
{
	zeroed = 1002;
	heap = strdup("on the heap");
	point = malloc(sizeof(*point));
	*point = (struct point){ 3, 4 };
	shared = map(4 * PAGE, MAP_SHARED | MAP_ANONYMOUS, -1);
	strcpy(shared + 2 * PAGE, "shared");
	/* More addresses than a file can be long, with two pages far from each other. */
	far_apart = map(64ul << 40, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
	strcpy(far_apart + APART, "here");
	strcpy(far_apart + 2 * APART, "and here");
	int fd = open("data", O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || ftruncate(fd, 3 * PAGE) < 0 || pwrite(fd, "as in the file", 15, 0) != 15)
		abort();
	file = map(3 * PAGE, MAP_PRIVATE, fd);
	strcpy(file + PAGE, "copied on write");
	fd = memfd_create("memory", 0);
	if (fd < 0 || ftruncate(fd, 2 * PAGE) < 0)
		abort();
	anonymous_file = map(2 * PAGE, MAP_SHARED, fd);
	strcpy(anonymous_file + PAGE, "in a file of memory");
	secret = map(PAGE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	strcpy(secret, "tell nobody of me");
	madvise(secret, PAGE, MADV_DONTDUMP);
}

int main(void)
{
	int depths[] = { 1, 2, 3 };
	pthread_t threads[3];

	fill();
	pthread_barrier_init(&everybody, NULL, 4);
	pid_t child = fork();
	if (child == 0) {
		initialised = 2001;
		for (;;)
			pause();
	}
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, worker, &depths[i]);
	usleep(50000);
	close(open("ready", O_WRONLY | O_CREAT, 0600));
	lie_asleep(0, 1.0);
}
