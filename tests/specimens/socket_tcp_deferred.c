/*
 * A listener with TCP_DEFER_ACCEPT, over IPv4 and IPv6, and clients who are connected, but
 * have sent nothing yet, from the tree and from outside: what they send later arrives,
 * and they are answered.
 *
 * harness: tcp=keep
 */
#include "specimen.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static struct place {
	int family, listener, client;
	union address name;
	socklen_t size;
} places[] = { { .family = AF_INET }, { .family = AF_INET6 } };

static void listen_at(struct place *place)
{
	int seconds = 30;
	place->size = place->family == AF_INET ? sizeof(place->name.v4) : sizeof(place->name.v6);
	place->name.any.sa_family = (sa_family_t)place->family;
	if (place->family == AF_INET)
		place->name.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		place->name.v6.sin6_addr = in6addr_loopback;
	place->listener = MUST(socket(place->family, SOCK_STREAM, 0));
	MUST(setsockopt(place->listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds)));
	MUST(bind(place->listener, &place->name.any, place->size));
	MUST(listen(place->listener, 8));
	MUST(getsockname(place->listener, &place->name.any, &place->size));
}

static int call(const struct place *place)
{
	int fd = MUST(socket(place->family, SOCK_STREAM, 0));
	MUST(connect(fd, &place->name.any, place->size));
	return fd;
}

/* Not of our tree: its parent dies. Speaks when it is told to, and writes down what it was answered. */
static void call_outside(const struct place *place, const char *go, const char *said)
{
	int ready[2];
	char byte, answer[16] = "error";
	MUST(pipe(ready));
	pid_t middle = MUST(fork());
	if (middle == 0) {
		if (fork() != 0)
			_exit(0);
		setsid();
		int fd = call(place);
		for (int i = 0; i < 2; i++) {
			close(places[i].listener);
			close(places[i].client);
		}
		close(ready[0]);
		MUST(write(ready[1], "", 1));
		close(ready[1]);
		for (int i = 0; i < 10000 && access(go, F_OK) < 0; i++)
			sleep_ms(2);
		if (send(fd, "outside", 7, MSG_NOSIGNAL) == 7)
			recv(fd, answer, sizeof(answer) - 1, 0);
		int out = MUST(open(said, O_WRONLY | O_CREAT, 0644));
		MUST(write(out, answer, strlen(answer)));
		_exit(0);
	}
	close(ready[1]);
	MUST(waitpid(middle, NULL, 0));
	MUST(read(ready[0], &byte, 1));
	close(ready[0]);
}

static void serve(const struct place *place, const char *wanted)
{
	struct pollfd p = { .fd = place->listener, .events = POLLIN };
	char seen[16] = "";
	if (!expect_int("somebody comes", 1, poll(&p, 1, 3000)))
		return;
	int fd = accept(place->listener, NULL, NULL);
	p.fd = fd;
	expect_int("and speaks", 1, poll(&p, 1, 3000));
	expect_int("bytes", (long long)strlen(wanted), recv(fd, seen, sizeof(seen) - 1, MSG_DONTWAIT));
	expect_text("what it says", wanted, seen);
	expect_int("an answer", 6, send(fd, "answer", 6, MSG_NOSIGNAL));
	close(fd);
}

static void check(struct place *place, const char *go, const char *said)
{
	char seen[16] = "";
	int seconds = 0;
	socklen_t size = sizeof(seconds);
	expect_ok("TCP_DEFER_ACCEPT", getsockopt(place->listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, &size));
	expect_between("it defers", 30, 63, seconds);
	close(MUST(open(go, O_WRONLY | O_CREAT, 0644)));
	serve(place, "outside");
	for (int i = 0; i < 2000 && strlen(seen) < 5; i++) {
		int in = open(said, O_RDONLY);
		memset(seen, 0, sizeof(seen));
		if (in >= 0 && read(in, seen, sizeof(seen) - 1) < 0)
			seen[0] = '\0';
		close(in);
		sleep_ms(1);
	}
	expect_text("what the one outside was answered", "answer", seen);
	struct pollfd p = { .fd = place->listener, .events = POLLIN };
	expect_int("nobody else has spoken", 0, poll(&p, 1, 0));
	expect_int("the client speaks", 6, send(place->client, "inside", 6, MSG_NOSIGNAL));
	serve(place, "inside");
	expect_int("and is answered", 6, recv(place->client, seen, sizeof(seen), 0));
	close(place->client);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < 2; i++)
		listen_at(&places[i]);
	while (specimen_round()) {
		char *go[2], *said[2];
		for (int i = 0; i < 2; i++) {
			go[i] = specimen_path("speak.%d.%d", i, specimen_number());
			said[i] = specimen_path("said.%d.%d", i, specimen_number());
			places[i].client = call(&places[i]);
			call_outside(&places[i], go[i], said[i]);
		}
		specimen_ready();
		for (int i = 0; i < 2; i++)
			check(&places[i], go[i], said[i]);
	}
	return specimen_end();
}
