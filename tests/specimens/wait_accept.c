/*
 * Blocked in accept, on TCP and on a Unix socket: the next client is accepted
 * by the call that was waiting.
 */
#include "specimen.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

static void *in_accept(void *arg)
{
	int fd = accept4((int)(intptr_t)arg, NULL, NULL, SOCK_CLOEXEC);
	return (void *)(intptr_t)(fd < 0 ? -errno : fd);
}

int main(void)
{
	struct sockaddr_in tcp = { .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_un local = { .sun_family = AF_UNIX };
	snprintf(local.sun_path, sizeof(local.sun_path), "%s", specimen_path("socket"));
	int listeners[2] = { MUST(socket(AF_INET, SOCK_STREAM, 0)),
			     MUST(socket(AF_UNIX, SOCK_STREAM, 0)) };
	MUST(bind(listeners[0], (struct sockaddr *)&tcp, sizeof(tcp)));
	MUST(bind(listeners[1], (struct sockaddr *)&local, sizeof(local)));
	socklen_t length = sizeof(tcp);
	MUST(getsockname(listeners[0], (struct sockaddr *)&tcp, &length));
	for (int i = 0; i < 2; i++)
		MUST(listen(listeners[i], 5));
	while (specimen_round()) {
		pthread_t threads[2];
		for (int i = 0; i < 2; i++)
			threads[i] = start_blocked(in_accept, (void *)(intptr_t)listeners[i]);
		specimen_ready();
		for (int i = 0; i < 2; i++) {
			int client = MUST(socket(i ? AF_UNIX : AF_INET, SOCK_STREAM, 0));
			expect_ok("connect",
				  i ? connect(client, (struct sockaddr *)&local, sizeof(local))
				    : connect(client, (struct sockaddr *)&tcp, sizeof(tcp)));
			void *result;
			MUST_ZERO(pthread_join(threads[i], &result));
			int server = (int)(intptr_t)result;
			expect_between(i ? "accept (Unix)" : "accept (TCP)", 0, 1000, server);
			char buf[8] = "";
			expect_int("to the client", 5, send(server, "hello", 5, MSG_NOSIGNAL));
			expect_int("it arrives", 5, read(client, buf, sizeof(buf)));
			close(server);
			close(client);
		}
	}
	return specimen_end();
}
