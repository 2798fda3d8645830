/*
 * stopat N MS FILE COMMAND... - runs COMMAND and ends it at its N-th system call stop.
 * stopat N fault FILE COMMAND... - lets the first call from there on fail that can fail in real life:
 * no memory, no descriptor, no space, or an input/output error, whatever suits the call.
 * stopat N interrupt FILE COMMAND... - the same, with EINTR, of calls that a signal can interrupt.
 * stopat N shorten FILE COMMAND... - lets the first read or write from there on that may do so do half.
 *
 * stopat 0 sites FILE COMMAND... - lists in FILE from where such calls are made: the place as a number, and the call.
 * stopat PLACE site FILE COMMAND... - lets the first call from that place fail.
 *
 * Every entry into and every return from a system call counts, in all its threads; children are
 * left alone.  At the N-th the command stands still for MS milliseconds, as after SIGSTOP, and then
 * gets SIGKILL.  FILE tells where it was ended, or how many stops there were if it came to its end.
 * With STOPAT_SIGNAL="PID TID..." in the environment each of these threads is sent SIGUSR1 as it stands still; without a
 * TID the process.
 * With STOPAT_REQUEST=HEX in the environment that request of ptrace(2) counts, and nothing else.
 * N 0 counts only.  The exit status is the command's; 137 if it was killed.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <linux/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "coverage.h"
#include "site.h"

static long stops;
static pid_t counting; /* the thread that does nothing else any more than write down which lines it has run */
static pid_t failing; /* the thread in the call that is going to fail */
static int failure;
static enum { KILL, FAULT, INTERRUPT, SHORTEN, SITES, SITE } mode;
static struct site_text text; /* of the command */
static uint64_t wanted;       /* SITE */

/* 0: the call fails only where fsnap or the kernel has gone mad, or its failure is not the point. */
static int likely_errno(long nr, int fd)
{
	if (nr == SYS_write && fd <= STDERR_FILENO)
		return 0; /* who cannot be told is not told */
	switch (nr) {
	case SYS_mmap: case SYS_mremap: case SYS_mprotect: case SYS_madvise: case SYS_clone3:
	case SYS_clone:
		return ENOMEM;
	case SYS_openat: case SYS_open: case SYS_memfd_create: case SYS_pidfd_open: case SYS_pidfd_getfd:
	case SYS_pipe2: case SYS_socket: case SYS_socketpair: case SYS_dup: case SYS_eventfd2:
	case SYS_epoll_create1: case SYS_io_uring_setup: case SYS_timerfd_create: case SYS_signalfd4:
	case SYS_inotify_init1: case SYS_fanotify_init: case SYS_accept4: case SYS_perf_event_open:
		return EMFILE;
	case SYS_userfaultfd: case SYS_bpf: case SYS_setns: case SYS_unshare: /* somebody's policy */
		return EPERM;
	case SYS_connect:
		return ECONNREFUSED;
	case SYS_sendmsg: case SYS_recvmsg:
		return ENOMEM;
	case SYS_inotify_add_watch: case SYS_fanotify_mark: case SYS_pwritev: case SYS_symlinkat: case SYS_mkdir:
	case SYS_copy_file_range: case SYS_sendfile:
	case SYS_write: case SYS_pwrite64: case SYS_fallocate: case SYS_ftruncate: case SYS_mkdirat:
	case SYS_renameat: case SYS_renameat2: case SYS_linkat:
		return ENOSPC;
	case SYS_ptrace: /* a kernel that knows no such registers */
		return fd == PTRACE_SETREGSET ? EIO : 0;
	case SYS_shmget: case SYS_semget: case SYS_msgget: case SYS_mq_open:
		return ENOSPC;
	case SYS_shmat: case SYS_shmctl: case SYS_semctl: case SYS_msgctl: case SYS_mincore: case SYS_io_uring_register:
		return ENOMEM;
	case SYS_read: case SYS_pread64: case SYS_readlinkat: case SYS_readlink: case SYS_newfstatat:
	case SYS_fstat: case SYS_statx: case SYS_getdents64: case SYS_msync: case SYS_fsync:
	case SYS_fdatasync: case SYS_lseek: case SYS_ioctl: case SYS_fcntl: case SYS_flock: case SYS_statfs:
	case SYS_fstatfs: case SYS_unlinkat: case SYS_sendto: case SYS_recvfrom: case SYS_process_vm_readv:
	case SYS_kcmp: case SYS_prlimit64: case SYS_sched_getattr: case SYS_sched_getaffinity:
	case SYS_setsockopt: case SYS_getsockopt: case SYS_bind: case SYS_listen: case SYS_epoll_ctl:
	case SYS_preadv: case SYS_fchmod: case SYS_fgetxattr: case SYS_process_madvise: case SYS_getsockname:
	case SYS_timerfd_settime: case SYS_ioprio_get:
	case SYS_getpeername: case SYS_fchdir: case SYS_splice: case SYS_tee: case SYS_sched_setaffinity:
		return EIO;
	}
	return 0;
}

