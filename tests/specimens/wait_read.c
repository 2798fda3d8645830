/*
 * Threads that are blocked reading an empty pipe, a socket and an event
 * counter, or writing a full pipe: they wait on and get what comes, all of it,
 * without an error they did not ask for.
 *
 * harness: threads=5 musl
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

struct call {
	int fd, error;
	ssize_t result;
	char buf[65536];
};

static void *read_it(void *arg)
{
	struct call *c = arg;
	c->result = read(c->fd, c->buf, 64);
	c->error = errno;
	return NULL;
}

static void *write_it(void *arg)
{
	struct call *c = arg;
	c->result = write(c->fd, c->buf, sizeof(c->buf));
	c->error = errno;
	return NULL;
}

int main(void)
{
	static struct call calls[4];
	static char drain[1 << 18];
	int plain[2], full[2], pair[2], counter = MUST(eventfd(0, 0));
	MUST(pipe(plain));
	MUST(pipe(full));
	MUST(fcntl(full[1], F_SETPIPE_SZ, 65536));
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	while (specimen_round()) {
		memset(calls, 0, sizeof(calls));
		pattern_fill(calls[3].buf, sizeof(calls[3].buf), 6);
		MUST(write(full[1], calls[3].buf, 65536));
		calls[0].fd = plain[0];
		calls[1].fd = pair[0];
		calls[2].fd = counter;
		calls[3].fd = full[1];
		pthread_t threads[4];
		threads[0] = start_blocked(read_it, &calls[0]);
		threads[1] = start_blocked(read_it, &calls[1]);
		threads[2] = start_blocked(read_it, &calls[2]);
		threads[3] = start_blocked(write_it, &calls[3]);

		specimen_ready();

		uint64_t value = 7;
		MUST(write(plain[1], "for the reader", 14));
		MUST(send(pair[1], "for the socket", 14, 0));
		MUST(write(counter, &value, 8));
		size_t got = 0;
		for (ssize_t n; got < 131072 && (n = read(full[0], drain + got, 4096)) > 0;)
			got += (size_t)n;
		for (int i = 0; i < 4; i++)
			MUST_ZERO(pthread_join(threads[i], NULL));
		expect_int("read from the pipe", 14, calls[0].result);
		expect_bytes("content", "for the reader", calls[0].buf, 14);
		expect_int("read from the socket", 14, calls[1].result);
		expect_bytes("content", "for the socket", calls[1].buf, 14);
		expect_int("read from the event counter", 8, calls[2].result);
		expect_int("value", 7, calls[2].buf[0]);
		expect_int("write to the full pipe", 65536, calls[3].result);
		expect_bytes("what was written before", calls[3].buf, drain, 65536);
		expect_bytes("what waited to be written", calls[3].buf, drain + 65536, 65536);
	}
	return specimen_end();
}
