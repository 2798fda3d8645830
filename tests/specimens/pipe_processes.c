/*
 * A pipe between processes of the tree, in both directions, with bytes under
 * way: parent and child are still connected by the same two pipes, and the end
 * of file comes when the last writer closes.
 *
 * harness: musl
 */
#include "specimen.h"

#include <sys/wait.h>

enum { SIZE = 20000 };

static ssize_t read_all(int fd, char *buf, size_t size)
{
	size_t got = 0;
	for (ssize_t n; got < size && (n = read(fd, buf + got, size - got)) > 0;)
		got += (size_t)n;
	return (ssize_t)got;
}

/* Answers every request with the next pattern; at end of file, ends with 23. */
static void child(int requests, int answers)
{
	char number;
	static char buf[SIZE];
	while (read(requests, &number, 1) == 1) {
		pattern_fill(buf, SIZE, (uint64_t)number);
		MUST(write(answers, buf, SIZE));
	}
	_exit(23);
}

int main(void)
{
	int down[2], up[2];
	static char buf[SIZE];
	MUST(pipe(down));
	MUST(pipe(up));
	pid_t pid = MUST(fork());
	if (pid == 0) {
		close(down[1]);
		close(up[0]);
		child(down[0], up[1]);
	}
	close(down[0]);
	close(up[1]);
	for (char number = 1; specimen_round(); number = (char)(number + 3)) {
		/* One answer under way, and perhaps a request that was not read yet. */
		char request = number, next = (char)(number + 1), last = (char)(number + 2);
		MUST(write(down[1], &request, 1));
		until_asleep(pid);
		MUST(write(down[1], &next, 1));
		specimen_ready();
		expect_int("bytes of the answer", SIZE, read_all(up[0], buf, SIZE));
		expect_pattern("answer", buf, SIZE, (uint64_t)request);
		expect_int("bytes of the next answer", SIZE, read_all(up[0], buf, SIZE));
		expect_pattern("next answer", buf, SIZE, (uint64_t)next);
		MUST(write(down[1], &last, 1));
		expect_int("bytes of a new answer", SIZE, read_all(up[0], buf, SIZE));
		expect_pattern("new answer", buf, SIZE, (uint64_t)last);
	}
	int status = 0;
	close(down[1]);
	waitpid(pid, &status, 0);
	expect_int("the child saw the end of file", 23,
		   WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	expect_int("and so do we", 0, read(up[0], buf, 1));
	return specimen_end();
}
