/*
 * odd WHAT - a process in an unusual state, one of many: see the table at the end.  It creates "ready"
 * when it is in it, and answers each SIGUSR1 by a byte in "answers" if its state is still as it made it,
 * by an "!" otherwise.  Exit status 77: this cannot be had here.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static int answers = -1;
static const char *answers_path;
static int (*still)(void); /* is the state as it was made? NULL: nothing to look at */

static int keep(long result)
{
	if (result < 0) {
		perror("odd");
		exit(77);
	}
	return (int)result;
}

static void ready(void)
{
	int fd = open("ready", O_WRONLY | O_CREAT, 0666);
	if (fd >= 0)
		close(fd);
}

/* SIGUSR1 is blocked in all threads and taken here. */
static void answer_all(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	for (;;) {
		siginfo_t info;
		if (sigwaitinfo(&set, &info) != SIGUSR1)
			continue;
		const char *word = !still || still() ? "." : "!";
		int fd = answers >= 0 ? answers : open(answers_path, O_WRONLY | O_APPEND | O_CREAT, 0666);
		if (write(fd, word, 1) != 1)
			_exit(9);
		if (fd != answers)
			close(fd);
	}
}

static void *nap(void *arg)
{
	for (;;)
		usleep(50000);
	return arg;
}

static void threads200(void)
{
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 16384);
	for (int i = 0; i < 200; i++) {
		pthread_t thread;
		keep(-pthread_create(&thread, &small, nap, NULL));
	}
}

static int fds_there(void)
{
	for (int fd = 100; fd < 1000; fd++)
		if (lseek(fd, 0, SEEK_CUR) != fd)
			return 0;
	return 1;
}

static void fds1000(void)
{
	struct rlimit limit = { 2000, 2000 };
	setrlimit(RLIMIT_NOFILE, &limit);
	int file = keep(open("many", O_RDWR | O_CREAT, 0600));
	for (int fd = 100; fd < 1000; fd++) {
		int other = keep(open("many", O_RDWR));
		keep(dup2(other, fd));
		lseek(fd, fd, SEEK_SET);
		close(other);
	}
	close(file);
	still = fds_there;
}

static void in_vfork(void)
{
	if (vfork() == 0) {
		ready();
		for (;;)
			usleep(100000);
	}
}

static void in_ptrace_stop(void)
{
	pid_t child = fork();
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		for (;;)
			pause();
	}
	waitpid(child, NULL, WUNTRACED);
}

static void stopped_child(void)
{
	pid_t child = fork();
	if (child == 0)
		for (;;)
			pause();
	usleep(1000);
	kill(child, SIGSTOP);
	waitpid(child, NULL, WUNTRACED);
}

static ucontext_t back, routine;

static void coroutine(void)
{
	ready();
	answer_all();
}

static void coroutine_stack(size_t size)
{
	char *stack = malloc(size);
	getcontext(&routine);
	routine.uc_stack = (stack_t){ .ss_sp = stack, .ss_size = size };
	routine.uc_link = &back;
	makecontext(&routine, coroutine, 0);
	swapcontext(&back, &routine);
}

static void heap_stack(void) { coroutine_stack(65536); }
static void tiny_stack(void) { coroutine_stack(8192); }

static void in_handler(int number)
{
	(void)number;
	sigset_t set;
	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	ready();
	answer_all();
}

/* The smallest alternate stack there is, and we live on it. */
static void on_altstack(void)
{
	size_t size = getauxval(AT_MINSIGSTKSZ) + 4096;
	stack_t stack = { .ss_sp = malloc(size), .ss_size = size };
	keep(sigaltstack(&stack, NULL));
	struct sigaction action = { .sa_handler = in_handler, .sa_flags = SA_ONSTACK };
	sigaction(SIGUSR2, &action, NULL);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_SETMASK, &set, NULL);
	raise(SIGUSR2);
}

/* Stack pointer right at the lower end of its mapping, nothing below. */
static void edge_stack(void)
{
	char *stack = mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(stack + 4096, 2 * 4096, PROT_READ | PROT_WRITE);
	struct timespec forever = { 1000000, 0 };
	ready();
	__asm__ volatile("mov %%rsp, %%r12\n mov %0, %%rsp\n"
			 "1: mov $35, %%eax\n mov %1, %%rdi\n xor %%esi, %%esi\n syscall\n jmp 1b\n"
			 :
			 : "r"(stack + 4096 + 64), "r"(&forever)
			 : "rax", "rdi", "rsi", "rcx", "r11", "r12", "memory");
}

