#include "engine/errand.h"

#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/procfs.h"
#include "store/scope.h"
#include "store/thread.h"

#define STACK_SIZE (256 * 1024)
#define REAP_PATIENCE_MS 2000

struct trip {
	const struct errand *errand;
	volatile int failed; /* errno of what kept it from the work */
};

/* Raw system calls: the C library's would change the user of all our threads. */
static int take_on(const image_maker *who)
{
	if (syscall(SYS_setgroups, (long)who->groups.groups_len, who->groups.groups_val) < 0 &&
	    geteuid() == 0)
		return errno;
	if (syscall(SYS_setresgid, -1l, (long)who->gid, -1l) < 0 ||
	    syscall(SYS_setresuid, -1l, (long)who->uid, -1l) < 0)
		return errno;
	return 0;
}

static void travel(void *arg)
{
	struct trip *trip = arg;
	const struct errand *errand = trip->errand;
	if (errand->root >= 0 && (fchdir(errand->root) < 0 || chroot(".") < 0)) {
		trip->failed = errno;
		return;
	}
	if (errand->work)
		errand->work(errand->arg);
	if (errand->who)
		trip->failed = take_on(errand->who);
	if (errand->work_as && !trip->failed)
		errand->work_as(errand->arg);
}

/* As vfork(2), but that the child calls run(arg) on a stack of its own and ends. */
static long clone_and_run(struct clone_args *args, void (*run)(void *), void *arg)
{
	register long result __asm__("rax") = SYS_clone3;
	register void *rdi __asm__("rdi") = args;
	register long rsi __asm__("rsi") = sizeof(*args);
	register void (*r12)(void *) __asm__("r12") = run;
	register void *r13 __asm__("r13") = arg;
	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %%r13, %%rdi\n\t"
			 "call *%%r12\n\t"
			 "mov %[exit], %%eax\n\t"
			 "xor %%edi, %%edi\n\t"
			 "syscall\n\t"
			 "hlt\n"
			 "1:"
			 : "+r"(result), "+r"(rdi), "+r"(rsi)
			 : "r"(r12), "r"(r13), [exit] "i"(SYS_exit)
			 : "rcx", "r11", "rdx", "r8", "r9", "r10", "memory", "cc");
	return result;
}

/* CLONE_VFORK: we do not go on before it has ended, and it may use our memory as its own. */
static long go(struct trip *trip, pid_t number, void *stack)
{
	struct clone_args args = {
		.flags = CLONE_VM | CLONE_VFORK | CLONE_FILES,
		.stack = (uintptr_t)stack,
		.stack_size = STACK_SIZE,
		.set_tid = number ? (uintptr_t)&number : 0,
		.set_tid_size = number ? 1 : 0,
	};
	long child = clone_and_run(&args, travel, trip);
	if (child < 0)
		return child;
	while (waitpid((pid_t)child, NULL, __WALL) < 0 && errno == EINTR)
		;
	return child;
}

/* A dead process whose parent has not waited for it keeps its number for a moment. */
static bool is_dead(pid_t pid)
{
	cleanup_fd int dir = procfs_open(pid, NULL);
	struct procfs_stat stat;
	return dir < 0 || procfs_stat(dir, "stat", &stat, NULL) < 0 || stat.state == 'Z' ||
	       stat.state == 'X';
}

static long go_as(struct trip *trip, pid_t number, void *stack)
{
	long child = -EEXIST;
	for (int waited = 0; child == -EEXIST && waited < REAP_PATIENCE_MS; waited += 2) {
		child = go(trip, number, stack);
		if (child != -EEXIST || !is_dead(number))
			break;
		usleep(2000);
	}
	return child;
}

/* Changing the user of a process makes its memory, and so ours, undumpable (commit_creds() in
 * kernel/cred.c). */
static long go_unchanged(struct trip *trip, pid_t number, void *stack)
{
	int dumpable = prctl(PR_GET_DUMPABLE);
	long child = number ? go_as(trip, number, stack) : -EPERM;
	if (child < 0)
		child = go(trip, 0, stack);
	if (prctl(PR_GET_DUMPABLE) != dumpable)
		prctl(PR_SET_DUMPABLE, dumpable);
	return child;
}

static bool is_us(const image_maker *who)
{
	return who->pid == getpid() && who->uid == geteuid() && who->gid == getegid();
}

/* In our own name, but a thread's own root. */
static void *run_as_thread(void *arg)
{
	struct trip *trip = arg;
	if (unshare(CLONE_FS) < 0)
		trip->failed = errno;
	else
		travel(trip);
	return NULL;
}

static int run_as_us(const struct errand *errand)
{
	struct errand ours = *errand;
	struct trip trip = {.errand = &ours};
	pthread_t thread;
	ours.who = NULL;
	if (ours.work_as && !ours.work) {
		ours.work = ours.work_as;
		ours.work_as = NULL;
	}
	if (!thread_start(&thread, run_as_thread, &trip))
		return -1;
	pthread_join(thread, NULL);
	errno = trip.failed;
	return trip.failed ? -1 : 0;
}

int errand_run(const struct errand *errand)
{
	struct trip trip = {.errand = errand};
	pid_t number = errand->who ? errand->who->pid : 0;
	if (errand->who && is_us(errand->who))
		return run_as_us(errand);
	sigset_t all, before;
	void *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK,
			   -1, 0);
	if (stack == MAP_FAILED)
		return -1;
	/* Handlers of ours would run there as well. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	long child = go_unchanged(&trip, number, stack);
	sigprocmask(SIG_SETMASK, &before, NULL);
	munmap(stack, STACK_SIZE);
	errno = child < 0 ? (int)-child : trip.failed;
	if (child < 0 || trip.failed)
		return -1;
	return errand->who && child != number;
}
