/*
 * Children stopped by each signal that stops, whose parent has, or has not yet, been told by wait(2), one of
 * them with several threads, and one that was continued without the parent having asked: it is told
 * what it was to be told and nothing twice, and SIGCHLD comes no more often than it did.
 */
#include "specimen.h"

#include <signal.h>
#include <sys/wait.h>

static volatile sig_atomic_t told;

static void on_child(int number)
{
	(void)number;
	told++;
}

static void *tick(void *arg)
{
	for (;;)
		sleep_ms(50);
	return arg;
}

static const struct {
	int signo;
	bool asked, threads, go_on;
} jobs[] = {
	{ SIGSTOP, true, false, false },  { SIGSTOP, false, false, false }, { SIGTSTP, true, false, false },
	{ SIGTSTP, false, true, false },  { SIGTTIN, false, false, false }, { SIGTTOU, true, false, false },
	{ SIGSTOP, true, true, false },	  { SIGSTOP, true, false, true },
};
enum { JOBS = sizeof(jobs) / sizeof(jobs[0]) };

static char state(pid_t pid)
{
	char path[64], text[64];
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	return proc_field(path, "State", text, sizeof(text))[0];
}

/* In a group of its own, so that none is an orphaned group's, where the terminal's signals do not stop. */
static pid_t start(int i)
{
	pid_t pid = MUST(fork());
	if (pid == 0) {
		pthread_t thread;
		for (int j = 0; jobs[i].threads && j < 3; j++)
			MUST_ZERO(pthread_create(&thread, NULL, tick, NULL));
		tick(NULL);
	}
	MUST(setpgid(pid, pid));
	sleep_ms(jobs[i].threads ? 30 : 5);
	MUST(kill(pid, jobs[i].signo));
	while (state(pid) != 'T')
		sleep_ms(1);
	siginfo_t info;
	if (jobs[i].asked)
		MUST(waitid(P_PID, (id_t)pid, &info, WSTOPPED));
	if (jobs[i].go_on) {
		MUST(kill(pid, SIGCONT));
		while (state(pid) == 'T')
			sleep_ms(1);
	}
	return pid;
}

static int asked(pid_t pid, int *status)
{
	*status = 0;
	return waitpid(pid, status, WUNTRACED | WCONTINUED | WNOHANG);
}

static void check(int i, pid_t pid)
{
	int status;
	char what[64];
	snprintf(what, sizeof(what), "job %d (signal %d)", i, jobs[i].signo);
	while (state(pid) == 'R') /* it ticks */
		sleep_ms(1);
	expect_int(what, jobs[i].go_on ? 'S' : 'T', state(pid));
	bool news = !jobs[i].asked || jobs[i].go_on;
	expect_int("  has news", news ? pid : 0, asked(pid, &status));
	if (news && jobs[i].go_on)
		expect_int("  it was continued", 1, WIFCONTINUED(status));
	else if (news)
		expect_int("  what stopped it", jobs[i].signo, WIFSTOPPED(status) ? WSTOPSIG(status) : -1);
	expect_int("  nothing twice", 0, asked(pid, &status));
	if (jobs[i].go_on)
		return;
	MUST(kill(pid, SIGCONT));
	for (int ms = 0; state(pid) == 'T' && ms < 1000; ms++)
		sleep_ms(1);
	expect_int("  continued", pid, asked(pid, &status));
	expect_int("  and told so", 1, WIFCONTINUED(status));
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_child, .sa_flags = SA_RESTART };
	while (specimen_round()) {
		sigset_t child, pending;
		/* Once with a handler, once blocked, once blocked and with one that waits. */
		bool handled = specimen_number() == 1, waiting = specimen_number() == 3;
		sigemptyset(&child);
		sigaddset(&child, SIGCHLD);
		signal(SIGCHLD, SIG_DFL);
		MUST(sigprocmask(handled ? SIG_UNBLOCK : SIG_BLOCK, &child, NULL));
		if (handled)
			MUST(sigaction(SIGCHLD, &action, NULL));
		pid_t pids[JOBS];
		for (int i = 0; i < JOBS; i++)
			pids[i] = start(i);
		sleep_ms(100); /* SIGCHLD comes a little after the state */
		if (!handled && !waiting) {
			signal(SIGCHLD, SIG_DFL); /* takes back what is pending */
			MUST(sigpending(&pending));
			MUST(sigismember(&pending, SIGCHLD) ? -1 : 0);
		}
		int before = told;
		specimen_ready();
		expect_int("SIGCHLD came", before, told);
		MUST(sigpending(&pending));
		expect_int("SIGCHLD waits", waiting, sigismember(&pending, SIGCHLD));
		for (int i = 0; i < JOBS; i++)
			check(i, pids[i]);
		for (int ms = 0; handled && told == before && ms < 2000; ms++)
			sleep_ms(1);
		if (handled)
			expect_int("its handler is there", 1, told > before);
		for (int i = 0; i < JOBS; i++) {
			MUST(kill(pids[i], SIGKILL));
			MUST(waitpid(pids[i], NULL, 0));
		}
	}
	return specimen_end();
}
