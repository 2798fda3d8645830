/*
 * TCP connections that wait to be accepted, over IPv4 and IPv6, from members of
 * the tree and from outside: after a restore they are accepted in the same order,
 * from the same addresses, with the bytes and the ends of streams that they had,
 * and go on in both directions.
 *
 * harness: tcp=keep
 */
#include "specimen.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { CLIENTS = 4, LARGE = 20000 };

static struct place {
	int listener;
	struct sockaddr_storage name;
	socklen_t size;
	int client[CLIENTS];
	struct sockaddr_storage from[CLIENTS];
} places[2];

static void listen_at(struct place *place, int family)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = in6addr_loopback };
	place->listener = MUST(socket(family, SOCK_STREAM, 0));
	if (family == AF_INET)
		MUST(bind(place->listener, (struct sockaddr *)&v4, sizeof(v4)));
	else
		MUST(bind(place->listener, (struct sockaddr *)&v6, sizeof(v6)));
	MUST(listen(place->listener, 16));
	place->size = sizeof(place->name);
	MUST(getsockname(place->listener, (struct sockaddr *)&place->name, &place->size));
}

static int call(const struct place *place)
{
	int fd = MUST(socket(place->name.ss_family, SOCK_STREAM, 0));
	MUST(connect(fd, (const struct sockaddr *)&place->name, place->size));
	return fd;
}

/* Idle, some bytes, some bytes and their end, many bytes. */
static void call_inside(struct place *place)
{
	char large[LARGE];
	pattern_fill(large, sizeof(large), 3);
	for (int i = 0; i < CLIENTS; i++) {
		place->client[i] = call(place);
		socklen_t size = sizeof(place->from[i]);
		MUST(getsockname(place->client[i], (struct sockaddr *)&place->from[i], &size));
	}
	MUST(write(place->client[1], "bytes", 5));
	MUST(write(place->client[2], "the end", 7));
	MUST(shutdown(place->client[2], SHUT_WR));
	MUST(write(place->client[3], large, sizeof(large)));
}

/* Not of our tree: its parent dies. Says what it was answered in a file. */
static void call_outside(const struct place *place, int round)
{
	int ready[2];
	char *path = specimen_path("outside.%d.%d", place == &places[1], round);
	MUST(pipe(ready));
	pid_t middle = MUST(fork());
	if (middle == 0) {
		if (fork() == 0) {
			char answer[16] = "";
			setsid();
			int fd = call(place), out;
			MUST(write(fd, "outside", 7));
			for (int i = 0; i < 2; i++) {
				close(places[i].listener);
				for (int j = 0; j < CLIENTS; j++)
					close(places[i].client[j]);
			}
			MUST(write(ready[1], "", 1));
			close(ready[0]);
			close(ready[1]);
			ssize_t n = read(fd, answer, sizeof(answer));
			out = open(path, O_WRONLY | O_CREAT, 0644);
			MUST(write(out, n < 0 ? "error" : answer, n < 0 ? 5 : (size_t)n));
			_exit(0);
		}
		_exit(0);
	}
	char byte;
	close(ready[1]);
	MUST(waitpid(middle, NULL, 0));
	MUST(read(ready[0], &byte, 1));
	close(ready[0]);
}

static int accept_next(const struct place *place, struct sockaddr_storage *from)
{
	struct pollfd p = { .fd = place->listener, .events = POLLIN };
	socklen_t size = sizeof(*from);
	if (!expect_int("somebody waits", 1, poll(&p, 1, 3000)))
		return -1;
	return accept(place->listener, (struct sockaddr *)from, &size);
}

static void expect_bytes_at(int fd, const char *bytes, size_t size)
{
	char seen[LARGE];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t got = 0;
	for (ssize_t n; got < size && poll(&p, 1, 3000) == 1; got += (size_t)n)
		if ((n = recv(fd, seen + got, sizeof(seen) - got, MSG_DONTWAIT)) <= 0)
			break;
	if (expect_int("bytes", (long long)size, (long long)got))
		expect_bytes("content", bytes, seen, size);
}

static void check_inside(struct place *place, int i)
{
	static const char *const said[CLIENTS] = { "", "bytes", "the end", NULL };
	struct sockaddr_storage from = { 0 };
	char large[LARGE];
	int fd = accept_next(place, &from);
	if (!expect_ok("accept", fd))
		return;
	expect_bytes("who it is", &place->from[i], &from, place->size);
	pattern_fill(large, sizeof(large), 3);
	expect_bytes_at(fd, said[i] ? said[i] : large, said[i] ? strlen(said[i]) : LARGE);
	char byte;
	if (i == 2)
		expect_int("the end", 0, recv(fd, &byte, 1, MSG_DONTWAIT));
	else
		expect_errno("nothing more", EAGAIN, recv(fd, &byte, 1, MSG_DONTWAIT));
	expect_int("an answer", 6, send(fd, "answer", 6, MSG_NOSIGNAL));
	expect_bytes_at(place->client[i], "answer", 6);
	if (i != 2) {
		expect_int("and back", 5, send(place->client[i], "again", 5, MSG_NOSIGNAL));
		expect_bytes_at(fd, "again", 5);
	}
	close(place->client[i]);
	close(fd);
}

static void check_outside(const struct place *place, int round)
{
	struct sockaddr_storage from;
	char seen[16] = "";
	int fd = accept_next(place, &from);
	if (!expect_ok("accept", fd))
		return;
	expect_bytes_at(fd, "outside", 7);
	expect_int("an answer", 6, send(fd, "answer", 6, MSG_NOSIGNAL));
	close(fd);
	const char *path = specimen_path("outside.%d.%d", place == &places[1], round);
	for (int i = 0; i < 3000 && strlen(seen) < 5; i++) {
		int in = open(path, O_RDONLY);
		if (in >= 0 && read(in, seen, sizeof(seen) - 1) < 0)
			seen[0] = '\0';
		close(in);
		sleep_ms(1);
	}
	expect_text("what the one outside was answered", "answer", seen);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	listen_at(&places[0], AF_INET);
	listen_at(&places[1], AF_INET6);
	while (specimen_round()) {
		call_inside(&places[0]);
		call_inside(&places[1]);
		for (int i = 0; i < 2; i++) {
			call_outside(&places[i], specimen_number());
		}
		specimen_ready();
		for (int i = 0; i < 2; i++) {
			for (int j = 0; j < CLIENTS; j++)
				check_inside(&places[i], j);
			check_outside(&places[i], specimen_number());
		}
	}
	return specimen_end();
}
