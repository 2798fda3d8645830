/*
 * sender KIND: has sent something through a Unix socket that fsnap cannot put into a message again, and has not
 * received it yet (holder.h).
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "holder.h"

/* Then it is under way in a Unix socket, and nowhere else. */
static void send_away(int fd)
{
	int ends[2];
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec part = { (char *)"x", 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	*CMSG_FIRSTHDR(&message) = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
						     .cmsg_type = SCM_RIGHTS };
	memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), &fd, sizeof(fd));
	keep(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	keep((int)sendmsg(ends[0], &message, 0));
	close(fd);
}

static void send_userfaultfd(void)
{
	send_away(keep((int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
}

static void send_epoll(void)
{
	sigset_t usr2;
	struct epoll_event event = { .events = EPOLLIN };
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	int epoll = keep(epoll_create1(0));
	keep(epoll_ctl(epoll, EPOLL_CTL_ADD, keep(signalfd(-1, &usr2, 0)), &event));
	send_away(epoll);
}

static const struct holding kinds[] = { { "userfaultfd", send_userfaultfd }, { "epoll", send_epoll } };

int main(int argc, char **argv)
{
	return hold(kinds, sizeof(kinds) / sizeof(kinds[0]), argc > 1 ? argv[1] : "");
}
