/*
 * Whatever holds the number of a process or thread without the program's doing: it is that of the same process
 * or thread afterwards, though both may have another number (mode renumbered): who owns a descriptor's signals,
 * whom a pending signal came from, groups and parents, timers for a thread, files of /proc, pidfds, calls that
 * wait for a child; and what the C library remembers: mutexes that know their owner, raise(), robust lists.
 */
#include "specimen.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#ifndef SIGEV_THREAD_ID
#define SIGEV_THREAD_ID 4
#endif

static pthread_mutex_t recursive, checking, robust;
static volatile pid_t worker_tid; /* set anew whenever it is asked for */
static volatile int ask, told, ended_with;
static volatile sig_atomic_t timer_hits, raised;
static volatile pid_t hit_in;

static pid_t tid(void)
{
	return (pid_t)syscall(SYS_gettid);
}

static void on_timer(int signo)
{
	(void)signo;
	hit_in = tid();
	timer_hits++;
}

static void on_raise(int signo)
{
	(void)signo;
	raised++;
}

static void make(pthread_mutex_t *mutex, int type, bool is_robust)
{
	pthread_mutexattr_t attributes;
	MUST_ZERO(pthread_mutexattr_init(&attributes));
	MUST_ZERO(pthread_mutexattr_settype(&attributes, type));
	if (is_robust)
		MUST_ZERO(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST));
	MUST_ZERO(pthread_mutex_init(mutex, &attributes));
}

/* Holds a robust mutex; says who it is when asked; ends holding it. */
static void *work(void *arg)
{
	MUST_ZERO(pthread_mutex_lock(&robust));
	told = 1;
	while (ask < 2) {
		if (ask == 1 && told == 1) {
			worker_tid = tid();
			told = 2;
		}
		sleep_ms(1);
	}
	return arg;
}

static void *lock(void *arg)
{
	int error = pthread_mutex_lock(arg);
	if (!error)
		pthread_mutex_unlock(arg);
	return (void *)(intptr_t)error;
}

static void *await_child(void *arg)
{
	int status = 0;
	pid_t got = wait4(*(pid_t *)arg, &status, 0, NULL);
	ended_with = got < 0 ? -errno : status;
	return NULL;
}

/* Answers each byte with its numbers; at the end of file it ends. */
struct numbers {
	pid_t pid, group, parent, session;
};

static void serve(int line)
{
	char byte;
	setpgid(0, 0);
	kill(getppid(), SIGUSR2);
	MUST(write(line, "r", 1));
	while (read(line, &byte, 1) == 1) {
		struct numbers mine = { getpid(), getpgrp(), getppid(), getsid(0) };
		MUST(write(line, &mine, sizeof(mine)));
	}
	_exit(9);
}

static pid_t start_server(int *line)
{
	int ends[2];
	char byte;
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	pid_t pid = MUST(fork());
	if (pid == 0) {
		close(ends[0]);
		serve(ends[1]);
	}
	close(ends[1]);
	MUST(read(ends[0], &byte, 1));
	*line = ends[0];
	return pid;
}

static void check_child(int line, int proc)
{
	struct numbers child = { 0 };
	char text[64] = "", name[32];
	MUST(write(line, "?", 1));
	MUST(read(line, &child, sizeof(child)));
	expect_int("its group", child.pid, child.group);
	expect_int("its parent", getpid(), child.parent);
	expect_int("its session", getsid(0), child.session);
	expect_int("its group, as we see it", child.pid, getpgid(child.pid));
	ssize_t n = pread(proc, text, sizeof(text) - 1, 0);
	expect_int("a file of /proc about it", child.pid, n > 0 ? atoi(text) : -1);
	sigset_t set;
	siginfo_t info = { 0 };
	struct timespec none = { 0 };
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	expect_int("a signal that waits", SIGUSR2, sigtimedwait(&set, &info, &none));
	expect_int("is from it", child.pid, info.si_pid);
	snprintf(name, sizeof(name), "/proc/%d", child.pid);
	expect_int("it is there", 0, access(name, F_OK));
}

