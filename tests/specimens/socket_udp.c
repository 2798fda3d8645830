/*
 * UDP sockets: bound ones, IPv4 and IPv6, receive at their port with their
 * options; a connected one still knows its peer.
 *
 * harness: may-refuse
 */
#include "specimen.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

static int bound(int family, struct sockaddr_storage *address, socklen_t *length)
{
	int fd = MUST(socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0)), size = 40000;
	MUST(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)));
	struct sockaddr_in v4 = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
	if (family == AF_INET)
		MUST(bind(fd, (struct sockaddr *)&v4, sizeof(v4)));
	else
		MUST(bind(fd, (struct sockaddr *)&v6, sizeof(v6)));
	*length = sizeof(*address);
	MUST(getsockname(fd, (struct sockaddr *)address, length));
	return fd;
}

static void check(int receiver, int sender)
{
	char buf[16] = "";
	expect_int("sending to the peer", 6, send(sender, "letter", 6, 0));
	struct pollfd p = { .fd = receiver, .events = POLLIN };
	if (expect_int("it arrives", 1, poll(&p, 1, 1000))) {
		struct sockaddr_storage from, own;
		socklen_t from_length = sizeof(from), own_length = sizeof(own);
		expect_int("bytes", 6,
			   recvfrom(receiver, buf, sizeof(buf), 0, (struct sockaddr *)&from,
				    &from_length));
		expect_text("content", "letter", buf);
		MUST(getsockname(sender, (struct sockaddr *)&own, &own_length));
		expect_bytes("sender", &own, &from, own_length);
	}
	int size = 0;
	socklen_t length = sizeof(size);
	MUST(getsockopt(receiver, SOL_SOCKET, SO_RCVBUF, &size, &length));
	expect_int("SO_RCVBUF", 80000, size);
}

int main(void)
{
	struct sockaddr_storage address[2], from[2], now;
	socklen_t length[2], length_now;
	int receiver[2], sender[2];
	for (int i = 0; i < 2; i++) {
		int family = i ? AF_INET6 : AF_INET;
		receiver[i] = bound(family, &address[i], &length[i]);
		sender[i] = MUST(socket(family, SOCK_DGRAM, 0));
		MUST(connect(sender[i], (struct sockaddr *)&address[i], length[i]));
		length_now = sizeof(from[i]);
		MUST(getsockname(sender[i], (struct sockaddr *)&from[i], &length_now));
	}
	while (specimen_round()) {
		specimen_ready();
		for (int i = 0; i < 2; i++) {
			length_now = sizeof(now);
			MUST(getsockname(receiver[i], (struct sockaddr *)&now, &length_now));
			expect_bytes("address and port", &address[i], &now, length[i]);
			length_now = sizeof(now);
			expect_ok("getpeername",
				  getpeername(sender[i], (struct sockaddr *)&now, &length_now));
			expect_bytes("the peer", &address[i], &now, length[i]);
			check(receiver[i], sender[i]);
		}
	}
	return specimen_end();
}
