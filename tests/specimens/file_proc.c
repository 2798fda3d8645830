/*
 * Files of /proc that are open: about the process itself, its thread, its child,
 * its parent; half read, written, as directory, as O_PATH, watched by epoll, shared
 * between two processes; and those about the system. They are about who they were
 * about, and reading goes on.
 *
 * harness: differs=/proc/\d+/fd\b.*pos
 */
#include "specimen.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/mman.h>
#include <sys/wait.h>

static pthread_barrier_t ready;

static void *idle(void *tid)
{
	*(volatile pid_t *)tid = (pid_t)syscall(SYS_gettid);
	pthread_barrier_wait(&ready);
	for (;;)
		pause();
	return NULL;
}

/* The value of "Pid:" in an open status file. */
static long pid_in(int fd)
{
	char text[8192];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	text[n > 0 ? n : 0] = '\0';
	const char *at = strstr(text, "\nPid:");
	return at ? strtol(at + 5, NULL, 10) : -1;
}

static int open_about(pid_t pid, const char *name, int flags)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	return MUST(open(path, flags));
}

int main(void)
{
	volatile pid_t tid;
	pthread_t thread;
	char word[32], seen[64] = "";
	MUST_ZERO(pthread_barrier_init(&ready, NULL, 2));
	MUST_ZERO(pthread_create(&thread, NULL, idle, (void *)&tid));
	pthread_barrier_wait(&ready);
	int shared = MUST(open("/proc/self/status", O_RDONLY));
	volatile pid_t *child_now = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t child = MUST(fork());
	if (child == 0) {
		int parent = open_about(getppid(), "status", O_RDONLY);
		while (specimen_child_round()) {
			*child_now = getpid();
			expect_int("about the parent", getppid(), pid_in(parent));
			expect_int("about the parent, shared", getppid(), pid_in(shared));
			expect_int("shared position", 10, lseek(shared, 0, SEEK_CUR));
		}
		_exit(0);
	}
	int self = MUST(open("/proc/self/status", O_RDONLY)), about_child = open_about(child, "status", O_RDONLY);
	snprintf(word, sizeof(word), "task/%d/comm", tid);
	int comm = open_about(getpid(), word, O_RDWR), directory = MUST(open("/proc/self/fd", O_RDONLY | O_DIRECTORY));
	int folder = MUST(open("/proc/self", O_PATH | O_DIRECTORY));
	int memory = MUST(open("/proc/self/mem", O_RDWR)), system = MUST(open("/proc/version", O_RDONLY));
	int mounts = MUST(open("/proc/self/mounts", O_RDONLY)), cpus = open("/sys/devices/system/cpu/possible", O_RDONLY);
	int epoll = MUST(epoll_create1(0));
	struct epoll_event event = { .events = EPOLLERR | EPOLLPRI, .data.u32 = 77 };
	MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, mounts, &event));
	char version[64], possible[64] = "";
	MUST(pread(system, version, sizeof(version), 0));
	if (cpus >= 0)
		MUST(pread(cpus, possible, sizeof(possible), 0));
	MUST(lseek(shared, 10, SEEK_SET));
	MUST(lseek(self, 5, SEEK_SET));

	while (specimen_round()) {
		specimen_ready();
		expect_int("about itself", getpid(), pid_in(self));
		expect_int("position", 5, lseek(self, 0, SEEK_CUR));
		expect_int("shared", getpid(), pid_in(shared));
		snprintf(word, sizeof(word), "round %d", specimen_number());
		expect_int("write the name of the thread", (long)strlen(word), write(comm, word, strlen(word)));
		int status = openat(folder, "status", O_RDONLY);
		expect_int("about itself, through the directory", getpid(), pid_in(status));
		close(status);
		snprintf(word, sizeof(word), "%d", self);
		expect_ok("its descriptors", faccessat(directory, word, F_OK, AT_SYMLINK_NOFOLLOW));
		volatile int here = 4711;
		int there = 0;
		expect_int("bytes of its memory", sizeof(there), pread(memory, &there, sizeof(there), (intptr_t)&here));
		expect_int("its memory", 4711, there);
		expect_int("bytes about the system", sizeof(seen), pread(system, seen, sizeof(seen), 0));
		expect_bytes("about the system", version, seen, sizeof(seen));
		memset(seen, 0, sizeof(seen));
		if (cpus >= 0) {
			expect_ok("of /sys", pread(cpus, seen, sizeof(seen), 0));
			expect_bytes("of /sys", possible, seen, strlen(possible));
		}
		expect_ok("epoll knows it", epoll_ctl(epoll, EPOLL_CTL_MOD, mounts, &event));
		specimen_await(1);
		expect_int("about the child", *child_now, pid_in(about_child));
	}
	waitpid(*child_now, NULL, 0);
	return specimen_end();
}
