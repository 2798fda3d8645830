/*
 * keys.c - passphrases that are asked for.
 *
 * The library reads them from a file. One that is typed, or comes through a pipe, which can be read once, is put into a file in
 * memory that has no name and is nobody else's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "engine/cli/cli.h"
#include "store/scope.h"

#define PASSPHRASE "passphrase"
#define LONGEST 1024

struct line {
	char text[LONGEST + 1];
};

static int check_line(struct line *line, size_t n, struct fsnap_error *err)
{
	line->text[n] = '\0';
	line->text[strcspn(line->text, "\n")] = '\0';
	return line->text[0] && n < LONGEST ? 0 : fail(err, FSNAP_E_USAGE, 0, "a passphrase is a line of 1 to %d bytes", LONGEST - 1);
}

static int read_line(int fd, struct line *line, struct fsnap_error *err)
{
	size_t n = 0;
	ssize_t got = 1;

	while (n < LONGEST && (n == 0 || line->text[n - 1] != '\n') && (got = read(fd, line->text + n, 1)) > 0)
		n++;
	return got < 0 ? fail(err, FSNAP_E_SYSTEM, errno, "reading the passphrase") : check_line(line, n, err);
}

#define AGAIN 1 /* a signal came in between, and fsnap is still there */

static int line_comes(int terminal, const sigset_t *heeded, struct fsnap_error *err)
{
	cleanup_fd int signals = signalfd(-1, heeded, SFD_CLOEXEC); /* tells that one is pending, and leaves it so */
	struct pollfd wanted[] = { { .fd = terminal, .events = POLLIN }, { .fd = signals, .events = POLLIN } };

	if (signals >= 0 && poll(wanted, 2, -1) > 0)
		return wanted[1].revents ? AGAIN : 0;
	return errno == EINTR ? AGAIN : fail(err, FSNAP_E_SYSTEM, errno, "the terminal");
}

/* What is typed comes in lines, or in pieces of one where it is asked to (Ctrl-D). */
static int read_typed(int terminal, const sigset_t *heeded, struct line *line, struct fsnap_error *err)
{
	size_t n = 0;

	while (n < LONGEST && (n == 0 || line->text[n - 1] != '\n')) {
		int result = line_comes(terminal, heeded, err);
		ssize_t got = result ? -1 : read(terminal, line->text + n, LONGEST - n);
		if (result)
			return result;
		if (got < 0)
			return fail(err, FSNAP_E_SYSTEM, errno, "reading the passphrase");
		if (got == 0)
			break;
		n += (size_t)got;
	}
	return check_line(line, n, err);
}

/* What would end or stop fsnap; not what does nothing to it, as it was started. */
static sigset_t heed_signals(sigset_t *before)
{
	static const int numbers[] = { SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGTSTP };
	sigset_t heeded;

	sigemptyset(&heeded);
	sigprocmask(SIG_BLOCK, NULL, before);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		struct sigaction action;

		if (sigaction(numbers[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN && !sigismember(before, numbers[i]))
			sigaddset(&heeded, numbers[i]);
	}
	sigprocmask(SIG_BLOCK, &heeded, NULL);
	return heeded;
}

/* A signal has to wait until the terminal is as it was. */
static int ask_once(int terminal, const char *prompt, struct line *line, struct fsnap_error *err)
{
	struct termios before, silent;
	sigset_t mask;

	if (tcgetattr(terminal, &before) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "the terminal");
	silent = before;
	silent.c_lflag &= ~(tcflag_t)ECHO;
	silent.c_lflag |= ICANON | ISIG;
	const sigset_t heeded = heed_signals(&mask);
	tcsetattr(terminal, TCSAFLUSH, &silent);
	bool asked = write(terminal, prompt, strlen(prompt)) > 0;
	int result = asked ? read_typed(terminal, &heeded, line, err) : fail(err, FSNAP_E_SYSTEM, errno, "the terminal");
	tcsetattr(terminal, TCSAFLUSH, &before);
	if (write(terminal, "\n", 1) < 0 && result == 0)
		result = fail(err, FSNAP_E_SYSTEM, errno, "the terminal");
	sigprocmask(SIG_SETMASK, &mask, NULL);
	return result;
}

static int ask(int terminal, const char *prompt, struct line *line, struct fsnap_error *err)
{
	int result;

	while ((result = ask_once(terminal, prompt, line, err)) == AGAIN)
		;
	return result;
}

static int type_in(bool is_new, struct line *line, struct fsnap_error *err)
{
	struct line again = { "" };
	cleanup_fd int terminal = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);

	if (terminal < 0) {
		fail(err, FSNAP_E_USAGE, errno, "there is no terminal to ask for the passphrase");
		return error_hint(err, "passphrase:FILE takes the first line of a file, or of a pipe");
	}
	if (ask(terminal, "passphrase of the image: ", line, err) < 0)
		return -1;
	int result = is_new ? ask(terminal, "once more: ", &again, err) : 0;
	if (result == 0 && is_new && strcmp(again.text, line->text) != 0)
		result = fail(err, FSNAP_E_USAGE, 0, "these are two passphrases");
	explicit_bzero(&again, sizeof(again));
	return result;
}

static int get(const char *source, bool is_new, struct line *line, struct fsnap_error *err)
{
	const char *path = source + strlen(PASSPHRASE);
	struct stat st;

	if (!*path)
		return type_in(is_new, line, err);
	cleanup_fd int fd = open(path + 1, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(err, error_of_name(errno), errno, "%s: opening the passphrase", path + 1);
	if (S_ISREG(st.st_mode) && (st.st_mode & 077)) {
		fail(err, FSNAP_E_USAGE, 0, "%s: others may read this passphrase", path + 1);
		return error_hint(err, "chmod 600 %s", path + 1);
	}
	return read_line(fd, line, err);
}

/* The descriptor stays open, and with it the file there, until we end. */
static int keep(const struct line *line, const char **source, struct fsnap_error *err)
{
	static char paths[4][48];
	static unsigned next;
	char *path = paths[next++ % 4];
	int fd = memfd_create("fsnap-passphrase", MFD_CLOEXEC);
	size_t n = strlen(line->text);

	if (fd < 0 || fchmod(fd, 0600) < 0 || write(fd, line->text, n) != (ssize_t)n)
		return fail(err, FSNAP_E_SYSTEM, errno, "keeping the passphrase");
	snprintf(path, sizeof(paths[0]), PASSPHRASE ":/proc/self/fd/%d", fd);
	*source = path;
	return 0;
}

/* A key file is as it is. */
static int prepare(const char **source, bool is_new, struct fsnap_error *err)
{
	struct line line = { "" };
	size_t n = strlen(PASSPHRASE);

	if (!*source || strncmp(*source, PASSPHRASE, n) != 0 || ((*source)[n] && (*source)[n] != ':'))
		return 0;
	int result = get(*source, is_new, &line, err);
	if (result == 0)
		result = keep(&line, source, err);
	explicit_bzero(&line, sizeof(line));
	return result;
}

int keys_prepare(struct cli *cli, struct fsnap_error *err)
{
	const char *key = cli->decrypt;

	if (prepare(&cli->encrypt, cli->command->run != cli_run, err))
		return -1;
	if (!options_know(cli->command, "decrypt"))
		return 0;
	if (!key)
		key = getenv("FSNAP_KEY");
	if (prepare(&key, false, err))
		return -1;
	/* Whatever part of the command opens images finds it there. */
	return key && setenv("FSNAP_KEY", key, 1) ? fail(err, FSNAP_E_NOMEM, ENOMEM, "--decrypt") : 0;
}