static void zero_stack(void)
{
	static struct timespec forever = { 1000000, 0 };
	ready();
	__asm__ volatile("xor %%esp, %%esp\n"
			 "1: mov $35, %%eax\n mov %0, %%rdi\n xor %%esi, %%esi\n syscall\n jmp 1b\n"
			 :
			 : "r"(&forever)
			 : "rax", "rdi", "rsi", "rcx", "r11", "memory");
}

static void no_vdso(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	while (fgets(line, sizeof(line), maps)) {
		unsigned long start, end;
		if ((strstr(line, "[vdso]") || strstr(line, "[vvar")) &&
		    sscanf(line, "%lx-%lx", &start, &end) == 2)
			syscall(SYS_munmap, start, end - start);
	}
	fclose(maps);
}

static void no_fds(void)
{
	ready();
	for (int fd = 0; fd < 1024; fd++)
		close(fd);
}

static void no_cwd(void)
{
	answers = keep(open("answers", O_WRONLY | O_APPEND | O_CREAT, 0666));
	keep(mkdir("gone", 0700));
	ready();
	keep(chdir("gone"));
	keep(rmdir("../gone"));
}

static int pipe_ends[2], pipe_bytes;

static int pipe_full(void)
{
	char byte = 1;
	return write(pipe_ends[1], &byte, 1) < 0 && errno == EAGAIN;
}

static void full_pipe(void)
{
	char block[4096] = "x";
	keep(pipe2(pipe_ends, O_NONBLOCK));
	for (ssize_t n; (n = write(pipe_ends[1], block, sizeof(block))) > 0;)
		pipe_bytes += (int)n;
	still = pipe_full;
}

static void limit(int which, rlim_t value)
{
	struct rlimit limit = { value, value };
	keep(setrlimit(which, &limit));
}

static void nofile8(void) { limit(RLIMIT_NOFILE, 8); }

static void nofile0(void)
{
	answers = keep(open("answers", O_WRONLY | O_APPEND | O_CREAT, 0666));
	ready();
	limit(RLIMIT_NOFILE, 0);
}

/* One descriptor is free: enough for memory, too little for a pair of sockets. */
static void nofile_full(void)
{
	int next = keep(open("/dev/null", O_RDONLY));
	answers = keep(open("answers", O_WRONLY | O_APPEND | O_CREAT, 0666));
	close(next);
	ready();
	limit(RLIMIT_NOFILE, (rlim_t)answers + 1);
}

static void small_as(void) { limit(RLIMIT_AS, 4096 * 700); }
static void as_zero(void) { limit(RLIMIT_AS, 4096); }
static void data_zero(void) { limit(RLIMIT_DATA, 0); }
static void stack_small(void) { limit(RLIMIT_STACK, 65536); }
static void fsize_small(void) { limit(RLIMIT_FSIZE, 4096); }
static void nproc0(void) { limit(RLIMIT_NPROC, 0); }

static void unprivileged_nproc(void)
{
	limit(RLIMIT_NPROC, 1);
	keep(setgid(1234));
	keep(setuid(1234));
}

static void user_without_dump(void)
{
	keep(setgroups(0, NULL));
	keep(setgid(1234));
	keep(setuid(1234));
	prctl(PR_SET_DUMPABLE, 0);
}

