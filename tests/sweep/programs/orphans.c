/*
 * orphans N - has N children; each of them that sees its parent dead has a child at once, which sleeps for ever.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static void child(const int pipe_ends[2])
{
	char byte;
	close(pipe_ends[1]);
	while (read(pipe_ends[0], &byte, 1) != 0)
		;
	if (fork() >= 0)
		pause();
	_exit(1);
}

int main(int argc, char **argv)
{
	int pipe_ends[2], n = argc > 1 ? atoi(argv[1]) : 0;
	if (pipe(pipe_ends) < 0)
		return 1;
	for (int i = 0; i < n; i++)
		if (fork() == 0)
			child(pipe_ends);
	close(pipe_ends[0]);
	close(open("ready", O_WRONLY | O_CREAT, 0600));
	for (;;)
		pause();
}
