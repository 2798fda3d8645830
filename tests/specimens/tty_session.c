/*
 * A terminal inside the tree, as tmux or script(1) make one: the child's session has it as its
 * controlling terminal, one of its two jobs is in the foreground. After a restore the interrupt
 * character goes to that one, /dev/tty is the terminal, and who reads from the background stops.
 */
#include "specimen.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>

static volatile sig_atomic_t interrupts, windows;

static void interrupted(int signo)
{
	if (signo == SIGINT) /* one may come within the other */
		interrupts++;
	else
		windows++;
}

/* A job: says what happens to it. */
static void job(int slave, bool foreground)
{
	char line[64];
	signal(SIGINT, interrupted);
	signal(SIGWINCH, interrupted);
	while (specimen_child_round()) {
		if (foreground) {
			/* The line the first process types when it has sent the interrupt. */
			ssize_t n;
			while ((n = read(slave, line, sizeof(line) - 1)) < 0 && errno == EINTR)
				;
			line[n < 0 ? 0 : n] = '\0';
			line[strcspn(line, "\n")] = '\0';
			expect_text("what is typed comes to the foreground", "typed", line);
		}
		expect_int(foreground ? "interrupts in the foreground" : "interrupts in the background",
			   foreground ? 1 : 0, interrupts);
		expect_int("changes of the window", foreground ? 1 : 0, windows);
		expect_int("foreground group", foreground, tcgetpgrp(slave) == getpgrp());
		interrupts = windows = 0;
	}
	_exit(specimen_end());
}

static pid_t start_job(int slave, bool foreground)
{
	pid_t pid = MUST(fork());
	if (pid == 0) {
		setpgid(0, 0);
		job(slave, foreground);
	}
	setpgid(pid, pid);
	return pid;
}

static void shell(const char *name)
{
	MUST(setsid());
	int slave = MUST(open(name, O_RDWR)); /* becomes the controlling terminal */
	int controlling = MUST(open("/dev/tty", O_RDWR));
	pid_t front = start_job(slave, true);
	start_job(slave, false);
	signal(SIGTTOU, SIG_IGN);
	MUST(tcsetpgrp(slave, front));
	while (specimen_child_round()) {
		int again = open("/dev/tty", O_RDWR);
		expect_ok("/dev/tty opens", again);
		expect_int("session", getpid(), tcgetsid(slave));
		expect_int("the same through /dev/tty", getpid(), tcgetsid(controlling));
		expect_int("and its foreground", front, tcgetpgrp(controlling));
		expect_int("which is a terminal", 1, isatty(controlling));
		char link[64] = "", path[64];
		snprintf(path, sizeof(path), "/proc/self/fd/%d", controlling);
		if (readlink(path, link, sizeof(link) - 1) > 0)
			expect_text("by that name", "/dev/tty", link);
		/* Reading from the background: SIGTTIN, ignored here, makes it an error. */
		signal(SIGTTIN, SIG_IGN);
		expect_errno("the background may not read", EIO, read(slave, link, 1));
		close(again);
	}
	while (wait(NULL) > 0)
		; /* our end would be theirs */
	_exit(specimen_end());
}

int main(void)
{
	int unlocked = 0;
	unsigned number;
	char name[64];
	struct termios settings;
	int master = MUST(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
	MUST(ioctl(master, TIOCSPTLCK, &unlocked));
	MUST(ioctl(master, TIOCGPTN, &number));
	snprintf(name, sizeof(name), "/dev/pts/%u", number);
	MUST(tcgetattr(master, &settings)); /* of the slave */
	settings.c_lflag &= (unsigned)~ECHO;
	settings.c_lflag |= NOFLSH;
	MUST(tcsetattr(master, TCSANOW, &settings));
	if (MUST(fork()) == 0)
		shell(name);
	while (specimen_round()) {
		struct winsize size = { .ws_row = (unsigned short)(20 + specimen_number()), .ws_col = 80 };
		pid_t front = 0;
		while (front == 0) {
			sleep_ms(5);
			MUST(ioctl(master, TIOCGPGRP, &front) < 0 && errno != ENOTTY ? -1 : 0);
		}
		sleep_ms(50);
		specimen_ready();
		MUST(ioctl(master, TIOCSWINSZ, &size));
		MUST(write(master, "\003", 1));
		sleep_ms(20);
		MUST(write(master, "typed\n", 6));
		specimen_await(3);
	}
	return specimen_end();
}