/* Calls that wait, or may (signal(7)), and do not begin anew by themselves where a handler was not set so. */
static int interruptible(long nr)
{
	switch (nr) {
	case SYS_read: case SYS_pread64: case SYS_readv: case SYS_preadv: case SYS_write: case SYS_pwrite64:
	case SYS_writev: case SYS_pwritev: case SYS_openat: case SYS_fallocate: case SYS_flock: case SYS_fsync:
	case SYS_wait4: case SYS_waitid: case SYS_poll: case SYS_ppoll: case SYS_epoll_wait: case SYS_epoll_pwait:
	case SYS_recvmsg: case SYS_recvfrom: case SYS_sendmsg: case SYS_sendto: case SYS_connect: case SYS_accept4:
	case SYS_io_uring_enter: case SYS_sendfile: case SYS_copy_file_range: case SYS_splice: case SYS_getrandom:
	case SYS_clock_nanosleep:
		return EINTR;
	}
	return 0;
}

/* Where less than this is asked for, it is one number or record, which the kernel gives whole. */
#define SPLITS 256

static void tell(const char *path, const char *what, pid_t tid);

static int may_be_short(const struct user_regs_struct *regs)
{
	switch ((long)regs->orig_rax) {
	case SYS_write:
		return regs->rdi > STDERR_FILENO && regs->rdx >= SPLITS;
	case SYS_read: case SYS_pread64: case SYS_pwrite64: case SYS_sendfile: case SYS_copy_file_range: case SYS_splice:
		return regs->rdx >= SPLITS;
	}
	return 0;
}

/* Page tables are read by words, so half of them is a number of words, too. */
static void shorten(const char *path, pid_t tid)
{
	struct user_regs_struct regs;
	ptrace(PTRACE_GETREGS, tid, 0, &regs);
	if (!may_be_short(&regs))
		return;
	tell(path, "shortened", tid);
	regs.rdx = regs.rdx / 2 & ~7ull;
	ptrace(PTRACE_SETREGS, tid, 0, &regs);
	failing = -1;
}

static void tell(const char *path, const char *what, pid_t tid)
{
	struct user_regs_struct regs = { 0 };
	if (tid)
		ptrace(PTRACE_GETREGS, tid, 0, &regs);
	FILE *file = fopen(path, "w");
	if (!file)
		return;
	fprintf(file, "%ld %s", stops, what);
	if (tid)
		fprintf(file, " call %lld (%llx, %llx, %llx, %llx) = %lld", regs.orig_rax, regs.rdi,
			regs.rsi, regs.rdx, regs.r10, regs.rax);
	fprintf(file, "\n");
	fclose(file);
}

/* Is this thread before its call (true) or behind it? */
static int before_call(pid_t tid)
{
	struct ptrace_syscall_info info = { 0 };
	ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info);
	return info.op == PTRACE_SYSCALL_INFO_ENTRY;
}

/* How often something is asked that has not happened yet says nothing about where we are. */
static int idle(pid_t tid)
{
	struct user_regs_struct regs = { 0 };
	ptrace(PTRACE_GETREGS, tid, 0, &regs);
	if (regs.orig_rax == SYS_close && regs.rdi == COVERAGE_IS_WRITTEN)
		counting = tid;
	if (counting == tid)
		return 1;
	const char *request = getenv("STOPAT_REQUEST");
	if (request)
		return regs.orig_rax != SYS_ptrace || regs.rdi != strtoul(request, NULL, 16);
	return regs.orig_rax == SYS_sched_yield || regs.orig_rax == SYS_clock_nanosleep ||
	       (regs.orig_rax == SYS_waitid && (regs.r10 & WNOHANG));
}

static int error_for(const struct user_regs_struct *regs)
{
	long nr = (long)regs->orig_rax;
	return mode == INTERRUPT ? interruptible(nr) : likely_errno(nr, (int)regs->rdi);
}

