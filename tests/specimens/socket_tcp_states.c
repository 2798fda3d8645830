/*
 * TCP connections whose two ends are both in the tree, in every state in which a
 * program can hold one, over IPv4, IPv6 and IPv6 sockets with IPv4 addresses: the
 * state, the names of both ends, every byte under way in either direction, which
 * direction has been closed, and that what is open goes on.
 *
 * The states in between are made to last by windows that are full: what cannot be
 * sent keeps the FIN behind it from being sent, too.
 */
#include "specimen.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

enum { V4, V6, MAPPED, FAMILIES };
enum { SMALL = 3000 };

/* What each of the two ends, 0 and 1, does before the dump, in this order. */
enum action { NOTHING, SAY, FILL, SHUT, DEAF };

static const struct story {
	const char *name;
	enum action actions[2][2]; /* end 0: first, then; end 1: first, then */
	int states[2];
} stories[] = {
	{ "idle", { { NOTHING }, { NOTHING } }, { TCP_ESTABLISHED, TCP_ESTABLISHED } },
	{ "data both ways", { { SAY }, { SAY } }, { TCP_ESTABLISHED, TCP_ESTABLISHED } },
	{ "full both ways", { { FILL }, { FILL } }, { TCP_ESTABLISHED, TCP_ESTABLISHED } },
	{ "one has said all", { { SAY, SHUT }, { NOTHING } }, { TCP_FIN_WAIT2, TCP_CLOSE_WAIT } },
	{ "and is answered", { { SHUT }, { SAY } }, { TCP_FIN_WAIT2, TCP_CLOSE_WAIT } },
	{ "FIN behind a full window", { { FILL, SHUT }, { NOTHING } }, { TCP_FIN_WAIT1, TCP_ESTABLISHED } },
	{ "two of these", { { FILL, SHUT }, { FILL, SHUT } }, { TCP_FIN_WAIT1, TCP_FIN_WAIT1 } },
	{ "met by a FIN", { { FILL, SHUT }, { SAY, SHUT } }, { TCP_CLOSING, TCP_FIN_WAIT2 } },
	{ "last words that wait", { { SHUT }, { FILL, SHUT } }, { TCP_FIN_WAIT2, TCP_LAST_ACK } },
	{ "over", { { SAY, SHUT }, { SAY, SHUT } }, { TCP_CLOSE, TCP_CLOSE } },
	{ "deaf", { { DEAF }, { NOTHING } }, { TCP_ESTABLISHED, TCP_ESTABLISHED } },
};
enum { STORIES = sizeof(stories) / sizeof(*stories) };

static struct connection {
	int fd[2];
	size_t said[2];
	struct sockaddr_storage local[2], remote[2];
} connections[FAMILIES][STORIES];

/* Buffers that are soon full, of segments that fit many times. */
static void make_small(int fd)
{
	int size = 100000, segment = 1400;
	MUST(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)));
	MUST(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)));
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof(segment)));
}

static int listener_of(int family, struct sockaddr_storage *name)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
	if (family == MAPPED)
		MUST(inet_pton(AF_INET6, "::ffff:127.0.0.1", &v6.sin6_addr));
	int fd = MUST(socket(family == V4 ? AF_INET : AF_INET6, SOCK_STREAM, 0));
	if (family == V4)
		MUST(bind(fd, (struct sockaddr *)&v4, sizeof(v4)));
	else
		MUST(bind(fd, (struct sockaddr *)&v6, sizeof(v6)));
	make_small(fd);
	MUST(listen(fd, 64));
	socklen_t size = sizeof(*name);
	MUST(getsockname(fd, (struct sockaddr *)name, &size));
	return fd;
}

static int state_of(int fd)
{
	struct tcp_info info;
	socklen_t size = sizeof(info);
	MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size));
	return info.tcpi_state;
}

static uint64_t seed(const struct connection *c, int end)
{
	return (uint64_t)(c - connections[0]) * 2 + (uint64_t)end + 1;
}

