/*
 * A TCP connection whose two ends are both in the tree lives on, with what was
 * under way, and the server accepts a new one. (socket_tcp_states has the rest.)
 */
#include "specimen.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

static struct sockaddr_in address = { .sin_family = AF_INET };

static void connect_pair(int listener, int ends[2])
{
	ends[0] = MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(connect(ends[0], (struct sockaddr *)&address, sizeof(address)));
	ends[1] = MUST(accept(listener, NULL, NULL));
}

/* 1: the bytes came. 0: it is over. -1: nothing happens, or other bytes. */
static int outcome(int fd, const char *expected)
{
	char buf[64] = "";
	struct pollfd p = { .fd = fd, .events = POLLIN };
	if (poll(&p, 1, 2000) != 1)
		return -1;
	ssize_t n = read(fd, buf, sizeof(buf));
	if (n <= 0)
		return 0;
	return strcmp(buf, expected) == 0 ? 1 : -1;
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	int listener = MUST(socket(AF_INET, SOCK_STREAM, 0)), ends[2];
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	MUST(bind(listener, (struct sockaddr *)&address, sizeof(address)));
	MUST(listen(listener, 5));
	socklen_t length = sizeof(address);
	MUST(getsockname(listener, (struct sockaddr *)&address, &length));

	while (specimen_round()) {
		connect_pair(listener, ends);
		MUST(write(ends[0], "to the server", 13));
		MUST(write(ends[1], "to the client", 13));
		specimen_ready();
		expect_int("what the server reads", 1, outcome(ends[1], "to the server"));
		expect_int("what the client reads", 1, outcome(ends[0], "to the client"));
		close(ends[0]);
		close(ends[1]);
		connect_pair(listener, ends);
		MUST(write(ends[0], "again", 5));
		expect_int("a new connection", 1, outcome(ends[1], "again"));
		close(ends[0]);
		close(ends[1]);
	}
	return specimen_end();
}
