/*
 * odd_tasks KIND: is, or has below it, tasks that share or separate what others do not, or that somebody
 * of its own tree traces. Otherwise as holder.c: "ready", and a byte in "answers" for every SIGUSR1.
 */
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
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

/* Windows programs under wine: system calls come back as SIGSYS unless a byte lets them pass. */
static void dispatched(void)
{
	static char selector; /* SYSCALL_DISPATCH_FILTER_ALLOW */
	keep(prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector));
}

/* A 64-bit program with a thread that runs in the 32-bit code segment: nothing else tells it apart. */
static void *in_segment_32(void *code)
{
	struct {
		uint32_t offset;
		uint16_t segment;
	} __attribute__((packed)) far = { (uint32_t)(uintptr_t)code, 0x23 };
	close(open("separate", O_WRONLY | O_CREAT, 0644));
	__asm__ volatile("ljmp *%0" : : "m"(far));
	return NULL;
}

static void segment_32(void)
{
	char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	pthread_t thread;
	keep(code == MAP_FAILED ? -1 : 0);
	memcpy(code, "\xf3\x90\xeb\xfc", 4); /* pause; jmp back */
	pthread_create(&thread, NULL, in_segment_32, code);
	while (access("separate", F_OK) < 0)
		usleep(1000);
	unlink("separate");
	usleep(10000);
}

/* A ring of io_uring in its own memory that only its thread's registered descriptors lead to: IORING_SETUP_NO_MMAP,
 * _REGISTERED_FD_ONLY, _NO_SQARRAY. */
static void hidden_ring(void)
{
	char *memory = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct io_uring_params params = { .flags = 1u << 14 | 1u << 15 | 1u << 16 };
	params.cq_off.resv2 = (uintptr_t)memory;
	params.sq_off.resv2 = (uintptr_t)memory + 32768;
	keep(memory == MAP_FAILED ? -1 : (int)syscall(__NR_io_uring_setup, 8, &params));
}

static const struct {
	const char *name;
	void (*become)(void);
} kinds[] = {
	{ "shared_files", shared_files },	 { "shared_directory", shared_directory },
	{ "thread_files", thread_files },	 { "thread_directory", thread_directory },
	{ "dispatched", dispatched },		 { "segment_32", segment_32 },
	{ "traced_inside", traced_inside },	 { "stuck_vfork", stuck_vfork },
	{ "hidden_ring", hidden_ring },
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
