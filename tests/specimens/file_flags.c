/*
 * Every flag that fcntl(F_GETFL) tells of an open file, O_PATH on files,
 * directories and symbolic links, the expected lifetime of data, and who gets
 * which signal: a process, a thread, a group, nobody.
 */
#include "specimen.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { PLAIN = 8, SPECIAL = 5, FILES = PLAIN + SPECIAL };

static int fds[FILES], flags[FILES];

static volatile int seen_fd = -1, seen_tid;

static void on_signal(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)context;
	seen_fd = info->si_fd;
	seen_tid = (int)syscall(SYS_gettid);
}

static void *idle(void *tid)
{
	*(volatile pid_t *)tid = (pid_t)syscall(SYS_gettid);
	for (;;)
		pause();
	return NULL;
}

static void expect_owner(int fd, int type, pid_t pid, int signo)
{
	struct f_owner_ex owner = { -1, -1 };
	expect_ok("owner", fcntl(fd, F_GETOWN_EX, &owner));
	expect_int("its sort", type, owner.type);
	expect_int("its number", pid, owner.pid);
	expect_int("signal", signo, fcntl(fd, F_GETSIG));
}

static void open_all(void)
{
	static const int how[PLAIN] = {
		O_RDONLY, O_WRONLY | O_APPEND, O_RDWR | O_SYNC, O_RDWR | O_DSYNC, O_RDONLY | O_NOATIME,
		O_RDONLY | O_NONBLOCK | O_NOFOLLOW, O_RDWR | O_DIRECT, O_PATH,
	};
	char *path = specimen_path("file"), *link = specimen_path("link"), *fifo = specimen_path("fifo");
	close(MUST(open(path, O_RDWR | O_CREAT, 0600)));
	MUST(symlink("file", link));
	MUST(mkfifo(fifo, 0600));
	for (int i = 0; i < PLAIN; i++) {
		fds[i] = open(path, how[i]);
		if (fds[i] < 0 && errno == EINVAL) /* tmpfs of older kernels has no O_DIRECT */
			fds[i] = MUST(open(path, how[i] & ~O_DIRECT));
		MUST(fds[i]);
	}
	fds[PLAIN] = MUST(open(link, O_PATH | O_NOFOLLOW));
	fds[PLAIN + 1] = MUST(open(link, O_PATH));
	fds[PLAIN + 2] = MUST(open(specimen_path("dir"), O_PATH | O_DIRECTORY));
	fds[PLAIN + 3] = MUST(open(fifo, O_PATH));
	fds[PLAIN + 4] = MUST(open("/dev/null", O_PATH));
}

int main(void)
{
	char target[64];
	volatile pid_t tid = 0;
	pthread_t thread;
	struct stat before[FILES], after;
	open_all();
	MUST_ZERO(pthread_create(&thread, NULL, idle, (void *)&tid));
	while (!tid)
		sleep_ms(1);
	MUST_ZERO(pthread_kill(thread, 0));
	for (int i = 0; i < FILES; i++) {
		flags[i] = MUST(fcntl(fds[i], F_GETFL));
		MUST(fstat(fds[i], &before[i]));
	}
	uint64_t hint = 5 /* RWH_WRITE_LIFE_EXTREME */, now = 0;
	bool hinted = fcntl(fds[2], F_SET_RW_HINT, &hint) == 0;
	struct f_owner_ex by_thread = { F_OWNER_TID, tid };
	int pair[2], mute[2];
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, mute));
	MUST(fcntl(fds[0], F_SETOWN, getpid()));
	MUST(fcntl(fds[1], F_SETOWN, -getpgrp()));
	MUST(fcntl(fds[1], F_SETSIG, SIGRTMIN + 2));
	MUST(fcntl(fds[2], F_SETSIG, SIGRTMIN + 3)); /* nobody's yet */
	MUST(fcntl(mute[0], F_SETOWN_EX, &by_thread));
	MUST(fcntl(pair[0], F_SETOWN_EX, &by_thread));
	MUST(fcntl(pair[0], F_SETSIG, SIGRTMIN + 4));
	MUST(fcntl(pair[0], F_SETFL, O_RDWR | O_ASYNC));
	int async = MUST(fcntl(pair[0], F_GETFL));
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART };
	MUST(sigaction(SIGRTMIN + 4, &action, NULL));

	while (specimen_round()) {
		specimen_ready();
		for (int i = 0; i < FILES; i++) {
			expect_hex("flags", (unsigned)flags[i], (unsigned)fcntl(fds[i], F_GETFL));
			expect_ok("fstat", fstat(fds[i], &after));
			expect_int("inode", (long)before[i].st_ino, (long)after.st_ino);
			expect_hex("mode", before[i].st_mode, after.st_mode);
		}
		memset(target, 0, sizeof(target));
		expect_int("readlink of the link itself", 4, readlinkat(fds[PLAIN], "", target, sizeof(target)));
		expect_text("where it leads", "file", target);
		if (hinted) {
			expect_ok("F_GET_RW_HINT", fcntl(fds[2], F_GET_RW_HINT, &now));
			expect_int("expected lifetime", 5, (long)now);
		}
		expect_owner(fds[0], F_OWNER_PID, getpid(), 0);
		expect_owner(fds[1], F_OWNER_PGRP, getpgrp(), SIGRTMIN + 2);
		expect_int("signal of nobody", SIGRTMIN + 3, fcntl(fds[2], F_GETSIG));
		expect_owner(mute[0], F_OWNER_TID, tid, 0);
		expect_owner(pair[0], F_OWNER_TID, tid, SIGRTMIN + 4);
		expect_hex("O_ASYNC", (unsigned)async, (unsigned)fcntl(pair[0], F_GETFL));
		seen_fd = -1;
		expect_int("send", 1, write(pair[1], "x", 1));
		for (int i = 0; i < 200 && seen_fd < 0; i++)
			sleep_ms(5);
		expect_int("the signal tells the descriptor", pair[0], seen_fd);
		expect_int("and came to the thread", tid, seen_tid);
		expect_int("receive", 1, read(pair[0], target, 1));
	}
	return specimen_end();
}
