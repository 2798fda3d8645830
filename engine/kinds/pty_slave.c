/*
 * pty_slave.c - the other side of a pseudo-terminal, opened as the program had it: by its name, as /dev/tty, or
 * hung up.
 */
#include "engine/kinds/pty.h"

#include <asm/ioctls.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "store/scope.h"

#define LARGE_FILE 0100000u /* the kernel's O_LARGEFILE; libc says 0 */

int pty_peer(int master, unsigned flags)
{
	/* O_CLOEXEC stays among the flags of the open file, if it was there. */
	int fd = ioctl(master, TIOCGPTPEER, (int)(flags | O_NOCTTY));
	if (fd >= 0)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fd;
}

/* By name, as programs do; what TIOCGPTPEER gives has other flags (no O_LARGEFILE, but O_CLOEXEC). */
int pty_open_slave(int master, unsigned flags)
{
	if (!(flags & LARGE_FILE))
		return pty_peer(master, flags & (O_ACCMODE | O_NONBLOCK | O_CLOEXEC));
	unsigned index;
	char path[64];
	struct stat node;
	cleanup_fd int peer = pty_peer(master, O_RDWR);
	if (peer < 0 || fstat(peer, &node) < 0 || ioctl(master, TIOCGPTN, &index) < 0)
		return -1;
	snprintf(path, sizeof(path), "/dev/pts/%u", index);
	cleanup_fd int fd = open(path, (int)(flags & (O_ACCMODE | O_NONBLOCK)) | O_NOCTTY | O_CLOEXEC);
	struct stat found;
	if (fd >= 0 && fstat(fd, &found) == 0 && found.st_ino == node.st_ino && found.st_dev == node.st_dev)
		return steal_fd(&fd);
	return pty_peer(master, flags & (O_ACCMODE | O_NONBLOCK));
}

/* --- /dev/tty: only who has the terminal can open it under this name -------------- */

struct borrower {
	int master;
	int flags;
	int fd;
};

/* Shares our memory and descriptors, and has a session of its own, which ends with it; what it opens
 * stays. It calls nothing but the kernel. */
static int open_controlling(void *arg)
{
	struct borrower *borrower = arg;
	syscall(SYS_setsid);
	int peer = (int)syscall(SYS_ioctl, borrower->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (peer >= 0 && syscall(SYS_ioctl, peer, TIOCSCTTY, 0) == 0)
		borrower->fd = (int)syscall(SYS_openat, AT_FDCWD, "/dev/tty", borrower->flags | O_CLOEXEC);
	syscall(SYS_close, peer);
	syscall(SYS_exit, 0);
	return 0;
}

int pty_open_controlling(int master, unsigned flags)
{
	enum { STACK = 65536 };
	struct borrower borrower = {master, (int)(flags & (O_ACCMODE | O_NONBLOCK)), -1};
	cleanup_free char *stack = malloc(STACK);
	if (!stack)
		return -1;
	pid_t child = clone(open_controlling, stack + STACK, CLONE_VM | CLONE_FILES | CLONE_VFORK, &borrower);
	if (child > 0)
		syscall(SYS_wait4, child, NULL, 0x40000000 /* __WALL */, NULL);
	return borrower.fd;
}

/* --- hung up: its master is gone ------------------------------------------------- */

int pty_open_hung_up(unsigned flags)
{
	cleanup_fd int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	int unlocked = 0;
	if (master < 0 || ioctl(master, TIOCSPTLCK, &unlocked) < 0)
		return -1;
	return pty_open_slave(master, flags);
}
