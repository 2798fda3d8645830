/*
 * A TCP server that others call at any moment, also while it stands still: whoever
 * got through is served, or was refused while there was no server; nobody's
 * connection is reset, and nobody waits for ever. The callers are outside of the
 * tree; each has a thread.
 *
 * harness: tcp=keep restless
 */
#include "specimen.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { CALLERS = 32, PATIENCE_MS = 8000 };
enum { EAGER_MS = 20, LAZY_MS = 150 }; /* the lazy ones call at any moment of a dump, also at its last */

static struct sockaddr_in address = { .sin_family = AF_INET };
static int listener;
static char *counts_path, *errors_path;

/* --- outside ------------------------------------------------------------------- */

static void complain(int caller, const char *what)
{
	char line[128];
	int fd = open(errors_path, O_WRONLY | O_CREAT | O_APPEND, 0644);
	snprintf(line, sizeof(line), "%s: caller %d: errno %d; ", what, caller, errno);
	MUST(write(fd, line, strlen(line)));
	close(fd);
}

static void call(int caller)
{
	char byte = (char)caller, answer = 0;
	int fd = MUST(socket(AF_INET, SOCK_STREAM, 0));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno != ECONNREFUSED)
			complain(caller, "connect");
	} else if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1) {
		complain(caller, "send");
	} else if (recv(fd, &answer, 1, 0) != 1) {
		complain(caller, "recv");
	} else if (answer != byte) {
		complain(caller, "another's answer");
	}
	close(fd);
}

static void *calls(void *arg)
{
	int caller = (int)(intptr_t)arg, counts = MUST(open(counts_path, O_WRONLY));
	unsigned seed = (unsigned)caller;
	for (int n = 1;; n++) {
		call(caller);
		MUST(pwrite(counts, &n, sizeof(n), caller * (off_t)sizeof(n)));
		sleep_ms(rand_r(&seed) % (caller % 2 ? EAGER_MS : LAZY_MS));
	}
	return NULL;
}

/* Its parent dies: it is not of our tree. */
static void start_callers(void)
{
	pid_t middle = MUST(fork());
	if (middle == 0) {
		if (fork() == 0) {
			pthread_t thread;
			setsid();
			close(listener);
			for (intptr_t i = 0; i < CALLERS; i++)
				MUST_ZERO(pthread_create(&thread, NULL, calls, (void *)i));
			pause();
		}
		_exit(0);
	}
	MUST(waitpid(middle, NULL, 0));
}

/* --- inside -------------------------------------------------------------------------- */

static void *serve(void *arg)
{
	char byte;
	(void)arg;
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			continue;
		if (read(fd, &byte, 1) == 1)
			send(fd, &byte, 1, MSG_NOSIGNAL);
		close(fd);
	}
	return NULL;
}

static void read_counts(int *counts)
{
	int fd = MUST(open(counts_path, O_RDONLY));
	MUST(pread(fd, counts, CALLERS * sizeof(*counts), 0));
	close(fd);
}

/* Everybody's call from before is over, and one after it. */
static void expect_all_go_on(void)
{
	int before[CALLERS] = { 0 }, now[CALLERS] = { 0 }, on = 0;
	read_counts(before);
	for (long long end = now_ms() + PATIENCE_MS; on < CALLERS && now_ms() < end; sleep_ms(5)) {
		read_counts(now);
		on = 0;
		for (int i = 0; i < CALLERS; i++)
			on += now[i] >= before[i] + 2;
	}
	expect_int("callers that go on", CALLERS, on);
}

static void expect_no_errors(void)
{
	char seen[1024] = "";
	int fd = open(errors_path, O_RDONLY);
	if (fd >= 0 && read(fd, seen, sizeof(seen) - 1) < 0)
		seen[0] = '\0';
	close(fd);
	expect_text("what callers complain of", "", seen);
}

int main(void)
{
	int zeroes[CALLERS] = { 0 };
	socklen_t size = sizeof(address);
	pthread_t thread;
	counts_path = specimen_path("counts");
	errors_path = specimen_path("errors");
	int fd = MUST(open(counts_path, O_WRONLY | O_CREAT | O_TRUNC, 0644));
	MUST(write(fd, zeroes, sizeof(zeroes)));
	close(fd);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = MUST(socket(AF_INET, SOCK_STREAM, 0));
	MUST(bind(listener, (struct sockaddr *)&address, sizeof(address)));
	MUST(listen(listener, 64));
	MUST(getsockname(listener, (struct sockaddr *)&address, &size));
	start_callers();
	MUST_ZERO(pthread_create(&thread, NULL, serve, NULL));
	while (specimen_round()) {
		expect_all_go_on();
		specimen_ready();
		expect_all_go_on();
		expect_no_errors();
	}
	return specimen_end();
}
