/*
 * Process groups and sessions across a family: who is in whose, and that a
 * signal to a group reaches exactly its members.
 */
#include "specimen.h"

#include <signal.h>
#include <sys/wait.h>

enum { CHILDREN = 5 };

/* Written before forking on, read by those forked later. */
static pid_t who[CHILDREN];

static volatile sig_atomic_t hits;

static void on_usr1(int number)
{
	(void)number;
	hits++;
}

/* 0, 1: a group of their own, led by 0. 2: a session. 3: a child of 2, own group. 4: ours. */
static void arrange(int index)
{
	if (index == 0)
		MUST(setpgid(0, 0));
	else if (index == 1)
		MUST(setpgid(0, who[0]));
	else if (index == 2)
		MUST(setsid());
	else if (index == 3)
		MUST(setpgid(0, 0));
}

static _Noreturn void live(int index);

static pid_t start(int index)
{
	pid_t pid = MUST(fork());
	if (pid == 0)
		live(index);
	char ready[32];
	snprintf(ready, sizeof(ready), "arranged.%d", index);
	while (access(specimen_path("%s", ready), F_OK) < 0)
		sleep_ms(1);
	return pid;
}

static void live(int index)
{
	arrange(index);
	pid_t mine = getpid(), group = getpgrp(), session = getsid(0), parent = getppid();
	pid_t child = index == 2 ? start(3) : 0;
	FILE *f = fopen(specimen_path("arranged.%d", index), "w");
	fclose(f);
	while (specimen_child_round()) {
		expect_int("pid", mine, getpid());
		expect_int("process group", group, getpgrp());
		expect_int("session", session, getsid(0));
		expect_int("parent", parent, getppid());
		/* The first process sends one signal to our group, or none. */
		int wanted = index < 2 ? specimen_number() : 0;
		for (int i = 0; i < 400 && hits < wanted; i++)
			sleep_ms(5);
		expect_int("signals to the group", wanted, hits);
	}
	if (child)
		waitpid(child, NULL, 0);
	_exit(specimen_end());
}

int main(void)
{
	signal(SIGUSR1, on_usr1);
	for (int i = 0; i < CHILDREN; i++)
		if (i != 3)
			who[i] = start(i);
	while (specimen_round()) {
		specimen_ready();
		expect_ok("signal to the group", kill(-who[0], SIGUSR1));
		specimen_await(CHILDREN);
		expect_int("signals here", 0, hits);
		expect_int("group of a child", who[0], getpgid(who[1]));
		expect_int("session of a child", who[2], getsid(who[2]));
		expect_int("group of a child that stayed", getpgrp(), getpgid(who[4]));
	}
	return specimen_end();
}
