/*
 * stopwatch.c - how long a command takes, seen by who started it.
 *
 *	stopwatch OUTPUT COMMAND [ARGUMENT...]
 *
 * prints "START END STATUS": nanoseconds of CLOCK_MONOTONIC just before
 * posix_spawn(3) and just after waitpid(2), and the exit status. The command's
 * stdout goes to the file OUTPUT, its stderr to OUTPUT.err, and stdin is
 * /dev/null: files and not pipes, so that reading them costs nothing while the
 * clock runs. A small program does this because Python's own start of a process
 * is as long as what is measured.
 */
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "page.h"

extern char **environ;

static void redirect(posix_spawn_file_actions_t *actions, int fd, const char *path, int flags)
{
	posix_spawn_file_actions_addopen(actions, fd, path, flags, 0600);
}

int main(int argc, char **argv)
{
	posix_spawn_file_actions_t actions;
	char errors[4096];
	int status;
	pid_t pid;

	if (argc < 3) {
		fprintf(stderr, "usage: stopwatch OUTPUT COMMAND [ARGUMENT...]\n");
		return 2;
	}
	snprintf(errors, sizeof(errors), "%s.err", argv[1]);
	posix_spawn_file_actions_init(&actions);
	redirect(&actions, STDIN_FILENO, "/dev/null", O_RDONLY);
	redirect(&actions, STDOUT_FILENO, argv[1], O_WRONLY | O_CREAT | O_TRUNC);
	redirect(&actions, STDERR_FILENO, errors, O_WRONLY | O_CREAT | O_TRUNC);

	uint64_t start = now_ns();
	int error = posix_spawn(&pid, argv[2], &actions, NULL, argv + 2, environ);
	if (error) {
		fprintf(stderr, "stopwatch: %s: %s\n", argv[2], strerror(error));
		return 1;
	}
	if (waitpid(pid, &status, 0) != pid) {
		perror("stopwatch: waitpid");
		return 1;
	}
	uint64_t end = now_ns();

	printf("%llu %llu %d\n", (unsigned long long)start, (unsigned long long)end,
	       WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return 0;
}
