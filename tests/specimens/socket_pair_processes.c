/*
 * A Unix socket pair between two processes of the tree, with a request and an
 * answer under way, still connects them.
 */
#include "specimen.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

int main(void)
{
	int ends[2];
	char buf[64];
	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
	pid_t pid = MUST(fork());
	if (pid == 0) {
		close(ends[0]);
		for (ssize_t n; (n = recv(ends[1], buf, sizeof(buf), 0)) > 0;) {
			buf[0]++;
			send(ends[1], buf, (size_t)n, 0);
		}
		_exit(24);
	}
	close(ends[1]);
	while (specimen_round()) {
		MUST(send(ends[0], "Abc", 3, 0));
		struct pollfd p = { .fd = ends[0], .events = POLLIN };
		MUST(poll(&p, 1, 3000));
		until_asleep(pid);
		specimen_ready();
		for (int i = 0; i < 3; i++) {
			memset(buf, 0, sizeof(buf));
			expect_int("an answer comes", 1, poll(&p, 1, 3000));
			expect_int("its length", 3, recv(ends[0], buf, sizeof(buf), MSG_DONTWAIT));
			expect_text("the answer", "Bbc", buf);
			if (i < 2)
				MUST(send(ends[0], "Abc", 3, 0));
		}
	}
	close(ends[0]);
	int status = 0;
	waitpid(pid, &status, 0);
	expect_int("the child saw the end", 24, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	return specimen_end();
}
