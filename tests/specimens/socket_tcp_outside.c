/*
 * A TCP connection to somebody outside the tree. While the tree runs on, it
 * lives, and bytes that were under way arrive. After death and restore it
 * fails at once, as a connection does whose peer has gone: a read and a write
 * end with an error or end of file; nobody waits for ever.
 */
#include "specimen.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

static struct sockaddr_in address = { .sin_family = AF_INET };
static int listener;

/* Sends a greeting to everyone who comes, then echoes. Its parent dies: it is not of our tree. */
static _Noreturn void serve(void)
{
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN);
	setsid();
	for (;;) {
		int client = accept(listener, NULL, NULL);
		if (client < 0)
			_exit(0);
		if (fork() == 0) {
			char buf[64];
			write(client, "welcome", 7);
			for (ssize_t n; (n = read(client, buf, sizeof(buf))) > 0;)
				write(client, buf, (size_t)n);
			_exit(0);
		}
		close(client);
	}
}

static void start_outside(void)
{
	listener = MUST(socket(AF_INET, SOCK_STREAM, 0));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	MUST(bind(listener, (struct sockaddr *)&address, sizeof(address)));
	MUST(listen(listener, 5));
	socklen_t length = sizeof(address);
	MUST(getsockname(listener, (struct sockaddr *)&address, &length));
	pid_t middle = MUST(fork());
	if (middle == 0) {
		if (fork() == 0)
			serve();
		_exit(0);
	}
	MUST(waitpid(middle, NULL, 0));
	close(listener);
}

static int connected(void)
{
	int fd = MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(connect(fd, (struct sockaddr *)&address, sizeof(address)));
	struct pollfd p = { .fd = fd, .events = POLLIN };
	MUST(poll(&p, 1, 3000)); /* the greeting waits to be read */
	return fd;
}

static void expect_alive(int fd)
{
	char buf[64] = "";
	expect_int("bytes under way", 7, read(fd, buf, sizeof(buf)));
	expect_text("the greeting", "welcome", buf);
	expect_int("writing", 4, write(fd, "ping", 4));
	struct pollfd p = { .fd = fd, .events = POLLIN };
	expect_int("an answer comes", 1, poll(&p, 1, 3000));
	memset(buf, 0, sizeof(buf));
	expect_int("bytes of the answer", 4, read(fd, buf, sizeof(buf)));
	expect_text("the answer", "ping", buf);
}

static void expect_dead(int fd)
{
	char buf[64];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	if (!expect_int("poll reports at once", 1, poll(&p, 1, 2000)))
		return;
	ssize_t n;
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		; /* what had arrived before may still be read */
	expect_int("then error or end of file", 1, n == 0 || errno == ECONNRESET || errno == EPIPE);
	ssize_t first = write(fd, "x", 1);
	sleep_ms(20);
	ssize_t second = write(fd, "x", 1);
	expect_int("and writing fails", 1, first < 0 || second < 0);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	start_outside();
	while (specimen_round()) {
		int fd = connected();
		specimen_ready();
		specimen_dies() ? expect_dead(fd) : expect_alive(fd);
		int again = connected();
		expect_alive(again);
		close(again);
		close(fd);
	}
	return specimen_end();
}
