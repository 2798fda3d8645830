/*
 * Listening Unix sockets, one with a path and one with an abstract name: clients
 * that know the name are served; a bound datagram socket receives.
 */
#include "specimen.h"

#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

struct named {
	struct sockaddr_un address;
	socklen_t length;
	int fd;
};

static struct named bound(int type, const char *name, bool abstract)
{
	struct named n = { .address = { .sun_family = AF_UNIX } };
	int used =
		snprintf(n.address.sun_path + abstract, sizeof(n.address.sun_path) - 1, "%s", name);
	n.length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)used + 1);
	n.fd = MUST(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
	MUST(bind(n.fd, (struct sockaddr *)&n.address, n.length));
	if (type != SOCK_DGRAM)
		MUST(listen(n.fd, 5));
	return n;
}

static void check_stream(const char *what, const struct named *n)
{
	struct sockaddr_un address;
	socklen_t length = sizeof(address);
	MUST(getsockname(n->fd, (struct sockaddr *)&address, &length));
	expect_int("length of the name", n->length, length);
	expect_bytes("name", &n->address, &address, length);
	int client = MUST(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
	expect_ok(what, connect(client, (const struct sockaddr *)&n->address, n->length));
	struct pollfd p = { .fd = n->fd, .events = POLLIN };
	if (expect_int("a client comes", 1, poll(&p, 1, 2000))) {
		int server = accept(n->fd, NULL, NULL);
		char buf[8] = "";
		expect_int("to the client", 5, write(server, "hello", 5));
		expect_int("it arrives", 5, read(client, buf, sizeof(buf)));
		expect_text("content", "hello", buf);
		close(server);
	}
	close(client);
}

int main(void)
{
	char abstract[64];
	snprintf(abstract, sizeof(abstract), "fsnap-specimen-%d", getpid());
	struct named path = bound(SOCK_STREAM, specimen_path("socket"), false);
	struct named hidden = bound(SOCK_STREAM, abstract, true);
	struct named datagram = bound(SOCK_DGRAM, specimen_path("datagrams"), false);
	MUST(chmod(specimen_path("socket"), 0640));
	while (specimen_round()) {
		specimen_ready();
		check_stream("connecting by path", &path);
		check_stream("connecting by abstract name", &hidden);
		struct stat st;
		expect_ok("the path", stat(specimen_path("socket"), &st));
		expect_hex("its mode", S_IFSOCK | 0640, st.st_mode);
		int sender = MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
		char buf[16] = "";
		expect_int("a datagram", 6,
			   sendto(sender, "letter", 6, 0, (struct sockaddr *)&datagram.address,
				  datagram.length));
		expect_int("it arrives", 6, recv(datagram.fd, buf, sizeof(buf), MSG_DONTWAIT));
		expect_text("content", "letter", buf);
		close(sender);
	}
	return specimen_end();
}
