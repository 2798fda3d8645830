/*
 * Children that have ended in every way: killed, with an exit signal that is not SIGCHLD or none, leaders of a
 * group or session that others are still in, with threads, as another user, below a subreaper. Their
 * statuses, owners and order are what they were, and no signal comes a second time.
 *
 * harness: differs=limit|SigBlk|ShdPnd|SigCgt|Cap|THP|timerslack|coredump
 */
#include "specimen.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static volatile sig_atomic_t usr1, children;

static void count(int number)
{
	if (number == SIGUSR1)
		usr1++;
	else
		children++;
}

static void *idle(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void by_exit(void)
{
	_exit(255);
}

static void by_kill(void)
{
	raise(SIGKILL);
}

static void by_segv(void)
{
	raise(SIGSEGV); /* without a core: dumpable is 0 */
}

static void by_thread(void)
{
	pthread_t thread;
	for (int i = 0; i < 3; i++)
		pthread_create(&thread, NULL, idle, NULL);
	_exit(3);
}

static void by_real_time_signal(void)
{
	raise(SIGRTMIN + 3);
}

static void as_other(void)
{
	if (geteuid() == 0 && setresuid(4711, 4711, 4711) < 0)
		_exit(99);
	_exit(5);
}

static const struct {
	const char *name;
	void (*end)(void);
	int exit_signal, code, status;
} ways[] = {
	{ "exit", by_exit, SIGCHLD, CLD_EXITED, 255 },
	{ "SIGKILL", by_kill, SIGCHLD, CLD_KILLED, SIGKILL },
	{ "SIGSEGV", by_segv, SIGCHLD, CLD_KILLED, SIGSEGV },
	{ "with threads", by_thread, SIGCHLD, CLD_EXITED, 3 },
	{ "real-time signal", by_real_time_signal, SIGCHLD, CLD_KILLED, 0 /* SIGRTMIN + 3 */ },
	{ "another user", as_other, SIGCHLD, CLD_EXITED, 5 },
	{ "exit signal SIGUSR1", by_exit, SIGUSR1, CLD_EXITED, 255 },
	{ "no exit signal", by_exit, 0, CLD_EXITED, 255 },
};
enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

static pid_t start(int i)
{
	pid_t pid = (pid_t)MUST(syscall(SYS_clone, (long)ways[i].exit_signal, 0, 0, 0, 0));
	if (pid == 0) {
		prctl(PR_SET_DUMPABLE, 0);
		ways[i].end();
	}
	siginfo_t info;
	MUST(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | __WALL));
	return pid;
}

static void check(int i, pid_t pid)
{
	siginfo_t info = { 0 };
	int status = ways[i].status ? ways[i].status : SIGRTMIN + 3;
	MUST(waitid(P_PID, (id_t)pid, &info, WEXITED | __WALL | WNOHANG));
	expect_int(ways[i].name, pid, info.si_pid);
	expect_int("  code", ways[i].code, info.si_code);
	expect_int("  status", status, info.si_status);
	expect_int("  user", ways[i].end == as_other && geteuid() == 0 ? 4711 : (int)getuid(), (int)info.si_uid);
}

/* The leader ends, a member of its group lives; an orphan whose parent has ended comes to us. */
static pid_t start_group(pid_t *member)
{
	pid_t leader = MUST(fork());
	if (leader == 0)
		idle(NULL);
	MUST(setpgid(leader, leader));
	*member = MUST(fork());
	if (*member == 0)
		idle(NULL);
	MUST(setpgid(*member, leader));
	MUST(kill(leader, SIGTERM));
	siginfo_t info;
	MUST(waitid(P_PID, (id_t)leader, &info, WEXITED | WNOWAIT));
	return leader;
}

int main(void)
{
	struct sigaction action = { .sa_handler = count, .sa_flags = SA_RESTART };
	MUST(sigaction(SIGUSR1, &action, NULL));
	MUST(sigaction(SIGCHLD, &action, NULL));
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	while (specimen_round()) {
		pid_t pids[WAYS], member;
		for (int i = 0; i < WAYS; i++)
			pids[i] = start(i);
		pid_t leader = start_group(&member);
		pid_t middle = MUST(fork());
		if (middle == 0) {
			if (MUST(fork()) == 0)
				_exit(77);
			_exit(0);
		}
		MUST(waitpid(middle, NULL, 0));
		siginfo_t info = { 0 };
		sleep_ms(30);
		int usr1_before = usr1, children_before = children;
		specimen_ready();
		expect_int("SIGUSR1 came", usr1_before, usr1);
		expect_int("SIGCHLD came", children_before, children);
		expect_int("the first to be told of", pids[0],
			   waitid(P_ALL, 0, &info, WEXITED | WNOWAIT | WNOHANG | __WALL) ? -1 : info.si_pid);
		for (int i = 0; i < WAYS; i++)
			check(i, pids[i]);
		expect_int("group of the member", leader, getpgid(member));
		expect_ok("signal to the group", kill(-leader, SIGKILL));
		MUST(waitid(P_PID, (id_t)leader, &info, WEXITED));
		expect_int("its leader's end", SIGTERM, info.si_status);
		MUST(waitid(P_PID, (id_t)member, &info, WEXITED));
		expect_int("the member's", SIGKILL, info.si_status);
		MUST(waitid(P_ALL, 0, &info, WEXITED));
		expect_int("the orphan's", 77, info.si_status);
		expect_errno("nobody is left", ECHILD, waitid(P_ALL, 0, &info, WEXITED | __WALL));
	}
	return specimen_end();
}
