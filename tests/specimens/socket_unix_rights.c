/*
 * Descriptors under way in Unix sockets (SCM_RIGHTS): one that the specimen has
 * itself, one that only the message holds, a socket in whose queue lies another
 * descriptor, and the receiver in its own queue. They arrive with their message,
 * in order, as the same open files. A byte of MSG_OOB keeps its place. An epoll
 * instance under way watches what the specimen has and what is under way itself,
 * as one that the specimen has watches what is under way.
 */
#include "specimen.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static void send_with(int to, const char *text, unsigned n, const int *fds)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))] = { 0 };
	struct iovec part = { (char *)text, strlen(text) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = CMSG_SPACE(n * sizeof(int)) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_len = CMSG_LEN(n * sizeof(int));
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	memcpy(CMSG_DATA(header), fds, n * sizeof(int));
	MUST(sendmsg(to, &message, 0));
}

/* Expects a message of this text with n descriptors; a stream is read up to its length. */
static void expect_message(int from, const char *text, int n, int *fds)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))];
	char buffer[64] = "";
	struct iovec part = { buffer, strlen(text) };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	int seen = 0;
	expect_int("bytes", (long)strlen(text), recvmsg(from, &message, MSG_DONTWAIT));
	expect_text("text", text, buffer);
	for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at))
		if (at->cmsg_type == SCM_RIGHTS) {
			seen = (int)((at->cmsg_len - CMSG_LEN(0)) / sizeof(int));
			memcpy(fds, CMSG_DATA(at), (size_t)seen * sizeof(int));
		}
	expect_int("descriptors", n, seen);
}

static void expect_same(const char *what, int a, int b)
{
	expect_int(what, 0, syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, a, b));
}

static void watch(int epoll, int fd, uint64_t data)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = data };
	MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}

static void expect_told(const char *what, int epoll, uint64_t data)
{
	struct epoll_event told[4] = { 0 };
	expect_int(what, 1, epoll_wait(epoll, told, 4, 0));
	expect_int("its data", (long)data, (long)told[0].data.u64);
}

/* Returns an instance that stays with us; the first of the message is another, which watches both others. */
static int send_epolls(int to, int ours)
{
	int ready = MUST(eventfd(1, 0)), ends[2];
	int under_way = MUST(epoll_create1(0)), here = MUST(epoll_create1(0));
	MUST(pipe(ends));
	watch(under_way, ours, 11);
	watch(under_way, ends[0], 12);
	watch(here, ready, 13);
	send_with(to, "epoll", 4, (int[]){ under_way, ready, ends[0], ends[1] });
	close(under_way);
	close(ready);
	close(ends[0]);
	close(ends[1]);
	return here;
}

static void expect_epolls(int from, int here, int ours)
{
	uint64_t count = 1;
	struct epoll_event event;
	int got[4];
	expect_told("what is under way is ready", here, 13);
	expect_message(from, "epoll", 4, got);
	expect_int("nothing is ready yet", 0, epoll_wait(got[0], &event, 1, 0));
	MUST(write(ours, &count, 8));
	expect_told("what was open is ready", got[0], 11);
	MUST(read(ours, &count, 8));
	MUST(write(got[3], "x", 1));
	expect_told("what was under way is ready", got[0], 12);
	expect_int("it counts", 8, read(got[1], &count, 8));
	expect_int("and no more", 0, epoll_wait(here, &event, 1, 0));
	close(here);
	for (int i = 0; i < 4; i++)
		close(got[i]);
}

int main(void)
{
	int stream[2], packets[2];
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, stream));
	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets));
	int known = MUST(eventfd(5, EFD_NONBLOCK)), watched = MUST(eventfd(0, 0));
	while (specimen_round()) {
		int ends[2], inner[2], file, got[8] = { 0 };
		uint64_t five = 5;
		char text[16] = "";
		MUST(pipe(ends));
		MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, inner));
		file = MUST(open(specimen_path("under-way"), O_RDWR | O_CREAT | O_TRUNC, 0600));
		MUST(write(file, "0123456789", 10));
		MUST(lseek(file, 4, SEEK_SET));
		MUST(write(known, &five, 8));

		MUST(send(stream[0], "before", 6, 0));
		send_with(stream[0], "with", 2, (int[]){ known, ends[0] });
		MUST(send(stream[0], "after", 5, 0));
		MUST(write(ends[1], "in the pipe", 11));
		close(ends[0]); /* only the message has it now */
		close(ends[1]);
		send_with(inner[0], "file", 1, &file);
		close(file);
		unlink(specimen_path("under-way"));
		send_with(packets[0], "circle", 1, &packets[1]);
		send_with(packets[0], "nested", 2, inner);
		close(inner[0]);
		close(inner[1]);
		int epoll = send_epolls(packets[0], watched);
		bool urgent = send(stream[1], "abc", 3, 0) == 3 && send(stream[1], "!", 1, MSG_OOB) == 1;
		MUST(send(stream[1], "def", 3, 0));
		specimen_ready();

		expect_message(stream[1], "before", 0, got);
		expect_message(stream[1], "with", 2, got);
		expect_same("an open file of ours", known, got[0]);
		expect_int("what the eventfd counts", 8, read(got[0], &five, 8));
		expect_int("the pipe", 11, read(got[1], text, 15));
		expect_text("the pipe's content", "in the pipe", text);
		expect_int("and its end", 0, read(got[1], text, 15));
		close(got[0]);
		close(got[1]);
		expect_message(stream[1], "after", 0, got);

		expect_message(packets[1], "circle", 1, got);
		expect_same("the receiver itself", packets[1], got[0]);
		close(got[0]);
		expect_message(packets[1], "nested", 2, got);
		expect_message(got[1], "file", 1, got + 2);
		memset(text, 0, sizeof(text));
		expect_int("the deleted file, from where it stood", 6, read(got[2], text, 15));
		expect_text("its content", "456789", text);
		expect_int("the nested pair", 5, send(got[0], "alive", 5, MSG_DONTWAIT));
		expect_message(got[1], "alive", 0, got + 3);
		for (int i = 0; i < 3; i++)
			close(got[i]);
		expect_epolls(packets[1], epoll, watched);

		int mark = 0;
		char byte = 0;
		expect_message(stream[0], "abc", 0, got);
		ioctl(stream[0], SIOCATMARK, &mark);
		expect_int("the mark", urgent, mark);
		expect_int("the urgent byte", urgent ? 1 : -1, recv(stream[0], &byte, 1, MSG_OOB | MSG_DONTWAIT));
		expect_int("is", urgent ? '!' : 0, byte);
		expect_message(stream[0], "def", 0, got);
	}
	return specimen_end();
}
