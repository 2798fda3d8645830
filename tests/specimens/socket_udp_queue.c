/*
 * Datagrams that wait in UDP sockets, IPv4, IPv6 and UDP-Lite: they come in their
 * order, with their bytes (one has none) and their senders' addresses, also where
 * the sender is closed since; in a connected socket, and in one of two that share
 * an address.
 */
#include "specimen.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

struct receiver {
	const char *name;
	int fd;
	union address address, sender;
	socklen_t size;
	bool connected;
};

static int bound(int family, int protocol, union address *address, bool shared)
{
	int fd = MUST(socket(family, SOCK_DGRAM, protocol)), on = 1;
	socklen_t size = sizeof(*address);
	if (shared)
		MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)));
	if (!address->any.sa_family && family == AF_INET)
		address->v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	if (!address->any.sa_family && family == AF_INET6)
		address->v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
	MUST(bind(fd, &address->any, family == AF_INET ? sizeof(address->v4) : sizeof(address->v6)));
	MUST(getsockname(fd, &address->any, &size));
	return fd;
}

static struct receiver receiver(const char *name, int family, int protocol, bool connected)
{
	struct receiver r = { .name = name, .connected = connected,
			      .size = family == AF_INET ? sizeof(r.address.v4) : sizeof(r.address.v6) };
	r.fd = bound(family, protocol, &r.address, false);
	int sender = bound(family, protocol, &r.sender, false);
	if (connected)
		MUST(connect(r.fd, &r.sender.any, r.size));
	close(sender);
	return r;
}

static void send_all(struct receiver *r, int protocol)
{
	char large[3000];
	int sender = bound(r->address.any.sa_family, protocol, &r->sender, false);
	pattern_fill(large, sizeof(large), 7);
	MUST(sendto(sender, "one", 3, 0, &r->address.any, r->size));
	MUST(sendto(sender, "", 0, 0, &r->address.any, r->size));
	MUST(sendto(sender, large, sizeof(large), 0, &r->address.any, r->size));
	close(sender);
}

static void check(const struct receiver *r)
{
	static const ssize_t sizes[] = { 3, 0, 3000 };
	char buffer[4000];
	for (int i = 0; i < 3; i++) {
		union address from = { 0 };
		socklen_t size = sizeof(from);
		if (!expect_int(r->name, sizes[i],
				recvfrom(r->fd, buffer, sizeof(buffer), MSG_DONTWAIT, &from.any, &size)))
			return;
		expect_bytes("sender", &r->sender, &from, r->size);
		if (i == 2)
			expect_pattern("content", buffer, 3000, 7);
	}
	expect_int("no more", -1, recv(r->fd, buffer, sizeof(buffer), MSG_DONTWAIT));
	union address to;
	socklen_t size = sizeof(to);
	expect_int("connected", r->connected ? 0 : -1, getpeername(r->fd, &to.any, &size));
}

int main(void)
{
	int lite = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);
	struct receiver all[] = {
		receiver("IPv4", AF_INET, 0, false),
		receiver("IPv4, connected", AF_INET, 0, true),
		receiver("IPv6", AF_INET6, 0, false),
		receiver("UDP-Lite", AF_INET, lite < 0 ? 0 : IPPROTO_UDPLITE, false),
	};
	close(lite);
	union address shared = { 0 };
	int group[2] = { bound(AF_INET, 0, &shared, true), 0 };
	group[1] = bound(AF_INET, 0, &shared, true);
	while (specimen_round()) {
		for (size_t i = 0; i < 4; i++)
			send_all(&all[i], i == 3 && lite >= 0 ? IPPROTO_UDPLITE : 0);
		int sender = MUST(socket(AF_INET, SOCK_DGRAM, 0)), waits = -1;
		char byte;
		MUST(sendto(sender, "!", 1, 0, &shared.any, sizeof(shared.v4)));
		for (int i = 0; i < 2; i++)
			if (recv(group[i], &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 1)
				waits = i;
		specimen_ready();
		for (size_t i = 0; i < 4; i++)
			check(&all[i]);
		for (int i = 0; i < 2; i++)
			expect_int("of those who share", i == waits ? 1 : -1, recv(group[i], &byte, 1, MSG_DONTWAIT));
		close(sender);
	}
	return specimen_end();
}