/* Each place once. */
static void list_site(uint64_t site, long nr, FILE *to)
{
	static uint64_t seen[1 << 16];
	size_t i = site % (1 << 16);
	while (seen[i] && seen[i] != site)
		i = (i + 1) % (1 << 16);
	if (!seen[i])
		fprintf(to, "%016lx %ld\n", seen[i] = site, nr);
}

/* May the call that this thread stands before fail, and is it one from the place that was asked for, if any was? */
static int chosen(const struct user_regs_struct *regs, pid_t tid, const char *path)
{
	static FILE *list;
	failure = error_for(regs);
	if (!failure || (mode != SITE && mode != SITES))
		return failure;
	uint64_t site = site_of(tid, regs, &text);
	if (mode == SITE)
		return site == wanted;
	if (list || (list = fopen(path, "w")))
		list_site(site, (long)regs->orig_rax, list);
	return 0;
}

static void let_fail(long last, const char *path, pid_t tid)
{
	struct user_regs_struct regs;
	if (mode == SHORTEN) {
		if (!failing && stops >= last && before_call(tid))
			shorten(path, tid);
		return;
	}
	if (failing == tid || (!failing && stops >= last && before_call(tid)))
		ptrace(PTRACE_GETREGS, tid, 0, &regs);
	if (failing == tid) {
		regs.rax = (unsigned long long)-failure;
		failing = -1;
	} else if (!failing && stops >= last && before_call(tid) && chosen(&regs, tid, path)) {
		tell(path, strerror(failure), tid);
		regs.orig_rax = (unsigned long long)-1;
		failing = tid;
	} else {
		return;
	}
	ptrace(PTRACE_SETREGS, tid, 0, &regs);
}

static pid_t start(char **argv)
{
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		raise(SIGSTOP);
		execv(argv[0], argv);
		_exit(127);
	}
	int status;
	waitpid(pid, &status, WUNTRACED);
	long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL | PTRACE_O_TRACEEXEC;
	if (pid < 0 || ptrace(PTRACE_SEIZE, pid, 0, options) < 0)
		exit(126);
	kill(pid, SIGCONT);
	return pid;
}

static void call_others(void)
{
	char *words = getenv("STOPAT_SIGNAL"), *end;
	long pid = words ? strtol(words, &words, 10) : 0;
	if (words && !*words)
		kill((pid_t)pid, SIGUSR1);
	for (long tid; words && (tid = strtol(words, &end, 10)) > 0; words = end)
		syscall(SYS_tgkill, pid, tid, SIGUSR1);
}

int main(int argc, char **argv)
{
	if (argc < 5)
		return 2;
	long last = atol(argv[1]), ms = atol(argv[2]);
	wanted = strtoull(argv[1], NULL, 16);
	mode = !strcmp(argv[2], "fault") ? FAULT : !strcmp(argv[2], "interrupt") ? INTERRUPT :
	       !strcmp(argv[2], "shorten") ? SHORTEN : !strcmp(argv[2], "sites") ? SITES :
	       !strcmp(argv[2], "site") ? SITE : KILL;
	if (mode == SITE)
		last = 0;
	pid_t pid = start(argv + 4);
	int begun = 0, killed = 0;
	for (;;) {
		int status;
		pid_t tid = waitpid(-1, &status, __WALL);
		if (tid < 0)
			return errno == EINTR ? 99 : 98;
		if (!WIFSTOPPED(status)) {
			if (tid != pid)
				continue;
			if (!killed && !failing && mode != SITES)
				tell(argv[3], "ended", 0);
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		}
		int event = status >> 16, number = WSTOPSIG(status), deliver = 0;
		if (event == PTRACE_EVENT_EXEC)
			begun = 1, text = site_text(pid); /* from here on it is the command's own */
		else if (number == (SIGTRAP | 0x80) && begun && idle(tid))
			;
		else if (number == (SIGTRAP | 0x80) && begun && mode != KILL)
			stops++, let_fail(last, argv[3], tid);
		else if (number == (SIGTRAP | 0x80) && begun && ++stops == last) {
			call_others();
			usleep((useconds_t)ms * 1000);
			tell(argv[3], "killed", tid);
			killed = 1;
			kill(pid, SIGKILL);
			continue;
		} else if (!event && number != (SIGTRAP | 0x80))
			deliver = number;
		ptrace(PTRACE_SYSCALL, tid, 0, deliver);
	}
}
