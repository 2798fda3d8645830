/*
 * Unix socket pairs of all three types, with messages queued in both directions:
 * they arrive in order, with their boundaries, once; the pair goes on working,
 * and a direction that was shut down stays so.
 *
 * harness: musl
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/socket.h>

enum { MESSAGES = 5, SIZE = 3000 };

static size_t size_of(int message)
{
	return (size_t)message * 700 + 1;
}

static void send_all(int fd, uint64_t seed)
{
	char buf[SIZE];
	for (int i = 0; i < MESSAGES; i++) {
		pattern_fill(buf, size_of(i), seed + (uint64_t)i);
		MUST(send(fd, buf, size_of(i), 0));
	}
}

static void receive_all(const char *what, int fd, uint64_t seed, bool stream)
{
	char buf[SIZE + 100];
	for (int i = 0; i < MESSAGES; i++) {
		/* A message ends by itself; of a stream ask for as much as was written. */
		ssize_t n = recv(fd, buf, stream ? size_of(i) : sizeof(buf),
				 stream ? MSG_WAITALL | MSG_DONTWAIT : MSG_DONTWAIT);
		if (!expect_int(what, (long)size_of(i), n))
			return;
		expect_pattern(what, buf, size_of(i), seed + (uint64_t)i);
	}
	expect_errno("and no more", EAGAIN, recv(fd, buf, 1, MSG_DONTWAIT));
}

static void check(const char *what, int ends[2], int type)
{
	bool stream = type == SOCK_STREAM;
	receive_all(what, ends[0], 20, stream);
	receive_all(what, ends[1], 10, stream);
	char buf[8] = "";
	expect_int("still connected", 4, send(ends[0], "ping", 4, 0));
	expect_int("still connected", 4, recv(ends[1], buf, sizeof(buf), MSG_DONTWAIT));
	expect_text("still connected", "ping", buf);
	int value = 0;
	socklen_t length = sizeof(value);
	MUST(getsockopt(ends[0], SOL_SOCKET, SO_TYPE, &value, &length));
	expect_int("SO_TYPE", type, value);
	MUST(getsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &value, &length));
	expect_int("SO_SNDBUF", 120000, value);
	MUST(getsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &value, &length));
	expect_int("SO_PASSCRED", 1, value);
}

int main(void)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
	static const char *const names[] = { "stream", "dgram", "seqpacket" };
	int pairs[3][2], half[2], closed[2], size = 60000, one = 1;
	for (int i = 0; i < 3; i++) {
		MUST(socketpair(AF_UNIX, types[i] | (i == 1 ? SOCK_NONBLOCK : 0), 0, pairs[i]));
		MUST(setsockopt(pairs[i][0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)));
		MUST(setsockopt(pairs[i][1], SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)));
	}
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, half));
	MUST(shutdown(half[0], SHUT_WR));
	while (specimen_round()) {
		for (int i = 0; i < 3; i++) {
			send_all(pairs[i][0], 10);
			send_all(pairs[i][1], 20);
		}
		MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, closed));
		MUST(write(closed[1], "bye", 3));
		MUST(close(closed[1]));
		specimen_ready();
		for (int i = 0; i < 3; i++)
			check(names[i], pairs[i], types[i]);
		expect_int("O_NONBLOCK", O_NONBLOCK, fcntl(pairs[1][0], F_GETFL) & O_NONBLOCK);
		char buf[8] = "";
		expect_int("end of the direction shut down", 0,
			   recv(half[1], buf, 1, MSG_DONTWAIT));
		expect_errno("writing to it", EPIPE, send(half[0], "x", 1, MSG_NOSIGNAL));
		expect_int("the other direction", 1, send(half[1], "y", 1, MSG_NOSIGNAL));
		expect_int("the other direction", 1, recv(half[0], buf, 1, MSG_DONTWAIT));
		expect_int("last words of a closed end", 3, recv(closed[0], buf, 8, MSG_DONTWAIT));
		expect_int("then end of file", 0, recv(closed[0], buf, 8, MSG_DONTWAIT));
		close(closed[0]);
	}
	return specimen_end();
}
