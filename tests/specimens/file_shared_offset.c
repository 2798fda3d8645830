/*
 * One open file in two processes, and two opens of one file: who shared an
 * offset before shares it afterwards, and only they.
 */
#include "specimen.h"

#include <fcntl.h>
#include <sys/wait.h>

/* Until the offset is `wanted` or three seconds are over; what it is then. */
static long await_offset(int fd, long wanted)
{
	long seen;
	for (int i = 0; (seen = lseek(fd, 0, SEEK_CUR)) != wanted && i < 1500; i++)
		sleep_ms(2);
	return seen;
}

static void child(int shared, int back, int own)
{
	while (specimen_child_round()) {
		int number = specimen_number();
		expect_int("child: the parent's move of the shared offset", 1000 + number,
			   await_offset(shared, 1000 + number));
		expect_int("child: its own open stays", 5, lseek(own, 0, SEEK_CUR));
		expect_int("child: O_APPEND set by the parent", O_APPEND,
			   fcntl(shared, F_GETFL) & O_APPEND);
		MUST(lseek(back, 2000 + number, SEEK_SET));
	}
	_exit(specimen_end());
}

int main(void)
{
	char *path = specimen_path("shared");
	int shared = MUST(open(path, O_RDWR | O_CREAT, 0600));
	int back = MUST(open(path, O_RDWR));
	int twin = MUST(dup3(shared, 60, O_CLOEXEC));
	pid_t pid = MUST(fork());
	if (pid == 0) {
		int own = MUST(open(path, O_RDWR));
		MUST(lseek(own, 5, SEEK_SET));
		child(shared, back, own);
	}
	int own = MUST(open(path, O_RDWR));
	MUST(lseek(own, 6, SEEK_SET));
	sleep_ms(10);

	while (specimen_round()) {
		specimen_ready();
		int number = specimen_number();
		MUST(fcntl(shared, F_SETFL, O_APPEND));
		MUST(lseek(shared, 1000 + number, SEEK_SET));
		expect_int("a duplicate's offset", 1000 + number, lseek(twin, 0, SEEK_CUR));
		expect_int("the child's move of the other offset", 2000 + number,
			   await_offset(back, 2000 + number));
		specimen_await(1);
		expect_int("an open of one's own stays", 6, lseek(own, 0, SEEK_CUR));
	}
	int status;
	waitpid(pid, &status, 0);
	return specimen_end();
}
