/*
 * UDP datagrams that are written in part and not sent yet, by MSG_MORE and UDP_CORK,
 * over IPv4 and IPv6, to whom a socket is connected or to somebody else, short and of
 * many pieces: what is written later comes behind, and all of it is sent as one.
 */
#include "specimen.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>

enum { LONG = 30000, PIECES = 6, PIECE = LONG / PIECES };

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

struct end { /* a receiver */
	int fd;
	union address name;
	socklen_t size;
};

enum { MORE, CORKED, ASIDE, LOOSE, LARGE, NOTHING, SENDERS };

static struct world {
	int family;
	struct end near, far;
	int fds[SENDERS]; /* all connected to `near`, but for LOOSE */
} worlds[] = { { .family = AF_INET }, { .family = AF_INET6 } };

static char bytes[LONG];

static int fresh(int family)
{
	return MUST(socket(family, SOCK_DGRAM, 0));
}

static void receive_at(struct end *end, int family)
{
	end->fd = fresh(family);
	end->size = family == AF_INET ? sizeof(end->name.v4) : sizeof(end->name.v6);
	end->name = (union address){ 0 };
	end->name.any.sa_family = (sa_family_t)family;
	if (family == AF_INET)
		end->name.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		end->name.v6.sin6_addr = in6addr_loopback;
	MUST(bind(end->fd, &end->name.any, end->size));
	MUST(getsockname(end->fd, &end->name.any, &end->size));
}

static void expect_datagram(const char *what, const struct end *at, const char *wanted, size_t size)
{
	static char seen[LONG + 100];
	struct pollfd event = { .fd = at->fd, .events = POLLIN };
	if (!expect_int(what, 1, poll(&event, 1, 2000)) ||
	    !expect_int(what, (long long)size, recv(at->fd, seen, sizeof(seen), MSG_DONTWAIT)))
		return;
	expect_bytes(what, wanted, seen, size);
	expect_errno("and no more", EAGAIN, recv(at->fd, seen, sizeof(seen), MSG_DONTWAIT));
}

static void write_in_part(struct world *world)
{
	const struct end *near = &world->near, *far = &world->far;
	int *fds = world->fds, on = 1;
	receive_at(&world->near, world->family);
	receive_at(&world->far, world->family);
	for (int i = 0; i < SENDERS; i++) {
		fds[i] = fresh(world->family);
		if (i != LOOSE)
			MUST(connect(fds[i], &near->name.any, near->size));
	}
	MUST(send(fds[MORE], "one ", 4, MSG_MORE));
	MUST(send(fds[MORE], "two ", 4, MSG_MORE));
	MUST(setsockopt(fds[CORKED], IPPROTO_UDP, UDP_CORK, &on, sizeof(on)));
	MUST(send(fds[CORKED], "corked", 6, 0));
	MUST(sendto(fds[ASIDE], "aside ", 6, MSG_MORE, &far->name.any, far->size));
	MUST(sendto(fds[LOOSE], "loose ", 6, MSG_MORE, &far->name.any, far->size));
	for (int i = 0; i < PIECES; i++)
		MUST(send(fds[LARGE], bytes + i * PIECE, PIECE, MSG_MORE));
	MUST(send(fds[NOTHING], "", 0, MSG_MORE));
}

static void check(struct world *world)
{
	const struct end *near = &world->near, *far = &world->far;
	int *fds = world->fds, off = 0;
	expect_int("MSG_MORE", 5, send(fds[MORE], "three", 5, 0));
	expect_datagram("MSG_MORE", near, "one two three", 13);
	expect_ok("UDP_CORK", setsockopt(fds[CORKED], IPPROTO_UDP, UDP_CORK, &off, sizeof(off)));
	expect_datagram("UDP_CORK", near, "corked", 6);
	expect_int("to another", 3, send(fds[ASIDE], "end", 3, 0));
	expect_datagram("to another", far, "aside end", 9);
	expect_int("connected to nobody", 3, send(fds[LOOSE], "end", 3, 0));
	expect_datagram("connected to nobody", far, "loose end", 9);
	expect_int("in pieces", 0, send(fds[LARGE], "", 0, 0));
	expect_datagram("in pieces", near, bytes, LONG);
	expect_int("nothing yet", 3, send(fds[NOTHING], "now", 3, 0));
	expect_datagram("nothing yet", near, "now", 3);
	for (int i = 0; i < SENDERS; i++)
		close(fds[i]);
	close(near->fd);
	close(far->fd);
}

int main(void)
{
	pattern_fill(bytes, sizeof(bytes), 5);
	while (specimen_round()) {
		write_in_part(&worlds[0]);
		write_in_part(&worlds[1]);
		specimen_ready();
		check(&worlds[0]);
		check(&worlds[1]);
	}
	return specimen_end();
}
