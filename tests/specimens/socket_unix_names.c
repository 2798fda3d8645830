/*
 * Unix sockets and who made them. A listener with connections that wait: in their
 * order, one of them closed by its client already. Connections through listeners
 * that are gone, or whose file is: both ends tell the names they told. An
 * autobound name. SO_PEERCRED and SCM_CREDENTIALS tell the processes they told,
 * among them one that has ended. A datagram from a socket that is closed tells
 * its name.
 */
#include "specimen.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static socklen_t name(struct sockaddr_un *address, const char *text)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	strncpy(address->sun_path, text, sizeof(address->sun_path) - 1);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(text) + 1);
}

static int bound(int type, const char *text)
{
	struct sockaddr_un address;
	int fd = MUST(socket(AF_UNIX, type, 0));
	unlink(text);
	socklen_t size = name(&address, text);
	MUST(bind(fd, (struct sockaddr *)&address, size));
	return fd;
}

static int reach(int fd, const char *text)
{
	struct sockaddr_un address;
	socklen_t size = name(&address, text);
	return connect(fd, (struct sockaddr *)&address, size);
}

static void expect_name(const char *what, const char *expected, int fd, bool peer)
{
	struct sockaddr_un seen = { 0 };
	socklen_t size = sizeof(seen);
	expect_ok(what, peer ? getpeername(fd, (struct sockaddr *)&seen, &size) :
			       getsockname(fd, (struct sockaddr *)&seen, &size));
	expect_text(what, expected, seen.sun_path[0] ? seen.sun_path : seen.sun_path + 1);
}

static struct ucred peer_of(int fd)
{
	struct ucred creds = { 0 };
	socklen_t size = sizeof(creds);
	MUST(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &creds, &size));
	return creds;
}

static void expect_peer(const char *what, struct ucred expected, int fd)
{
	struct ucred seen = peer_of(fd);
	expect_int(what, expected.pid, seen.pid);
	expect_int("its user", expected.uid, seen.uid);
	expect_int("its group", expected.gid, seen.gid);
}

/* A pair that a process has made which has ended since, and a message that it left. */
static int pair_of_the_dead(int *other, pid_t *dead)
{
	int carrier[2], fds[2] = { -1, -1 }, on = 1;
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, carrier));
	*dead = MUST(fork());
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(fds))] = { 0 };
	char byte = 0;
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	if (*dead == 0) {
		if (geteuid() == 0 && (setgid(77) || setuid(77)))
			_exit(1);
		socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
		setsockopt(fds[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_len = CMSG_LEN(sizeof(fds));
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		memcpy(CMSG_DATA(header), fds, sizeof(fds));
		send(fds[0], "testament", 9, 0);
		sendmsg(carrier[1], &message, 0);
		_exit(0);
	}
	MUST(waitpid(*dead, NULL, 0));
	MUST(recvmsg(carrier[0], &message, 0));
	memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fds));
	close(carrier[0]);
	close(carrier[1]);
	*other = fds[0];
	return fds[1];
}

static void expect_testament(int fd, struct ucred author)
{
	_Alignas(struct cmsghdr) char control[256];
	char text[16] = "";
	struct ucred seen = { 0 };
	struct iovec part = { text, 15 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
				  .msg_controllen = sizeof(control) };
	expect_int("a message of the dead", 9, recvmsg(fd, &message, MSG_DONTWAIT));
	for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at))
		if (at->cmsg_type == SCM_CREDENTIALS)
			memcpy(&seen, CMSG_DATA(at), sizeof(seen));
	expect_int("from", author.pid, seen.pid);
	expect_int("user", author.uid, seen.uid);
}

/* Our number, when the sockets were made: a restore with other numbers tells that one. */
static pid_t maker;

static void expect_hello(int listener, const char *text, int client)
{
	int server = accept(listener, NULL, NULL);
	char buffer[16] = "";
	expect_ok("accept", server);
	if (client < 0) {
		expect_int("a closed client", 0, recv(server, buffer, 1, MSG_DONTWAIT));
	} else {
		send(client, text, strlen(text), 0);
		recv(server, buffer, sizeof(buffer) - 1, MSG_DONTWAIT);
		expect_text("in their order", text, buffer);
		expect_peer("who waited", (struct ucred){ maker, geteuid(), getegid() }, server);
	}
	close(server);
}

int main(void)
{
	maker = getpid();
	const char *path = specimen_path("gone"), *log = specimen_path("log"), *writer = specimen_path("writer");
	int listener = bound(SOCK_STREAM, path);
	MUST(listen(listener, 1));
	int client = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	MUST(reach(client, path));
	int server = MUST(accept(listener, NULL, NULL)), half = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
	MUST(reach(half, path));
	close(accept(listener, NULL, NULL));
	unlink(path); /* and a new one of the same name */
	int again = bound(SOCK_STREAM, path);
	MUST(listen(again, 9));
	int logger = bound(SOCK_DGRAM, log);
	struct sockaddr_un autobound = { .sun_family = AF_UNIX }, seen;
	int by_itself = MUST(socket(AF_UNIX, SOCK_DGRAM, 0));
	MUST(bind(by_itself, (struct sockaddr *)&autobound, sizeof(sa_family_t)));
	socklen_t auto_size = sizeof(autobound), size;
	MUST(getsockname(by_itself, (struct sockaddr *)&autobound, &auto_size));
	while (specimen_round()) {
		int waiting[2], other;
		pid_t dead;
		for (int i = 0; i < 3; i++) {
			int fd = MUST(socket(AF_UNIX, SOCK_STREAM, 0));
			MUST(reach(fd, path));
			if (i == 1)
				close(fd);
			else
				waiting[i / 2] = fd;
		}
		int sender = bound(SOCK_DGRAM, writer), made_by_dead = pair_of_the_dead(&other, &dead);
		MUST(reach(sender, log));
		MUST(send(sender, "logged", 6, 0));
		close(sender);
		unlink(writer);
		struct ucred author = peer_of(other);
		specimen_ready();

		expect_int("the dead one's number", dead, author.pid);
		expect_peer("who made the pair", author, other);
		expect_testament(made_by_dead, author);
		expect_name("the server", path, server, false);
		expect_name("the client's peer", path, client, true);
		expect_name("the closed server", path, half, true);
		expect_peer("who connected", (struct ucred){ maker, geteuid(), getegid() }, server);
		expect_peer("who listened", (struct ucred){ maker, geteuid(), getegid() }, client);
		expect_int("to the server", 2, send(client, "hi", 2, MSG_DONTWAIT));
		char buffer[16] = "";
		expect_int("from the client", 2, recv(server, buffer, 15, MSG_DONTWAIT));
		expect_hello(again, "first", waiting[0]);
		expect_hello(again, "", -1);
		expect_hello(again, "third", waiting[1]);
		size = sizeof(seen);
		expect_int("a datagram", 6, recvfrom(logger, buffer, 15, MSG_DONTWAIT, (struct sockaddr *)&seen, &size));
		expect_text("its sender", writer, seen.sun_path);
		expect_int("the sender's file", -1, access(writer, F_OK));
		size = sizeof(seen);
		MUST(getsockname(by_itself, (struct sockaddr *)&seen, &size));
		expect_int("autobound name's length", auto_size, size);
		expect_bytes("autobound name", &autobound, &seen, auto_size);
		close(waiting[0]);
		close(waiting[1]);
		close(other);
		close(made_by_dead);
	}
	return specimen_end();
}
