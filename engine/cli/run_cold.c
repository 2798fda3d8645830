/*
 * run_cold.c - the first start of `fsnap run`: the command, and an image of it as soon as it says that it is ready.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/cli/origin.h"
#include "engine/end_tree.h"
#include "store/scope.h"

#define PATIENCE 120 /* without --ready-within */

struct start {
	const struct cli *cli;
	regex_t line;
	int ready;    /* becomes readable, or (--ready-fd) ends, when the program is ready; -1: a port is awaited */
	int ready_fd; /* the program's end of it, or the relay's; -1: none */
	int output;   /* what the program has as standard output, where a line of it is awaited; else -1 */
	int input;    /* likewise as standard input, unless that is a terminal */
	int go;	      /* closed when the input may come */
	unsigned port, number; /* --ready-port, --ready-fd */
	unsigned patience; /* s, until it must be ready */
	pid_t child;
};

/* --- is it ready ---------------------------------------------------------------------- */

/* Asked without connecting: that would be the first client (proc(5): local address, state 0A: listening). */
static bool listens_in(const char *path, unsigned port)
{
	cleanup_file FILE *file = fopen(path, "re");
	char line[512];
	unsigned local, state;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x", &local, &state) == 2 &&
		    state == 0x0a && local == port)
			return true;
	return false;
}

static bool is_listened_to(unsigned port)
{
	return listens_in("/proc/net/tcp", port) || listens_in("/proc/net/tcp6", port);
}

static bool is_ready(const struct start *start)
{
	struct pollfd waits = { .fd = start->ready, .events = POLLIN };
	char byte[64];

	if (start->ready < 0) {
		poll(NULL, 0, 5);
		return is_listened_to(start->port);
	}
	if (poll(&waits, 1, 20) != 1)
		return false;
	/* A line is said before the descriptor is closed: while it is open, it leads out of the tree. */
	ssize_t n, said = 0;
	while ((n = read(start->ready, byte, sizeof(byte))) > 0 && poll(&waits, 1, 1000) == 1)
		said += n;
	if (!start->cli->ready_line || said > 0 || n > 0)
		return true;
	poll(NULL, 0, 20); /* the relay ended, as it does with the program's output; the line did not come */
	return false;
}

/* Its descriptors are closed before it can be waited for; by then the kernel calls it exiting (proc_pid_stat(5): flags;
 * PF_EXITING). One that ends has not said that it is ready. */
static bool is_ending(pid_t pid)
{
	char path[32], text[512] = "";
	unsigned flags;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	cleanup_file FILE *file = fopen(path, "re");
	size_t n = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
	const char *behind = n ? strrchr(text, ')') : NULL;
	return behind && sscanf(behind, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && (flags & 0x4);
}

static int await_ready(const struct start *start, int *status, struct fsnap_error *err)
{
	time_t end = time(NULL) + start->patience;

	while (!is_ready(start)) {
		if (waitpid(start->child, status, WNOHANG) == start->child)
			return 1;
		if (time(NULL) < end)
			continue;
		end_tree(start->child);
		waitpid(start->child, NULL, 0);
		fail(err, FSNAP_E_TARGET_BUSY, 0, "%s was not ready within %u s; it was ended", start->cli->words[0],
		     start->patience);
		return error_hint(err, "what --ready-fd, --ready-port or --ready-line awaits did not come; --ready-within "
				       "gives it more time");
	}
	return waitpid(start->child, status, is_ending(start->child) ? 0 : WNOHANG) == start->child;
}

/* --- the relay: a process outside the tree that passes its output on, and looks for a line in it --- */

/* Whatever is in it: a program may write NUL bytes. */
static bool pass_on(const char *bytes, size_t size)
{
	for (ssize_t n; size; bytes += n, size -= (size_t)n)
		if ((n = write(STDOUT_FILENO, bytes, size)) <= 0)
			return false;
	return true;
}

static void relay(const struct start *start, int from)
{
	cleanup_file FILE *in = fdopen(from, "r");
	char *line = NULL;
	size_t room = 0;
	int ready = start->ready_fd;

	signal(SIGINT, SIG_IGN); /* it ends when the program does */
	signal(SIGTERM, SIG_IGN);
	for (ssize_t n; in && (n = getline(&line, &room, in)) > 0;) {
		if (!pass_on(line, (size_t)n))
			break;
		line[strcspn(line, "\n")] = '\0';
		if (ready >= 0 && regexec(&start->line, line, 0, NULL, 0) == 0) {
			/* Said, not only closed: that happens at our end, too. */
			if (write(ready, "\n", 1) < 0)
				break;
			close(ready);
			ready = -1;
		}
	}
	_exit(0);
}

static int begin_relay(struct start *start, struct fsnap_error *err)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "a pipe");
	pid_t pid = fork();
	if (pid == 0) {
		close(ends[1]);
		close(start->ready);
		relay(start, ends[0]);
	}
	close(ends[0]);
	close(start->ready_fd);
	start->ready_fd = -1;
	start->output = ends[1];
	return pid < 0 ? fail(err, FSNAP_E_SYSTEM, errno, "fork") : 0;
}

