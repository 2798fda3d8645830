/*
 * Listening TCP sockets, IPv4 and IPv6: same address and port, same options,
 * and clients are served again.
 *
 * harness: musl
 */
#include "specimen.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

struct listener {
	int fd;
	struct sockaddr_storage address;
	socklen_t length;
};

static void set(int fd, int level, int option, int value)
{
	MUST(setsockopt(fd, level, option, &value, sizeof(value)));
}

static int get(int fd, int level, int option)
{
	int value = -1;
	socklen_t length = sizeof(value);
	MUST(getsockopt(fd, level, option, &value, &length));
	return value;
}

static struct listener listen_on(int family)
{
	struct listener l = { .fd = MUST(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) };
	struct sockaddr_in v4 = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
	set(l.fd, SOL_SOCKET, SO_REUSEADDR, 1);
	set(l.fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(l.fd, SOL_SOCKET, SO_RCVBUF, 50000);
	set(l.fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set(l.fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 0);
	if (family == AF_INET6) {
		set(l.fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
		MUST(bind(l.fd, (struct sockaddr *)&v6, sizeof(v6)));
	} else {
		MUST(bind(l.fd, (struct sockaddr *)&v4, sizeof(v4)));
	}
	MUST(listen(l.fd, 13));
	l.length = sizeof(l.address);
	MUST(getsockname(l.fd, (struct sockaddr *)&l.address, &l.length));
	return l;
}

static void check_options(const struct listener *l)
{
	struct sockaddr_storage address;
	socklen_t length = sizeof(address);
	MUST(getsockname(l->fd, (struct sockaddr *)&address, &length));
	expect_int("length of the address", l->length, length);
	expect_bytes("address and port", &l->address, &address, length);
	expect_int("SO_ACCEPTCONN", 1, get(l->fd, SOL_SOCKET, SO_ACCEPTCONN));
	expect_int("SO_REUSEADDR", 1, get(l->fd, SOL_SOCKET, SO_REUSEADDR));
	expect_int("SO_KEEPALIVE", 1, get(l->fd, SOL_SOCKET, SO_KEEPALIVE));
	expect_int("SO_RCVBUF", 100000, get(l->fd, SOL_SOCKET, SO_RCVBUF));
	expect_int("TCP_NODELAY", 1, get(l->fd, IPPROTO_TCP, TCP_NODELAY));
	if (l->address.ss_family == AF_INET6)
		expect_int("IPV6_V6ONLY", 1, get(l->fd, IPPROTO_IPV6, IPV6_V6ONLY));
	expect_int("close-on-exec", FD_CLOEXEC, fcntl(l->fd, F_GETFD));
	struct tcp_info info;
	length = sizeof(info);
	MUST(getsockopt(l->fd, IPPROTO_TCP, TCP_INFO, &info, &length));
	expect_int("backlog", 13, info.tcpi_sacked); /* of a listener: what listen(2) was given */
}

static void check_service(const struct listener *l)
{
	int client = MUST(socket(l->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0));
	connect(client, (const struct sockaddr *)&l->address, l->length);
	struct pollfd p = { .fd = l->fd, .events = POLLIN };
	if (expect_int("a client comes", 1, poll(&p, 1, 3000))) {
		int server = accept(l->fd, NULL, NULL);
		expect_ok("accept", server);
		char buf[16] = "";
		expect_int("to the client", 5, write(server, "hello", 5));
		p = (struct pollfd){ .fd = client, .events = POLLIN };
		expect_int("it arrives", 1, poll(&p, 1, 3000));
		expect_int("bytes", 5, read(client, buf, sizeof(buf)));
		expect_text("content", "hello", buf);
		close(server);
	}
	close(client);
}

int main(void)
{
	struct listener v4 = listen_on(AF_INET), v6 = listen_on(AF_INET6);
	while (specimen_round()) {
		specimen_ready();
		check_options(&v4);
		check_options(&v6);
		check_service(&v4);
		check_service(&v6);
	}
	return specimen_end();
}
