/*
 * copied WORK MIB [filter|timer|limit|threads|unmap] - has much memory, among it what nobody may read, and notices if anything
 * about it changes: content, handlers of faults, vector registers, threads, descriptors.
 *
 * When the file WORK/ask is there it checks itself, writes what it found to WORK/answer ("ok", or what is
 * wrong) and removes WORK/ask.
 *
 * With `unmap` a thread of it notices that it stood still, and then unmaps as much memory again at once.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul

static char work[3000];
static size_t size;
static uint64_t *memory, *hidden, *written;
static volatile double seed = 0.7;
static atomic_int miscalculated;
static atomic_long rounds;
static int tasks = 4; /* entries of /proc/self/task: two threads, and two names of directories */

static void fill(uint64_t *words, size_t bytes, uint64_t x)
{
	for (size_t i = 0; i < bytes / sizeof(*words); i++) {
		x ^= x << 13; /* xorshift64 */
		x ^= x >> 7;
		x ^= x << 17;
		words[i] = x;
	}
}

static int holds(const uint64_t *words, size_t bytes, uint64_t x)
{
	for (size_t i = 0; i < bytes / sizeof(*words); i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		if (words[i] != x)
			return 0;
	}
	return 1;
}

/* The same sums over and over: whoever meddles with vector registers changes one. */
static double calculate(void)
{
	double lane[8] = { 0 };
	for (int i = 0; i < 4096; i++)
		for (int j = 0; j < 8; j++)
			lane[j] = lane[j] * 0.999 + seed * (i + j);
	return lane[0] + lane[1] + lane[2] + lane[3] + lane[4] + lane[5] + lane[6] + lane[7];
}

static void *keep_calculating(void *unused)
{
	double first = calculate();
	for (;; rounds++)
		if (calculate() != first)
			miscalculated = 1;
	return unused;
}

#define STOOD_STILL_NS 3000000

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *unmap_when_stopped(void *unused)
{
	(void)unused;
	for (;;) {
		char *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (area == MAP_FAILED)
			exit(3);
		memset(area, 1, size);
		for (uint64_t last = now_ns(), now; (now = now_ns()) - last < STOOD_STILL_NS; last = now)
			;
		munmap(area, size);
	}
}

static void on_fault(int signo)
{
	(void)signo;
	_exit(99);
}

static int count(const char *path)
{
	DIR *dir = opendir(path);
	int n = 0;
	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

static const char *look(int descriptors)
{
	struct sigaction action;
	long before = rounds;
	for (int i = 0; i < 2000 && rounds == before; i++)
		usleep(1000);
	if (rounds == before)
		return "its thread stands still";
	if (!holds(memory, size, 1))
		return "its memory has changed";
	mprotect(hidden, 64 * PAGE, PROT_READ | PROT_WRITE);
	int same = holds(hidden, 64 * PAGE, 2);
	mprotect(hidden, 64 * PAGE, PROT_NONE);
	if (!same)
		return "memory that may not be read has changed";
	mprotect(written, 64 * PAGE, PROT_READ | PROT_WRITE);
	same = holds(written, 64 * PAGE, 3);
	mprotect(written, 64 * PAGE, PROT_WRITE);
	if (!same)
		return "memory that may only be written has changed";
	if (miscalculated)
		return "vector registers have changed";
	if (sigaction(SIGSEGV, NULL, &action) < 0 || action.sa_handler != on_fault ||
	    sigaction(SIGBUS, NULL, &action) < 0 || action.sa_handler != SIG_DFL)
		return "a handler has changed";
	if (count("/proc/self/task") != tasks)
		return "there is a thread more";
	if (count("/proc/self/fd") != descriptors)
		return "there is a descriptor more";
	return "ok";
}

static void tell(const char *what)
{
	char path[4000], final[4000];
	snprintf(path, sizeof(path), "%s/answer.new", work);
	snprintf(final, sizeof(final), "%s/answer", work);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || write(fd, what, strlen(what)) < 0 || close(fd) < 0 || rename(path, final) < 0)
		exit(3);
}

static void put_on(const char *what)
{
	if (!strcmp(what, "filter")) {
		struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
		struct sock_fprog program = { 1, &allow };
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
			exit(3);
	} else if (!strcmp(what, "timer")) {
		struct itimerval timer = { .it_value = { .tv_sec = 1000000 } };
		setitimer(ITIMER_PROF, &timer, NULL);
	} else if (!strcmp(what, "limit")) {
		struct rlimit limit = { 1000000, RLIM_INFINITY };
		setrlimit(RLIMIT_CPU, &limit);
	} else if (!strcmp(what, "threads")) { /* no more of them */
		struct rlimit limit = { 1, 1 };
		setrlimit(RLIMIT_NPROC, &limit);
	}
}

int main(int argc, char **argv)
{
	pthread_t thread;
	char path[4000];
	if (argc < 3)
		return 2;
	snprintf(work, sizeof(work), "%s", argv[1]);
	size = strtoul(argv[2], NULL, 0) << 20;
	/* In the midst of it pages of another sort, which those on both sides lie close to. */
	char *area = mmap(NULL, size + 128 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		return 3;
	memory = (uint64_t *)area;
	hidden = (uint64_t *)(area + size);
	written = (uint64_t *)(area + size + 64 * PAGE);
	fill(memory, size, 1);
	fill(hidden, 64 * PAGE, 2);
	fill(written, 64 * PAGE, 3);
	mprotect(hidden, 64 * PAGE, PROT_NONE);
	mprotect(written, 64 * PAGE, PROT_WRITE);
	signal(SIGSEGV, on_fault);
	if (pthread_create(&thread, NULL, keep_calculating, NULL))
		return 3;
	if (argc > 3 && !strcmp(argv[3], "unmap")) {
		tasks++;
		if (pthread_create(&thread, NULL, unmap_when_stopped, NULL))
			return 3;
	} else if (argc > 3) {
		put_on(argv[3]);
	}
	int descriptors = count("/proc/self/fd");
	snprintf(path, sizeof(path), "%s/ready", work);
	close(open(path, O_WRONLY | O_CREAT, 0644));
	snprintf(path, sizeof(path), "%s/ask", work);
	for (;; usleep(1000)) {
		if (access(path, F_OK) < 0)
			continue;
		tell(look(descriptors));
		unlink(path);
	}
}