static timer_t start_timer(pid_t whom)
{
	timer_t timer;
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN };
	event._sigev_un._tid = whom;
	MUST(timer_create(CLOCK_MONOTONIC, &event, &timer));
	struct itimerspec spec = { { 0, 5000000 }, { 0, 5000000 } };
	MUST(timer_settime(timer, 0, &spec, NULL));
	return timer;
}

static void check_worker(int owned)
{
	struct f_owner_ex owner = { 0 };
	ask = 1;
	while (told != 2)
		sleep_ms(1);
	MUST(fcntl(owned, F_GETOWN_EX, &owner));
	expect_int("the descriptor's signals go to a thread", F_OWNER_TID, owner.type);
	expect_int("and which", worker_tid, owner.pid);
	int hits = timer_hits;
	for (int i = 0; timer_hits < hits + 2 && i < 1000; i++)
		sleep_ms(1);
	expect_int("the timer goes on", 1, timer_hits >= hits + 2);
	expect_int("in its thread", worker_tid, hit_in);
}

static void check_library(pthread_t worker, pthread_t waits[2])
{
	void *result = NULL;
	expect_int("a recursive mutex is ours", 0, pthread_mutex_lock(&recursive));
	expect_int("and can be given back", 0, pthread_mutex_unlock(&recursive));
	expect_int("as often as it was taken", 0, pthread_mutex_unlock(&recursive));
	expect_int("the checking one knows that it is ours", EDEADLK, pthread_mutex_lock(&checking));
	expect_int("and can be given back", 0, pthread_mutex_unlock(&checking));
	for (int i = 0; i < 2; i++) {
		MUST_ZERO(pthread_join(waits[i], &result));
		expect_int("who waited got it", 0, (intptr_t)result);
	}
	raised = 0;
	raise(SIGUSR1);
	expect_int("raise", 1, raised);
	expect_int("a thread can be signalled", 0, pthread_kill(worker, 0));
	ask = 2;
	MUST_ZERO(pthread_join(worker, NULL));
	expect_int("the robust mutex of one that ended", EOWNERDEAD, pthread_mutex_lock(&robust));
	pthread_mutex_consistent(&robust);
	expect_int("can be given back", 0, pthread_mutex_unlock(&robust));
}

int main(void)
{
	struct sigaction timed = { .sa_handler = on_timer, .sa_flags = SA_RESTART };
	struct sigaction on = { .sa_handler = on_raise };
	sigset_t set;
	MUST(sigaction(SIGRTMIN, &timed, NULL));
	MUST(sigaction(SIGUSR1, &on, NULL));
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL));
	while (specimen_round()) {
		int line, owned[2];
		pthread_t worker, waits[2], awaiting;
		ask = told = 0;
		pid_t child = start_server(&line);
		char path[32];
		snprintf(path, sizeof(path), "/proc/%d/stat", child);
		int proc = MUST(open(path, O_RDONLY | O_CLOEXEC));
		make(&recursive, PTHREAD_MUTEX_RECURSIVE, false);
		make(&checking, PTHREAD_MUTEX_ERRORCHECK, false);
		make(&robust, PTHREAD_MUTEX_NORMAL, true);
		MUST_ZERO(pthread_mutex_lock(&recursive));
		MUST_ZERO(pthread_mutex_lock(&checking));
		MUST_ZERO(pthread_create(&worker, NULL, work, NULL));
		while (!told)
			sleep_ms(1);
		waits[0] = start_blocked(lock, &recursive);
		waits[1] = start_blocked(lock, &checking);
		awaiting = start_blocked(await_child, &child);
		ask = 1;
		while (told != 2)
			sleep_ms(1);
		told = 1, ask = 0;
		MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, owned));
		struct f_owner_ex owner = { F_OWNER_TID, worker_tid };
		MUST(fcntl(owned[0], F_SETOWN_EX, &owner));
		timer_t timer = start_timer(worker_tid);
		specimen_ready();
		check_child(line, proc);
		check_worker(owned[0]);
		MUST(timer_delete(timer));
		check_library(worker, waits);
		close(line);
		MUST_ZERO(pthread_join(awaiting, NULL));
		expect_int("who waits for the child sees it end", 9 << 8, ended_with);
		close(proc);
		close(owned[0]);
		close(owned[1]);
	}
	return specimen_end();
}
