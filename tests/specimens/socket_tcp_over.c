/*
 * TCP sockets whose connection is over before the dump, by a reset or because
 * nobody listened, over IPv4 and IPv6: what had arrived is read first, the error
 * is told behind it and once, then the stream is at its end. Who was refused may
 * try again with the same socket.
 */
#include "specimen.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

enum { WORDS = 3000, LONG = 150000 };

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

struct place {
	int fd;
	union address name;
	socklen_t size;
};

/* With a port of its own; does not listen yet. */
static struct place place(int family)
{
	struct place place = { .fd = MUST(socket(family, SOCK_STREAM, 0)) };
	place.size = family == AF_INET ? sizeof(place.name.v4) : sizeof(place.name.v6);
	if (family == AF_INET)
		place.name.v4 = (struct sockaddr_in){ .sin_family = AF_INET,
						      .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	else
		place.name.v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
	MUST(bind(place.fd, &place.name.any, place.size));
	MUST(getsockname(place.fd, &place.name.any, &place.size));
	return place;
}

static void await_hangup(int fd)
{
	struct pollfd event = { .fd = fd };
	if (poll(&event, 1, 5000) != 1 || !(event.revents & POLLHUP))
		specimen_broken(__FILE__, __LINE__, "not over", event.revents);
}

/* One of which the other end has sent `size` bytes, and then reset it. */
static int was_reset(int family, size_t size)
{
	static char bytes[LONG];
	struct linger now = { .l_onoff = 1 };
	struct place server = place(family);
	int room = 4 * LONG, fd = MUST(socket(family, SOCK_STREAM, 0));
	MUST(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)));
	MUST(listen(server.fd, 1));
	MUST(connect(fd, &server.name.any, server.size));
	int other = MUST(accept(server.fd, NULL, NULL));
	MUST(setsockopt(other, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)));
	MUST(setsockopt(other, SOL_SOCKET, SO_LINGER, &now, sizeof(now)));
	pattern_fill(bytes, size, size);
	for (size_t sent = 0; sent < size;)
		sent += (size_t)MUST(send(other, bytes + sent, size - sent, 0));
	for (ssize_t seen = 0; seen < (ssize_t)size; sleep_ms(1))
		if ((seen = recv(fd, bytes, size, MSG_PEEK | MSG_DONTWAIT)) < 0 && errno != EAGAIN)
			specimen_broken(__FILE__, __LINE__, "peek", errno);
	MUST(close(other));
	MUST(close(server.fd));
	await_hangup(fd);
	return fd;
}

static void expect_reset(const char *what, int fd, size_t size)
{
	static char bytes[LONG];
	struct pollfd event = { .fd = fd, .events = POLLIN | POLLRDHUP };
	expect_int(what, 1, poll(&event, 1, 0));
	expect_int(what, POLLIN | POLLRDHUP | POLLHUP | POLLERR, event.revents);
	if (size && expect_int(what, (long long)size, recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)))
		expect_pattern(what, bytes, size, size);
	expect_errno(what, ECONNRESET, recv(fd, bytes, 1, MSG_DONTWAIT));
	expect_int(what, 0, recv(fd, bytes, 1, MSG_DONTWAIT));
	MUST(close(fd));
}

struct refused {
	struct place nobody;
	int fd;
};

static struct refused was_refused(int family, bool told)
{
	struct refused r = { .nobody = place(family), .fd = MUST(socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0)) };
	if (connect(r.fd, &r.nobody.name.any, r.nobody.size) == 0 || errno != EINPROGRESS)
		specimen_broken(__FILE__, __LINE__, "connect", errno);
	await_hangup(r.fd);
	int error = 0;
	socklen_t size = sizeof(error);
	if (told)
		MUST(getsockopt(r.fd, SOL_SOCKET, SO_ERROR, &error, &size));
	return r;
}

static int connect_to(const struct refused *r)
{
	return connect(r->fd, &r->nobody.name.any, r->nobody.size);
}

static void expect_refused(const char *what, struct refused *r, bool told)
{
	for (int i = 0; i < 2; i++) {
		int error = -1;
		socklen_t size = sizeof(error);
		MUST(getsockopt(r->fd, SOL_SOCKET, SO_ERROR, &error, &size));
		expect_int(what, told || i ? 0 : ECONNREFUSED, error);
	}
	MUST(listen(r->nobody.fd, 1));
	expect_errno(what, ECONNABORTED, connect_to(r)); /* as one that was tried before */
	expect_errno(what, EINPROGRESS, connect_to(r));
	struct pollfd event = { .fd = r->fd, .events = POLLOUT };
	expect_int("it tries again", 1, poll(&event, 1, 5000));
	expect_int("with success", POLLOUT, event.revents);
	MUST(close(r->fd));
	MUST(close(r->nobody.fd));
}

int main(void)
{
	static const int families[] = { AF_INET, AF_INET6 };
	while (specimen_round()) {
		struct refused refused[2], told[2];
		int words[2], none[2], much = was_reset(AF_INET, LONG);
		for (int i = 0; i < 2; i++) {
			words[i] = was_reset(families[i], WORDS);
			none[i] = was_reset(families[i], 0);
			refused[i] = was_refused(families[i], false);
			told[i] = was_refused(families[i], true);
		}
		specimen_ready();
		expect_reset("much, then a reset", much, LONG);
		for (int i = 0; i < 2; i++) {
			expect_reset("words, then a reset", words[i], WORDS);
			expect_reset("a reset", none[i], 0);
			expect_refused("refused", &refused[i], false);
			expect_refused("refused, and told so", &told[i], true);
		}
	}
	return specimen_end();
}
