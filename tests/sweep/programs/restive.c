/*
 * restive HOW - a process that does something all the time which makes it hard to hold: dies (exit, kill),
 * becomes another program (exec), has children (fork, vfork) or threads (threads) come and go.
 * "dies" and "exec" wait some MS milliseconds first, so that a dump can be anywhere.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void *pass(void *arg)
{
	return arg;
}

static void *sleep_on(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void crowd(void)
{
	for (int i = 0; i < 8; i++) {
		pthread_t thread;
		pthread_create(&thread, NULL, sleep_on, NULL);
	}
}

static void forks(void)
{
	for (;;) {
		if (fork() == 0)
			_exit(0);
		if (rand() % 4)
			wait(NULL);
	}
}

static void threads(void)
{
	for (;;) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, pass, NULL) == 0)
			pthread_detach(thread);
	}
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";
	useconds_t us = argc > 2 ? (useconds_t)atoi(argv[2]) : 0;
	FILE *ready = fopen("ready", "w");
	if (ready)
		fclose(ready);
	signal(SIGCHLD, SIG_DFL);
	if (!strcmp(how, "forks"))
		forks();
	if (!strcmp(how, "threads"))
		threads();
	if (!strcmp(how, "vforks"))
		for (;;) {
			if (vfork() == 0) {
				execl("/bin/true", "true", NULL);
				_exit(1);
			}
			wait(NULL);
		}
	crowd();
	usleep(us);
	if (!strcmp(how, "execs"))
		for (;;)
			execl(argv[0], argv[0], how, "300", NULL);
	if (!strcmp(how, "exits"))
		exit(3);
	if (!strcmp(how, "crashes"))
		raise(SIGSEGV);
	pause();
	return 1;
}
