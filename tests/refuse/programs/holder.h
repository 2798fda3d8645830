/*
 * A program that holds one thing fsnap cannot save: it creates "ready", and answers every SIGUSR1 by appending a
 * byte to "answers", so that one can see it is well.  Exit status 77: this kernel or this user does not let it have
 * the thing.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct holding {
	const char *name;
	void (*hold)(void);
};

static int keep(int fd)
{
	if (fd < 0) {
		perror("holder");
		exit(77);
	}
	return fd;
}

static int hold(const struct holding *kinds, size_t n, const char *name)
{
	sigset_t usr1;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	for (size_t i = 0; i < n; i++)
		if (strcmp(name, kinds[i].name) == 0)
			kinds[i].hold();
	close(open("ready", O_WRONLY | O_CREAT, 0644));
	for (;;) {
		if (sigwaitinfo(&usr1, NULL) != SIGUSR1)
			continue; /* whether EINTR may happen is wait_signal's question */
		int fd = open("answers", O_WRONLY | O_CREAT | O_APPEND, 0644);
		if (write(fd, ".", 1) != 1)
			return 3;
		close(fd);
	}
}
