/*
 * Orphans below a subreaper, each in the session it was born into: of a leader that has ended (a
 * daemon that forked twice), of one that is a zombie, of a brother, of a cousin; and a process
 * group whose leader has ended. Sessions, groups and parents are what they were, a signal to the
 * group reaches its members, and nobody new can be waited for.
 *
 * harness: differs=limit|SigBlk|SigCgt|Cap|THP|timerslack|coredump
 */
#include "specimen.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { DAEMON, OF_ZOMBIE, OF_BROTHER, OF_COUSIN, MEMBER, OTHER_MEMBER, CHECKERS };

static volatile sig_atomic_t hits;

static void on_usr1(int number)
{
	(void)number;
	hits++;
}

static void put(const char *name, pid_t pid)
{
	char *path = specimen_path("%s", name), *temporary = specimen_path("%s.tmp", name);
	FILE *f = fopen(temporary, "w");
	fprintf(f, "%d\n", pid);
	fclose(f);
	rename(temporary, path);
}

static pid_t get(const char *name)
{
	int pid = 0;
	for (FILE *f = NULL; pid == 0; sleep_ms(1)) {
		f = fopen(specimen_path("%s", name), "r");
		if (f && fscanf(f, "%d", &pid) == 1 && pid)
			fclose(f);
	}
	return pid;
}

/* What it is when all have settled is what it must stay. */
static _Noreturn void check(const char *name, pid_t parent, bool in_group)
{
	while (getppid() != parent)
		sleep_ms(1);
	pid_t pid = getpid(), session = getsid(0), group = getpgrp();
	put(name, pid);
	while (specimen_child_round()) {
		expect_int("pid", pid, getpid());
		expect_int("parent", parent, getppid());
		expect_int("session", session, getsid(0));
		expect_int("process group", group, getpgrp());
		for (int i = 0; i < 400 && in_group && hits < specimen_number(); i++)
			sleep_ms(5);
		expect_int("signals to the group", in_group ? specimen_number() : 0, hits);
	}
	_exit(specimen_end());
}

/* Leads a session; its grandchild comes to the subreaper. Lives, ends, or ends and stays unburied. */
static pid_t leader(const char *name, pid_t parent, bool live)
{
	pid_t pid = MUST(fork());
	if (pid)
		return pid;
	MUST(setsid());
	pid_t middle = MUST(fork());
	if (middle == 0) {
		if (MUST(fork()) == 0)
			check(name, parent, false);
		_exit(0);
	}
	MUST(waitpid(middle, NULL, 0));
	while (live)
		pause();
	_exit(7);
}

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static char *list_children(char buf[512])
{
	char path[64];
	int pids[32], n = 0, at = 0;
	snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
	FILE *f = fopen(path, "r");
	while (f && n < 32 && fscanf(f, "%d", &pids[n]) == 1)
		n++;
	if (f)
		fclose(f);
	qsort(pids, (size_t)n, sizeof(int), by_number);
	buf[0] = '\0';
	for (int i = 0; i < n; i++)
		at += snprintf(buf + at, 512 - (size_t)at, "%d ", pids[i]);
	return buf;
}

int main(void)
{
	pid_t here = getpid();
	signal(SIGUSR1, on_usr1);
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	pid_t lost = leader("daemon", here, false);
	pid_t zombie = leader("of_zombie", here, false);
	pid_t brother = leader("of_brother", here, true);
	pid_t uncle = MUST(fork());
	if (uncle == 0) {
		leader("of_cousin", here, true);
		for (;;)
			pause();
	}
	static const char *const names[] = { "daemon", "of_zombie", "of_brother", "of_cousin" };
	pid_t orphans[4];
	for (int i = 0; i < 4; i++)
		orphans[i] = get(names[i]);
	MUST(waitpid(lost, NULL, 0));
	siginfo_t info;
	MUST(waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT));

	pid_t group = MUST(fork());
	if (group == 0) {
		for (;;)
			pause();
	}
	MUST(setpgid(group, group));
	pid_t members[2];
	for (int i = 0; i < 2; i++) {
		members[i] = MUST(fork());
		if (members[i] == 0) {
			MUST(setpgid(0, group));
			check(i ? "member1" : "member0", here, true);
		}
		get(i ? "member1" : "member0");
	}
	MUST(kill(group, SIGKILL));
	MUST(waitpid(group, NULL, 0));

	char children[512], seen[512];
	while (specimen_round()) {
		list_children(children);
		specimen_ready();
		expect_int("session of the daemon", lost, getsid(orphans[DAEMON]));
		expect_int("session of the zombie's orphan", zombie, getsid(orphans[OF_ZOMBIE]));
		expect_int("session of the brother's orphan", brother, getsid(orphans[OF_BROTHER]));
		expect_int("its group", brother, getpgid(orphans[OF_BROTHER]));
		expect_text("children", children, list_children(seen));
		expect_errno("the leader that has ended", ESRCH, kill(lost, 0));
		expect_errno("the group's leader that has ended", ESRCH, kill(group, 0));
		expect_int("group of a member", group, getpgid(members[0]));
		expect_int("group of the other", group, getpgid(members[1]));
		expect_ok("signal to the group", kill(-group, SIGUSR1));
		specimen_await(CHECKERS);
		expect_int("the zombie is there", zombie,
			   waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT | WNOHANG) ? -1 : info.si_pid);
		expect_int("its status", 7, info.si_status);
	}
	MUST(kill(uncle, SIGKILL));
	MUST(kill(brother, SIGKILL));
	return specimen_end();
}