/* Input waits until the image is made: a program that is ready, and is told what to do, could be done before. */
static int begin_feeder(struct start *start, struct fsnap_error *err)
{
	int ends[2], go[2];
	char buffer[65536];

	if (isatty(STDIN_FILENO))
		return 0;
	if (pipe2(ends, O_CLOEXEC) < 0 || pipe2(go, O_CLOEXEC) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "a pipe");
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ends[0]);
		close(go[1]);
		scope_close(&start->ready_fd); /* the program's, of which the end is awaited */
		scope_close(&start->output);
		if (read(go[0], buffer, 1) == 0)
			for (ssize_t n; (n = read(STDIN_FILENO, buffer, sizeof(buffer))) > 0;)
				for (ssize_t m, at = 0; at < n; at += m)
					if ((m = write(ends[1], buffer + at, (size_t)(n - at))) <= 0)
						_exit(0);
		_exit(0);
	}
	close(ends[1]);
	close(go[0]);
	start->input = ends[0];
	start->go = go[1];
	return pid < 0 ? fail(err, FSNAP_E_SYSTEM, errno, "fork") : 0;
}

/* --- starting ---------------------------------------------------------------------------- */

static int number_of(const char *text, unsigned most, const char *option, unsigned *number, struct fsnap_error *err)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*end || end == text || value > most)
		return fail(err, FSNAP_E_USAGE, 0, "%s %s: not such a number", option, text);
	*number = (unsigned)value;
	return 0;
}

static int understand(struct start *start, struct fsnap_error *err)
{
	const struct cli *cli = start->cli;
	int ends[2], n = !!cli->ready_fd + !!cli->ready_port + !!cli->ready_line;

	if (!cli->warm)
		return fail(err, FSNAP_E_USAGE, 0, "fsnap run needs the image's name: --warm IMAGE");
	if (n != 1) {
		fail(err, FSNAP_E_USAGE, 0, "how does it say that it is ready?");
		return error_hint(err, "say one of --ready-fd N, --ready-port PORT, --ready-line REGEX");
	}
	start->patience = PATIENCE;
	if (cli->ready_within && number_of(cli->ready_within, 86400, "--ready-within", &start->patience, err) < 0)
		return -1;
	if (cli->ready_port && number_of(cli->ready_port, 65535, "--ready-port", &start->port, err) < 0)
		return -1;
	if (cli->ready_port && is_listened_to(start->port)) {
		fail(err, FSNAP_E_USAGE, 0, "--ready-port %u: somebody listens there already", start->port);
		return error_hint(err, "end who does, or choose another port: that it listens is how it says it is ready");
	}
	if (cli->ready_port)
		return 0;
	if (cli->ready_fd && number_of(cli->ready_fd, 1000, "--ready-fd", &start->number, err) < 0)
		return -1;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "a pipe");
	start->ready = ends[0];
	start->ready_fd = ends[1];
	if (!cli->ready_line)
		return 0;
	int wrong = regcomp(&start->line, cli->ready_line, REG_EXTENDED | REG_NOSUB);
	if (wrong == REG_ESPACE)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "--ready-line %s", cli->ready_line);
	if (wrong)
		return fail(err, FSNAP_E_USAGE, 0, "--ready-line %s: not a regular expression", cli->ready_line);
	int begun = begin_relay(start, err);
	regfree(&start->line); /* the relay has its own */
	return begun;
}

