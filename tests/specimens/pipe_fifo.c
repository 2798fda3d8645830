/*
 * Named pipes: one held open for reading and writing with bytes in it, one
 * whose ends are in two processes; new openers by name reach the same pipe.
 *
 * harness: musl
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

int main(void)
{
	char *both_path = specimen_path("both"), *ends_path = specimen_path("ends"), buf[64] = "";
	MUST(mkfifo(both_path, 0600));
	MUST(mkfifo(ends_path, 0600));
	int both = MUST(open(both_path, O_RDWR | O_NONBLOCK));
	pid_t pid = MUST(fork());
	if (pid == 0) {
		int writer = MUST(open(ends_path, O_WRONLY));
		while (specimen_child_round())
			expect_int("child writes", 5, write(writer, "child", 5));
		_exit(specimen_end());
	}
	int reader = MUST(open(ends_path, O_RDONLY));

	while (specimen_round()) {
		MUST(write(both, "content", 7));
		specimen_ready();
		memset(buf, 0, sizeof(buf));
		expect_int("bytes in the fifo", 7, read(both, buf, sizeof(buf)));
		expect_text("content", "content", buf);
		expect_errno("and no more", EAGAIN, read(both, buf, 1));
		int other = MUST(open(both_path, O_WRONLY | O_NONBLOCK));
		MUST(write(other, "by name", 7));
		close(other);
		expect_int("bytes written by name", 7, read(both, buf, sizeof(buf)));
		expect_text("they are", "by name", buf);
		memset(buf, 0, sizeof(buf));
		expect_int("bytes from the child", 5, read(reader, buf, sizeof(buf)));
		expect_text("they are", "child", buf);
		specimen_await(1);
	}
	waitpid(pid, NULL, 0);
	expect_int("end of file", 0, read(reader, buf, 1));
	return specimen_end();
}
