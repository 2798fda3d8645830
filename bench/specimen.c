/*
 * specimen.c - what is dumped and restored while the clock runs.
 *
 *	specimen PAGE [--spin] [--memory MIB] [--compressible] [--children N]
 *	         [--write MIB] [--touch N] [--requests MIB] [--threads N] [--descriptors N] [--mappings N]
 *
 * Alone it is the tiny process: it sleeps. --memory gives it that much anonymous
 * memory, every 4 KiB page of it touched, different from all others and not
 * compressible, or with --compressible three words in four the same; with --write, a thread
 * overwrites pages of it here and there, so many MiB a second. With --requests it answers requests (page.h): each reads the same pages of that memory, so many MiB
 * here and there. --children makes it a pre-forking server: it listens, and N
 * children wait in accept(2). --threads, --descriptors (eventfds) and --mappings (of one
 * page each) give it so many of them. With --spin it watches the clock without pause and
 * writes every moment in which it was not running to the file PAGE (page.h): what
 * a freeze is to the frozen, and when the first instruction after a restore ran.
 */
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "page.h"

#define GAP_NS 10000 /* a timer interrupt is shorter */

static void must(int ok, const char *what)
{
	if (ok)
		return;
	perror(what);
	exit(1);
}

static struct page *share(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	must(fd >= 0, path);
	struct page *page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(page != MAP_FAILED, "mmap");
	close(fd);
	return page;
}

struct memory {
	uint64_t *words;
	size_t bytes, rate; /* overwritten per second */
	int compressible;
};

static void take_memory(struct memory *memory)
{
	size_t bytes = memory->bytes;
	uint64_t *words = memory->words = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t x = 88172645463325252;

	must(words != MAP_FAILED, "mmap");
	for (size_t i = 0; i < bytes / sizeof(*words); i++) {
		x ^= x << 13; /* xorshift64 */
		x ^= x >> 7;
		x ^= x << 17;
		words[i] = memory->compressible && i % 4 ? 88172645463325252 : x;
	}
}

/* A share of the rate at every tick; what a tick came late for is made up at the next. */
static void *overwrite(void *argument)
{
	const struct memory *memory = argument;
	struct timespec tick = { .tv_nsec = 1000000 };
	uint64_t start = now_ns(), x = 88172645463325252;
	size_t pages = memory->bytes / 4096;

	for (size_t written = 0, due;; nanosleep(&tick, NULL)) {
		due = (size_t)((double)(now_ns() - start) / 1e9 * (double)memory->rate) / 4096;

		for (; written < due; written++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			memset((char *)memory->words + x % pages * 4096, (int)x, 4096);
		}
	}
	return NULL;
}

/* The same pages each time, in the same disorder: a working set. */
static uint64_t read_set(const struct memory *memory, size_t bytes)
{
	uint64_t x = 88172645463325252, sum = 0;
	size_t pages = memory->bytes / 4096;

	for (size_t n = bytes / 4096; n; n--) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		sum += memory->words[x % pages * 512];
	}
	return sum;
}

static void answer(struct page *page, const struct memory *memory, size_t bytes)
{
	const struct timespec tick = { .tv_nsec = 200000 };
	volatile uint64_t sum;

	for (;; nanosleep(&tick, NULL)) {
		uint64_t asked = __atomic_load_n(&page->asked, __ATOMIC_ACQUIRE);

		if (asked == page->answered)
			continue;
		sum = read_set(memory, bytes);
		page->answered_at = now_ns();
		__atomic_store_n(&page->answered, asked, __ATOMIC_RELEASE);
	}
	(void)sum;
}

static struct memory touched;
static size_t touches;

/* --touch: so many pages here and there, at SIGUSR1. */
static void touch(int signal)
{
	static uint64_t x = 88172645463325252;

	(void)signal;
	for (size_t i = 0; i < touches; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		touched.words[x % (touched.bytes / 4096) * 512] = x;
	}
}

static void take_writer(struct memory *memory)
{
	pthread_t thread;

	must(!pthread_create(&thread, NULL, overwrite, memory), "pthread_create");
}

