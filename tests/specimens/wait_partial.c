/*
 * Calls that were half done: write() of more than a pipe or a socket takes at once, recv(MSG_WAITALL) of more
 * than has come. Nobody can stop a thread in the midst of them but the kernel's way, which is to have
 * them return what is done so far (fs/pipe.c, pipe_write(); net/unix/af_unix.c, unix_stream_sendmsg();
 * signal(7)): programs go on from there, as after any signal, and not a byte is lost or comes twice.
 *
 * harness: threads=4 modes=control,left-running,restored
 */
#include "specimen.h"

#include <sys/socket.h>

enum { MUCH = 400000, ALL = 8, EARLY = 4 };

static int pipe_ends[2], stream[2], whole[2];
static uint8_t sent[MUCH];

struct sender {
	int fd;
	ssize_t first;
};

static void *send_much(void *arg)
{
	struct sender *sender = arg;
	for (size_t at = 0; at < MUCH;) {
		ssize_t n = MUST(write(sender->fd, sent + at, MUCH - at));
		if (at == 0)
			sender->first = n;
		at += (size_t)n;
	}
	return NULL;
}

static void *receive_all(void *arg)
{
	char bytes[ALL];
	ssize_t n = MUST(recv(whole[0], bytes, ALL, MSG_WAITALL));
	*(ssize_t *)arg = n;
	if (n < ALL)
		MUST(recv(whole[0], bytes + n, (size_t)(ALL - n), MSG_WAITALL));
	expect_bytes("what was waited for", "abcdefgh", bytes, ALL);
	return NULL;
}

static void drain(const char *what, int fd)
{
	static uint8_t seen[MUCH];
	for (size_t at = 0; at < MUCH;)
		at += (size_t)MUST(read(fd, seen + at, MUCH - at));
	expect_bytes(what, sent, seen, MUCH);
}

int main(void)
{
	bool alone = strcmp(specimen_mode(), "control") == 0;
	pattern_fill(sent, MUCH, 5);
	while (specimen_round()) {
		ssize_t received = 0;
		pthread_t threads[3];
		MUST(pipe(pipe_ends));
		MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, stream));
		MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, whole));
		MUST(write(whole[1], "abcd", EARLY));
		struct sender senders[2] = { { .fd = pipe_ends[1] }, { .fd = stream[1] } };
		for (int i = 0; i < 2; i++)
			threads[i] = start_blocked(send_much, &senders[i]);
		threads[2] = start_blocked(receive_all, &received);
		specimen_ready();
		drain("the pipe", pipe_ends[0]);
		drain("the socket", stream[0]);
		MUST(write(whole[1], "efgh", ALL - EARLY));
		for (int i = 0; i < 3; i++)
			MUST_ZERO(pthread_join(threads[i], NULL));
		expect_int("write to a pipe", alone ? MUCH : 65536, senders[0].first);
		expect_between("write to a socket", alone ? MUCH : 1, alone ? MUCH : MUCH - 1, senders[1].first);
		expect_int("recv(MSG_WAITALL)", alone ? ALL : EARLY, received);
		for (int i = 0; i < 2; i++) {
			close(pipe_ends[i]);
			close(stream[i]);
			close(whole[i]);
		}
	}
	return specimen_end();
}