static void say(struct connection *c, int end, size_t size)
{
	static char bytes[8 << 20];
	pattern_fill(bytes, size, seed(c, end));
	while (c->said[end] < size) {
		ssize_t n = send(c->fd[end], bytes + c->said[end], size - c->said[end], MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			break;
		c->said[end] += (size_t)MUST(n);
	}
}

static void act(struct connection *c, int end, enum action action)
{
	if (action == SAY)
		say(c, end, SMALL);
	if (action == FILL) {
		say(c, end, 8 << 20);
		sleep_ms(5); /* what the kernel still had room for */
	}
	if (action == SHUT)
		MUST(shutdown(c->fd[end], SHUT_WR));
	if (action == DEAF)
		MUST(shutdown(c->fd[end], SHUT_RD));
}

static void begin(struct connection *c, int family, const struct story *story)
{
	struct sockaddr_storage name;
	int listener = listener_of(family, &name);
	*c = (struct connection){ .fd[0] = MUST(socket(name.ss_family, SOCK_STREAM, 0)) };
	make_small(c->fd[0]);
	MUST(connect(c->fd[0], (struct sockaddr *)&name,
		     family == V4 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)));
	c->fd[1] = MUST(accept(listener, NULL, NULL));
	close(listener);
	int on = 1;
	MUST(setsockopt(c->fd[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
	MUST(setsockopt(c->fd[1], SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
	for (int end = 0; end < 2; end++) {
		socklen_t size = sizeof(c->local[end]);
		MUST(getsockname(c->fd[end], (struct sockaddr *)&c->local[end], &size));
		size = sizeof(c->remote[end]);
		MUST(getpeername(c->fd[end], (struct sockaddr *)&c->remote[end], &size));
	}
	for (int step = 0; step < 2; step++)
		for (int end = 0; end < 2; end++)
			act(c, end, story->actions[end][step]);
	for (int end = 0; end < 2; end++)
		for (int i = 0; state_of(c->fd[end]) != story->states[end] && i < 1000; i++)
			sleep_ms(1);
	for (int end = 0; end < 2; end++)
		if (state_of(c->fd[end]) != story->states[end])
			specimen_broken(__FILE__, __LINE__, story->name, state_of(c->fd[end]));
}

static bool has_shut(const struct story *story, int end)
{
	return story->actions[end][0] == SHUT || story->actions[end][1] == SHUT;
}

/* All that the other end said; then the end of the stream, or nothing. */
static void expect_heard(struct connection *c, const struct story *story, int end)
{
	static char bytes[8 << 20];
	size_t heard = 0;
	while (heard < c->said[!end]) {
		struct pollfd p = { .fd = c->fd[end], .events = POLLIN };
		ssize_t n = poll(&p, 1, 5000) == 1 ? read(c->fd[end], bytes + heard, sizeof(bytes) - heard) : -1;
		if (n <= 0)
			break;
		heard += (size_t)n;
	}
	char what[100];
	snprintf(what, sizeof(what), "%s: bytes at end %d", story->name, end);
	if (expect_int(what, (long long)c->said[!end], (long long)heard))
		expect_pattern(what, bytes, heard, seed(c, !end));
	if (story->actions[end][0] == DEAF)
		return;
	snprintf(what, sizeof(what), "%s: behind them at end %d", story->name, end);
	if (!has_shut(story, !end)) {
		expect_errno(what, EAGAIN, recv(c->fd[end], bytes, 1, MSG_DONTWAIT));
		return;
	}
	struct pollfd p = { .fd = c->fd[end], .events = POLLIN };
	poll(&p, 1, 5000);
	expect_int(what, 0, recv(c->fd[end], bytes, 1, MSG_DONTWAIT));
}

static void expect_goes_on(struct connection *c, const struct story *story, int end)
{
	char what[100], bytes[8] = "";
	if (has_shut(story, end) || story->actions[!end][0] == DEAF)
		return;
	snprintf(what, sizeof(what), "%s: end %d goes on", story->name, end);
	expect_int(what, 4, send(c->fd[end], "more", 4, MSG_NOSIGNAL));
	struct pollfd p = { .fd = c->fd[!end], .events = POLLIN };
	expect_int(what, 1, poll(&p, 1, 5000));
	expect_int(what, 4, recv(c->fd[!end], bytes, sizeof(bytes), MSG_DONTWAIT));
	expect_text(what, "more", bytes);
}

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t size = sizeof(value);
	MUST(getsockopt(fd, level, name, &value, &size));
	return value;
}

static void check(struct connection *c, const struct story *story)
{
	char what[100];
	for (int end = 0; end < 2; end++) {
		struct sockaddr_storage name;
		socklen_t size = sizeof(name);
		snprintf(what, sizeof(what), "%s: end %d", story->name, end);
		expect_int(what, story->states[end], state_of(c->fd[end]));
		if (story->states[end] == TCP_CLOSE)
			continue;
		MUST(getsockname(c->fd[end], (struct sockaddr *)&name, &size));
		expect_bytes(what, &c->local[end], &name, size);
		size = sizeof(name);
		if (expect_ok(what, getpeername(c->fd[end], (struct sockaddr *)&name, &size)))
			expect_bytes(what, &c->remote[end], &name, size);
	}
	expect_int("TCP_NODELAY", 1, option(c->fd[0], IPPROTO_TCP, TCP_NODELAY));
	expect_int("SO_KEEPALIVE", 1, option(c->fd[1], SOL_SOCKET, SO_KEEPALIVE));
	expect_int("SO_REUSEADDR", 0, option(c->fd[0], SOL_SOCKET, SO_REUSEADDR));
	if (story->actions[0][0] == DEAF)
		expect_int("deaf", 0, recv(c->fd[0], what, 1, MSG_DONTWAIT));
	expect_heard(c, story, 0);
	expect_heard(c, story, 1);
	expect_goes_on(c, story, 0);
	expect_goes_on(c, story, 1);
	close(c->fd[0]);
	close(c->fd[1]);
}

int main(void)
{
	while (specimen_round()) {
		for (int family = 0; family < FAMILIES; family++)
			for (int i = 0; i < STORIES; i++)
				begin(&connections[family][i], family, &stories[i]);
		specimen_ready();
		for (int family = 0; family < FAMILIES; family++)
			for (int i = 0; i < STORIES; i++)
				check(&connections[family][i], &stories[i]);
	}
	return specimen_end();
}
