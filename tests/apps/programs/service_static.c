/*
 * A service in one static binary, built with musl: an epoll loop on a listening
 * socket, clients, a timer and a signal descriptor. Answers "count" with the
 * requests and ticks so far; SIGTERM ends it with 6.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

static int epoll, listener, timer, signals;
static unsigned long requests, ticks;

static void watch(int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
	if (fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		exit(99);
}

static void set_up(int port)
{
	epoll = epoll_create1(EPOLL_CLOEXEC);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int one = 1;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(listener, 16) < 0)
		exit(99);
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	struct itimerspec period = { { 0, 20000000 }, { 0, 20000000 } };
	timerfd_settime(timer, 0, &period, NULL);
	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signals = signalfd(-1, &mask, SFD_CLOEXEC);
	watch(listener);
	watch(timer);
	watch(signals);
	close(open("ready", O_WRONLY | O_CREAT, 0644));
}

static void answer(int client)
{
	char buf[256];
	ssize_t n = read(client, buf, sizeof(buf));
	if (n <= 0) {
		close(client);
		return;
	}
	requests++;
	int used = snprintf(buf, sizeof(buf), "%lu %lu\n", requests, ticks);
	if (send(client, buf, (size_t)used, MSG_NOSIGNAL) < 0)
		close(client);
}

int main(int argc, char **argv)
{
	set_up(argc > 1 ? atoi(argv[1]) : 7071);
	for (;;) {
		struct epoll_event event;
		if (epoll_wait(epoll, &event, 1, -1) != 1)
			return 98; /* nothing here asks for EINTR */
		int fd = event.data.fd;
		uint64_t count;
		if (fd == signals)
			return 6;
		if (fd == listener)
			watch(accept(listener, NULL, NULL));
		else if (fd == timer)
			ticks += read(timer, &count, 8) == 8 ? count : 0;
		else
			answer(fd);
	}
}