static void serve(int listener)
{
	char work[64 << 10]; /* what one worker has for itself */

	memset(work, 1, sizeof(work));
	for (;;)
		close(accept(listener, NULL, NULL));
}

static void take_children(int count)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in any = { .sin_family = AF_INET };

	any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	must(listener >= 0, "socket");
	must(!bind(listener, (struct sockaddr *)&any, sizeof(any)), "bind");
	must(!listen(listener, 64), "listen");
	while (count--) {
		pid_t pid = fork();

		must(pid >= 0, "fork");
		if (!pid)
			serve(listener);
	}
}

static void *sleep_for_ever(void *unused)
{
	while (pause())
		;
	return unused;
}

static void take_threads(int count)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 64 << 10);
	while (count--)
		must(!pthread_create(&thread, &attr, sleep_for_ever, NULL), "pthread_create");
}

static void take_descriptors(int count)
{
	struct rlimit limit;

	must(!getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
	limit.rlim_cur = limit.rlim_max;
	must(!setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
	while (count--)
		must(eventfd(0, 0) >= 0, "eventfd");
}

/* Neighbours differ in what is allowed, or they would become one. */
static void take_mappings(size_t count)
{
	char *area = mmap(NULL, count * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(area != MAP_FAILED, "mmap");
	for (size_t i = 0; i < count; i++) {
		area[i * 4096] = (char)i;
		if (i % 2)
			must(!mprotect(area + i * 4096, 4096, PROT_READ), "mprotect");
	}
}

static void watch(struct page *page)
{
	uint64_t last = now_ns();

	for (;;) {
		uint64_t now = now_ns();

		if (now - last > GAP_NS) {
			page->gap[page->gaps % PAGE_GAPS] = (struct gap){ last, now };
			__atomic_store_n(&page->gaps, page->gaps + 1, __ATOMIC_RELEASE);
		}
		last = now;
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "spin", no_argument, NULL, 's' },
		{ "memory", required_argument, NULL, 'm' },
		{ "compressible", no_argument, NULL, 'z' },
		{ "write", required_argument, NULL, 'w' },
		{ "requests", required_argument, NULL, 'r' },
		{ "touch", required_argument, NULL, 'u' },
		{ "children", required_argument, NULL, 'c' },
		{ "threads", required_argument, NULL, 't' },
		{ "descriptors", required_argument, NULL, 'd' },
		{ "mappings", required_argument, NULL, 'v' },
		{ 0 },
	};
	int option, spin = 0, children = 0, threads = 0, descriptors = 0;
	struct memory memory = { 0 };
	size_t mappings = 0, requests = 0;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 's')
			spin = 1;
		else if (option == 'm')
			memory.bytes = strtoull(optarg, NULL, 0) << 20;
		else if (option == 'z')
			memory.compressible = 1;
		else if (option == 'w')
			memory.rate = strtoull(optarg, NULL, 0) << 20;
		else if (option == 'r')
			requests = strtoull(optarg, NULL, 0) << 20;
		else if (option == 'u')
			touches = strtoull(optarg, NULL, 0);
		else if (option == 'c')
			children = atoi(optarg);
		else if (option == 't')
			threads = atoi(optarg);
		else if (option == 'd')
			descriptors = atoi(optarg);
		else if (option == 'v')
			mappings = strtoull(optarg, NULL, 0);
		else
			return 2;
	}
	must(optind < argc, "specimen: PAGE is missing");
	struct page *page = share(argv[optind]);

	if (memory.bytes)
		take_memory(&memory);
	touched = memory;
	if (memory.bytes && touches)
		must(signal(SIGUSR1, touch) != SIG_ERR, "signal");
	if (mappings)
		take_mappings(mappings);
	if (descriptors)
		take_descriptors(descriptors);
	if (threads)
		take_threads(threads);
	if (children)
		take_children(children);
	if (memory.bytes && memory.rate)
		take_writer(&memory);
	__atomic_store_n(&page->ready, 1, __ATOMIC_RELEASE);
	if (memory.bytes && requests)
		answer(page, &memory, requests);
	if (spin)
		watch(page);
	for (;;)
		pause();
}