/* Nothing but what answering takes. */
static void filtered(void)
{
	answers = keep(open("answers", O_WRONLY | O_APPEND | O_CREAT, 0666));
	ready();
#define LET(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		LET(SYS_rt_sigtimedwait), LET(SYS_write), LET(SYS_exit_group),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(code[0]), code };
	keep(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	keep(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
	answer_all();
}

static void chrooted(void)
{
	answers = keep(open("answers", O_WRONLY | O_APPEND | O_CREAT, 0666));
	ready();
	mkdir("jail", 0755);
	keep(chroot("jail"));
	keep(chdir("/"));
}

static void deep(void)
{
	answers = keep(open("answers", O_WRONLY | O_APPEND | O_CREAT, 0666));
	ready();
	for (int i = 0; i < 60; i++) {
		char name[201];
		memset(name, 'a' + i % 26, 200);
		name[200] = 0;
		mkdir(name, 0755);
		keep(chdir(name));
	}
}

/* Each the child of the one before; the last one says that all are there. */
static void chain(void)
{
	for (int i = 0; i < 99; i++) {
		if (fork() == 0)
			continue;
		while (i == 0 && access("ready", F_OK) < 0)
			usleep(1000);
		if (i == 0)
			return;
		for (;;)
			pause();
	}
	ready();
	for (;;)
		pause();
}

static char *huge;

static void none_tib(void)
{
	huge = mmap(NULL, 1ul << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	keep(huge == MAP_FAILED ? -1 : 0);
}

static void reserve_tib(void)
{
	huge = mmap(NULL, 1ul << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	keep(huge == MAP_FAILED ? -1 : 0);
	huge[1ul << 39] = 7;
	huge[(1ul << 40) - 1] = 8;
}

static int grows(void)
{
	volatile char *below = huge - 3 * 4096;
	*below = 3; /* grows it */
	huge = (char *)below;
	return *below == 3;
}

static void growsdown(void)
{
	huge = mmap((void *)0x500000000000, 8192, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0);
	keep(huge == MAP_FAILED ? -1 : 0);
	huge[0] = 1;
	still = grows;
}

static void maps10000(void)
{
	for (int i = 0; i < 10000; i++) {
		char *page = mmap((void *)(0x600000000000 + (uintptr_t)i * 8192), 4096, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		keep(page == MAP_FAILED ? -1 : 0);
		*page = (char)i;
	}
}

static void own_text_gone(void)
{
	/* Its executable is deleted: see the driver, which starts a copy. */
	unlink("odd-copy");
}

static void *outlive(void *arg)
{
	char path[64], text[64] = "";
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", getpid());
	while (!strstr(text, ") Z")) {
		int fd = keep(open(path, O_RDONLY));
		keep(read(fd, text, sizeof(text) - 1));
		close(fd);
	}
	ready();
	answer_all();
	return arg;
}

static void leader_gone(void)
{
	pthread_t thread;
	keep(-pthread_create(&thread, NULL, outlive, NULL));
	pthread_exit(NULL);
}

static void nothing(void) {}

static const struct {
	const char *name;
	void (*make)(void);
} odds[] = {
	{ "nothing", nothing }, { "threads200", threads200 }, { "fds1000", fds1000 }, { "in_vfork", in_vfork },
	{ "in_ptrace_stop", in_ptrace_stop }, { "stopped_child", stopped_child }, { "heap_stack", heap_stack },
	{ "tiny_stack", tiny_stack }, { "on_altstack", on_altstack }, { "edge_stack", edge_stack },
	{ "zero_stack", zero_stack }, { "no_vdso", no_vdso }, { "no_fds", no_fds }, { "no_cwd", no_cwd },
	{ "full_pipe", full_pipe }, { "nofile8", nofile8 }, { "nofile0", nofile0 }, { "nofile_full", nofile_full }, { "small_as", small_as },
	{ "as_zero", as_zero }, { "data_zero", data_zero }, { "stack_small", stack_small },
	{ "fsize_small", fsize_small }, { "nproc0", nproc0 }, { "unprivileged_nproc", unprivileged_nproc },
	{ "user_without_dump", user_without_dump }, { "filtered", filtered }, { "chrooted", chrooted },
	{ "deep", deep }, { "chain", chain }, { "none_tib", none_tib }, { "reserve_tib", reserve_tib },
	{ "growsdown", growsdown }, { "maps10000", maps10000 }, { "own_text_gone", own_text_gone },
	{ "leader_gone", leader_gone },
};

int main(int argc, char **argv)
{
	sigset_t set;
	static char here[4096];
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (!getcwd(here, sizeof(here) - 10))
		return 77;
	strcat(here, "/answers");
	answers_path = here;
	for (size_t i = 0; i < sizeof(odds) / sizeof(odds[0]); i++) {
		if (argc < 2 || strcmp(argv[1], odds[i].name))
			continue;
		odds[i].make();
		ready();
		answer_all();
	}
	return 2;
}
