/*
 * foreground.c - fsnap stands in for the restored tree, as a shell does for a job.
 *
 * Whoever started `fsnap restore` knows only fsnap: what is sent to it is meant
 * for the tree, and what becomes of the tree must become of it.  All signals are
 * blocked and taken one by one with sigwaitinfo(2), so nothing is lost between a
 * signal and the wait, and no handler runs anywhere.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "engine/cli/cli.h"

struct foreground {
	pid_t root;
	int tty; /* the controlling terminal; -1: none, or the tree does not want it */
	bool lent; /* the root's group has it */
	struct termios modes;	   /* of the terminal, as it was before the tree came */
	struct termios tree_modes; /* as the tree had it when it stopped */
	bool have_modes, have_tree_modes;
};

static const int forwarded[] = { SIGINT,  SIGTERM, SIGHUP,  SIGQUIT, SIGUSR1, SIGUSR2,
				 SIGWINCH, SIGCONT, SIGTSTP, SIGALRM };

struct foreground *foreground_begin(void)
{
	static struct foreground only; /* a process has one foreground */

	only.tty = -1;
	/* With SIGCHLD ignored the kernel would throw the tree's exit status away. */
	signal(SIGCHLD, SIG_DFL);
	if (isatty(STDIN_FILENO))
		only.have_modes = !tcgetattr(STDIN_FILENO, &only.modes);
	return &only;
}

/* Signals that fsnap was told to ignore (nohup(1), a shell's background job) stay ignored. */
static sigset_t take_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++) {
		struct sigaction action;

		if (!sigaction(forwarded[i], NULL, &action) && action.sa_handler != SIG_IGN)
			sigaddset(&set, forwarded[i]);
	}
	sigset_t blocked = set;
	/* Blocked, it lets a background process use tcsetpgrp(3) and tcsetattr(3). */
	sigaddset(&blocked, SIGTTOU);
	sigprocmask(SIG_BLOCK, &blocked, NULL);
	return set;
}

/* --- the terminal ----------------------------------------------------------------- */

/* Only who has the terminal can lend it: after `fsnap restore &` the shell has it. */
static void lend_terminal(struct foreground *foreground)
{
	pid_t group = getpgid(foreground->root);

	if (foreground->tty < 0 || foreground->lent || group <= 0 || group == getpgrp() ||
	    tcgetpgrp(foreground->tty) != getpgrp())
		return;
	if (foreground->have_tree_modes)
		tcsetattr(foreground->tty, TCSADRAIN, &foreground->tree_modes);
	foreground->lent = !tcsetpgrp(foreground->tty, group);
}

static void take_terminal_back(struct foreground *foreground, bool will_go_on)
{
	if (!foreground->lent)
		return;
	foreground->lent = false;
	foreground->have_tree_modes =
		will_go_on && !tcgetattr(foreground->tty, &foreground->tree_modes);
	tcsetpgrp(foreground->tty, getpgrp());
	if (foreground->have_modes)
		tcsetattr(foreground->tty, TCSADRAIN, &foreground->modes);
}

/* --- signals ---------------------------------------------------------------------- */

/* To the group the root leads, as the terminal would send it; else to the root alone. */
static void send_on(const struct foreground *foreground, int signal)
{
	pid_t root = foreground->root;

	kill(getpgid(root) == root ? -root : root, signal);
}

static void forward(struct foreground *foreground, const siginfo_t *info)
{
	/* The terminal sends to a whole group: a root in ours has its own copy already. */
	if (info->si_code == SI_KERNEL && getpgid(foreground->root) == getpgrp())
		return;
	if (info->si_signo == SIGCONT)
		lend_terminal(foreground);
	send_on(foreground, info->si_signo);
}

/* Does to this process what the signal does by default. */
static void suffer(int number)
{
	sigset_t set;

	signal(number, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, number);
	kill(getpid(), number);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static void root_stopped(struct foreground *foreground, int number)
{
	/* It reached for the terminal just before it was lent: nothing to stop for. */
	if ((number == SIGTTIN || number == SIGTTOU) && foreground->lent) {
		send_on(foreground, SIGCONT);
		return;
	}
	take_terminal_back(foreground, true);
	suffer(number);
}

static int root_ended(struct foreground *foreground, int status)
{
	take_terminal_back(foreground, false);
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	/* The core, if any, is the tree's; this one would only overwrite it. */
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
	suffer(WTERMSIG(status));
	return 128 + WTERMSIG(status);
}

int foreground_wait(struct foreground *foreground, pid_t root, bool terminal)
{
	sigset_t set = take_signals();
	siginfo_t info;
	int status;

	foreground->root = root;
	if (terminal)
		foreground->tty = open("/dev/tty", O_RDWR | O_CLOEXEC);
	lend_terminal(foreground);
	/* It is another window, empty and perhaps of another size: whoever fills one draws it anew. */
	if (terminal)
		send_on(foreground, SIGWINCH);
	for (;;) {
		pid_t got = waitpid(root, &status, WNOHANG | WUNTRACED);

		if (got < 0 && errno != EINTR)
			return EXIT_RESTORE; /* somebody else has reaped it */
		if (got == root && WIFSTOPPED(status))
			root_stopped(foreground, WSTOPSIG(status));
		else if (got == root)
			return root_ended(foreground, status);
		else if (sigwaitinfo(&set, &info) > 0 && info.si_signo != SIGCHLD)
			forward(foreground, &info);
	}
}