/* In the child. What failed is told through `told`, which a successful exec closes. */
static void become(const struct start *start, int told)
{
	if (start->output >= 0)
		dup2(start->output, STDOUT_FILENO);
	if (start->input >= 0)
		dup2(start->input, STDIN_FILENO);
	if (start->ready_fd >= 0 && start->ready_fd != (int)start->number)
		dup2(start->ready_fd, (int)start->number);
	else if (start->ready_fd >= 0)
		fcntl(start->ready_fd, F_SETFD, 0);
	execvp(start->cli->words[0], start->cli->words);
	int sys = errno;
	_exit(write(told, &sys, sizeof(sys)) == sizeof(sys) ? 127 : 126);
}

static int spawn(struct start *start, struct fsnap_error *err)
{
	int told[2], sys;

	if (pipe2(told, O_CLOEXEC) < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "a pipe");
	start->child = fork();
	if (start->child == 0)
		become(start, told[1]);
	close(told[1]);
	scope_close(&start->ready_fd);
	scope_close(&start->output);
	scope_close(&start->input);
	ssize_t n = start->child > 0 ? read(told[0], &sys, sizeof(sys)) : -1;
	close(told[0]);
	if (n == 0)
		return 0;
	if (start->child > 0)
		waitpid(start->child, NULL, 0);
	return fail(err, FSNAP_E_USAGE, n > 0 ? sys : errno, "%s", start->cli->words[0]);
}

static int save(const struct cli *cli, struct origin *origin, pid_t program, struct fsnap_error *err)
{
	struct fsnap_dump_report report = { .size = sizeof(report) };

	if (origin_add_streams(origin, program, err) < 0)
		return -1;
	struct fsnap_dump_options options = { .size = sizeof(options), .store = cli->store, .name = cli->warm,
					      .with = cli->withs, .encrypt = cli->encrypt, .cipher = cli->cipher,
					      .compress = cli->compress, .pid = program,
					      .labels = (const char *const *)origin->labels };
	if (fsnap_dump(&options, &report, err))
		return -1;
	if (!cli->quiet)
		fprintf(stderr, "fsnap: %s is saved, frozen for %s; the next start is from there\n", report.image,
			text_micros(report.frozen_us).s);
	output_notes(cli, report.notes);
	return 0;
}

int run_cold(const struct cli *cli, struct origin *origin, struct fsnap_error *err)
{
	struct start start = { .cli = cli, .ready = -1, .ready_fd = -1, .output = -1, .input = -1, .go = -1 };
	struct fsnap_error why = { 0 };
	int status = 0;

	struct foreground *foreground = foreground_begin();
	if (understand(&start, err) < 0 || begin_feeder(&start, err) < 0 || spawn(&start, err) < 0)
		return -1;
	int ended = await_ready(&start, &status, err);
	if (ended < 0)
		return -1;
	if (ended) /* as it wishes: it has not become ready, there is nothing to be saved */
		return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	/* It is for the next time: this time it runs, whatever becomes of the image. */
	if (save(cli, origin, start.child, &why))
		fprintf(stderr, "fsnap: %s\n  hint: %s\n", why.message, why.hint[0] ? why.hint : "it was started, not saved");
	scope_close(&start.go);
	return foreground_wait(foreground, start.child, false);
}
