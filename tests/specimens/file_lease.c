/*
 * Leases: a read lease and a write lease are still held, and somebody else's open
 * still tells the holder, by the signal and the descriptor it had asked for.
 */
#include "specimen.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

static volatile int seen_fd;

static void on_break(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)context;
	seen_fd = info->si_fd;
}

/* Somebody else opens it; we are told, give it up, and they get it. */
static void expect_broken(const char *path, int how, int fd)
{
	seen_fd = -1;
	pid_t pid = MUST(fork());
	if (pid == 0)
		_exit(open(path, how) < 0);
	for (int i = 0; i < 400 && seen_fd < 0; i++)
		sleep_ms(5);
	expect_int("whose lease is wanted", fd, seen_fd);
	expect_ok("give it up", fcntl(fd, F_SETLEASE, F_UNLCK));
	int status = -1;
	MUST(waitpid(pid, &status, 0));
	expect_int("the other one could open it", 0, status);
}

int main(void)
{
	char *read_path = specimen_path("read"), *write_path = specimen_path("write");
	close(MUST(open(read_path, O_RDWR | O_CREAT, 0600)));
	int reader = MUST(open(read_path, O_RDONLY)), writer = MUST(open(write_path, O_RDWR | O_CREAT, 0600));
	struct sigaction action = { .sa_sigaction = on_break, .sa_flags = SA_SIGINFO | SA_RESTART };
	MUST(sigaction(SIGRTMIN + 1, &action, NULL));

	while (specimen_round()) {
		MUST(fcntl(reader, F_SETSIG, SIGRTMIN + 1)); /* giving a lease up has forgotten it */
		MUST(fcntl(writer, F_SETSIG, SIGRTMIN + 1));
		if (fcntl(reader, F_SETLEASE, F_RDLCK) < 0)
			specimen_skip("the file system has no leases");
		MUST(fcntl(writer, F_SETLEASE, F_WRLCK));
		specimen_ready();
		expect_int("read lease", F_RDLCK, fcntl(reader, F_GETLEASE));
		expect_int("write lease", F_WRLCK, fcntl(writer, F_GETLEASE));
		expect_broken(read_path, O_WRONLY, reader);
		expect_broken(write_path, O_RDONLY, writer);
	}
	return specimen_end();
}
