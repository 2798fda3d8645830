/*
 * Data that was sent on Unix connections before they are accepted: of a stream,
 * of packets, in one large piece, and by a client that has closed since. Who
 * accepts reads all of it, then end of file where it was closed.
 *
 * harness: may-refuse
 */
#include "specimen.h"

#include <sys/socket.h>
#include <sys/un.h>

static char large[50000];

static int listener(int type, struct sockaddr_un *address, const char *name)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	strncpy(address->sun_path, name, sizeof(address->sun_path) - 1);
	int fd = MUST(socket(AF_UNIX, type, 0));
	MUST(bind(fd, (struct sockaddr *)address, sizeof(*address)));
	MUST(listen(fd, 8));
	return fd;
}

static int client(int type, const struct sockaddr_un *address)
{
	int fd = MUST(socket(AF_UNIX, type, 0));
	MUST(connect(fd, (const struct sockaddr *)address, sizeof(*address)));
	return fd;
}

static void expect_next(const char *what, int fd, const char *text)
{
	char buffer[64] = "";
	recv(fd, buffer, sizeof(buffer) - 1, MSG_DONTWAIT);
	expect_text(what, text, buffer);
}

static int accepted(int fd)
{
	int server = accept4(fd, NULL, NULL, SOCK_NONBLOCK);
	expect_ok("accept", server);
	return server;
}

int main(void)
{
	struct sockaddr_un stream_name, packet_name;
	int stream = listener(SOCK_STREAM, &stream_name, specimen_path("stream"));
	int packets = listener(SOCK_SEQPACKET, &packet_name, specimen_path("packets"));
	pattern_fill(large, sizeof(large), 3);
	while (specimen_round()) {
		int first = client(SOCK_STREAM, &stream_name), gone = client(SOCK_STREAM, &stream_name);
		int third = client(SOCK_STREAM, &stream_name), fourth = client(SOCK_SEQPACKET, &packet_name);
		MUST(send(first, "to be ", 6, 0));
		MUST(send(first, "accepted", 8, 0));
		MUST(send(gone, "farewell", 8, 0));
		close(gone);
		MUST(send(third, large, sizeof(large), 0));
		MUST(send(fourth, "one", 3, 0));
		MUST(send(fourth, "two", 3, 0));
		specimen_ready();

		int server = accepted(stream);
		expect_next("the first", server, "to be accepted");
		expect_int("it goes on", 4, send(first, "more", 4, 0));
		expect_next("the first", server, "more");
		close(server);
		server = accepted(stream);
		expect_next("one that has closed", server, "farewell");
		char byte;
		expect_int("its end", 0, recv(server, &byte, 1, 0));
		close(server);
		server = accepted(stream);
		char *seen = calloc(1, sizeof(large) + 1);
		ssize_t got = 0, n;
		while ((n = recv(server, seen + got, sizeof(large) + 1 - (size_t)got, MSG_DONTWAIT)) > 0)
			got += n;
		expect_int("bytes of the large one", sizeof(large), got);
		expect_pattern("content", seen, sizeof(large), 3);
		free(seen);
		close(server);
		server = accepted(packets);
		expect_next("a packet", server, "one");
		expect_next("another", server, "two");
		close(server);
		close(first);
		close(third);
		close(fourth);
	}
	return specimen_end();
}
