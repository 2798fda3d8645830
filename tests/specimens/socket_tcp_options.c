/*
 * Options of TCP sockets: fresh, listening, connected within the tree and (kept)
 * to the outside. Two listeners share a port with SO_REUSEPORT. Congestion control
 * is per socket. An attempt to connect that nobody answers yet goes on.
 *
 * harness: tcp=keep
 */
#include "specimen.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

static const struct option {
	const char *name;
	int level, option, value;
	bool before; /* only where nothing is connected */
} options[] = {
	{ "TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 1, false },
	{ "TCP_CORK", IPPROTO_TCP, TCP_CORK, 1, false },
	{ "TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 77, false },
	{ "TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, 7, false },
	{ "TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, 3, false },
	{ "SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 1, false },
	{ "TCP_SYNCNT", IPPROTO_TCP, TCP_SYNCNT, 5, false },
	{ "TCP_LINGER2", IPPROTO_TCP, TCP_LINGER2, 9, false },
	{ "TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, 12345, false },
	{ "TCP_NOTSENT_LOWAT", IPPROTO_TCP, TCP_NOTSENT_LOWAT, 4242, false },
	{ "TCP_QUICKACK", IPPROTO_TCP, TCP_QUICKACK, 0, false },
	{ "TCP_WINDOW_CLAMP", IPPROTO_TCP, TCP_WINDOW_CLAMP, 50000, false },
	{ "TCP_INQ", IPPROTO_TCP, TCP_INQ, 1, false },
	{ "TCP_THIN_LINEAR_TIMEOUTS", IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 1, false },
	{ "SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE, 1, false },
	{ "SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, 1, false },
	{ "SO_REUSEPORT", SOL_SOCKET, SO_REUSEPORT, 1, false },
	{ "IP_TOS", IPPROTO_IP, IP_TOS, 0x10, false },
	{ "IP_TTL", IPPROTO_IP, IP_TTL, 33, false },
	{ "TCP_MAXSEG", IPPROTO_TCP, TCP_MAXSEG, 1200, true },
	{ "TCP_DEFER_ACCEPT", IPPROTO_TCP, TCP_DEFER_ACCEPT, 7, true },
	{ "TCP_FASTOPEN", IPPROTO_TCP, TCP_FASTOPEN, 4, true },
	{ "TCP_SAVE_SYN", IPPROTO_TCP, TCP_SAVE_SYN, 1, true },
};
enum { OPTIONS = sizeof(options) / sizeof(*options) };

static int get(int fd, const struct option *option)
{
	int value = -1;
	socklen_t size = sizeof(value);
	MUST(getsockopt(fd, option->level, option->option, &value, &size));
	return value;
}

/* Some are rounded, so what they are then is noted. */
static void set_all(int fd, bool before, int *values)
{
	for (int i = 0; i < OPTIONS; i++)
		if (before || !options[i].before) {
			MUST(setsockopt(fd, options[i].level, options[i].option, &options[i].value,
					sizeof(int)));
			values[i] = get(fd, &options[i]);
		}
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
}

static void expect_all(const char *which, int fd, bool before, const int *values)
{
	char what[100], name[16] = "";
	socklen_t size = sizeof(name);
	for (int i = 0; i < OPTIONS; i++) {
		snprintf(what, sizeof(what), "%s: %s", which, options[i].name);
		if (before || !options[i].before)
			expect_int(what, values[i], get(fd, &options[i]));
	}
	MUST(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &size));
	expect_text("TCP_CONGESTION", "reno", name);
	struct linger linger = { 0 };
	size = sizeof(linger);
	MUST(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &size));
	expect_int("SO_LINGER", 11, linger.l_onoff ? linger.l_linger : -1);
}

static int linger_socket(void)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 11 };
	int fd = MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
	return fd;
}

/* A listener whose queue is full, and one who knocks in vain. */
static int knock(int *listener, int *waits)
{
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(name);
	*listener = MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(bind(*listener, (struct sockaddr *)&name, sizeof(name)));
	MUST(listen(*listener, 0));
	MUST(getsockname(*listener, (struct sockaddr *)&name, &size));
	*waits = MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(connect(*waits, (struct sockaddr *)&name, sizeof(name)));
	int fd = MUST(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
	expect_errno("nobody answers", EINPROGRESS, connect(fd, (struct sockaddr *)&name, sizeof(name)));
	return fd;
}

static void check_knock(int fd, int listener, int waits)
{
	struct tcp_info info;
	socklen_t size = sizeof(info);
	MUST(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size));
	expect_int("still knocking", TCP_SYN_SENT, info.tcpi_state);
	int first = accept(listener, NULL, NULL);
	expect_ok("accept the one who waits", first);
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	expect_int("and the other is let in", 1, poll(&p, 1, 8000));
	int error = -1;
	size = sizeof(error);
	MUST(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size));
	expect_int("SO_ERROR", 0, error);
	int second = accept(listener, NULL, NULL);
	expect_ok("accept", second);
	expect_int("bytes", 5, send(fd, "hello", 5, MSG_NOSIGNAL));
	char byte;
	expect_int("arrive", 1, recv(second, &byte, 1, 0));
	close(first);
	close(second);
	close(fd);
	close(waits);
	close(listener);
}

int main(void)
{
	struct sockaddr_in name = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(name);
	int values[5][OPTIONS], fds[5], on = 1;
	const char *const which[5] = { "fresh", "listener", "its twin", "one end", "the other end" };
	for (int i = 0; i < 4; i++)
		fds[i] = linger_socket();
	for (int i = 0; i < 3; i++)
		set_all(fds[i], true, values[i]);
	for (int i = 1; i < 3; i++) {
		MUST(bind(fds[i], (struct sockaddr *)&name, sizeof(name)));
		MUST(getsockname(fds[i], (struct sockaddr *)&name, &size));
	}
	/* One that does not put off: the others have TCP_DEFER_ACCEPT. */
	struct sockaddr_in other = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int plain = MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(setsockopt(plain, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
	MUST(bind(plain, (struct sockaddr *)&other, sizeof(other)));
	MUST(listen(plain, 3));
	MUST(getsockname(plain, (struct sockaddr *)&other, &size));
	MUST(listen(fds[1], 3));
	MUST(listen(fds[2], 4));
	MUST(connect(fds[3], (struct sockaddr *)&other, sizeof(other)));
	fds[4] = MUST(accept(plain, NULL, NULL));
	struct linger linger = { .l_onoff = 1, .l_linger = 11 };
	MUST(setsockopt(fds[4], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
	close(plain);
	for (int i = 3; i < 5; i++)
		set_all(fds[i], false, values[i]);
	for (int i = 1; i < 3; i++) /* listen(2) sets that one back */
		for (int j = 0; j < OPTIONS; j++)
			values[i][j] = get(fds[i], &options[j]);

	while (specimen_round()) {
		int listener, waits, knocks = knock(&listener, &waits);
		for (int i = 3; i < 5; i++) /* the kernel changes it as it likes */
			setsockopt(fds[i], IPPROTO_TCP, TCP_QUICKACK, &(int){ 0 }, sizeof(int));
		specimen_ready();
		for (int i = 0; i < 5; i++)
			expect_all(which[i], fds[i], i < 3, values[i]);
		check_knock(knocks, listener, waits);
	}
	return specimen_end();
}
