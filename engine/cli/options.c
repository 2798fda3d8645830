/*
 * options.c - the command line.  One table: getopt_long's tables, the check of
 * what belongs to which command, the help, the manual and what shells complete are
 * all derived from it.
 */
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cli/options.h"

#define FIELD(name) offsetof(struct cli, name)

static const struct option_row rows[] = {
	{ 't', "tree", TAKES_PID, "PID", FIELD(pid), "dump inspect heat track watch",
	  "the tree: this process and all its descendants" },
	{ 'n', "name", TAKES_TEXT, "NAME", FIELD(name), "dump watch template",
	  "call it NAME, not COMMAND-PID-TIME (watch: NAME-000001) or IMAGE" },
	{ 0, "every", TAKES_TEXT, "TIME", FIELD(every), "watch", "from one image to the next: 10ms, 2s (or 2); else 1s" },
	{ 0, "keep", TAKES_TEXT, "N", FIELD(keep), "watch", "how many images stay, the newest; else 100; 0: all" },
	{ 0, "max-share", TAKES_TEXT, "PERCENT", FIELD(max_share), "watch",
	  "the tree stands still for at most this share of the time; else 3%" },
	{ 0, "stop", 0, NULL, FIELD(stop), "track", "end it" },
	{ 'k', "kill", 0, NULL, FIELD(kill), "dump", "end the tree once its image is durable" },
	{ 0, "live", 0, NULL, FIELD(live), "dump",
	  "copy memory while the tree runs; else if it holds, or has changed, much" },
	{ 0, "no-live", 0, NULL, FIELD(no_live), "dump", "copy all of it while the tree stands still" },
	{ 0, "max-freeze", TAKES_TEXT, "TIME", FIELD(max_freeze), "dump",
	  "how long the tree should stand still at most: 5ms, 800us" },
	{ 0, "compress", TAKES_TEXT, "HOW", FIELD(compress), "dump watch run",
	  "store it compressed: `zstd` or `lz4`, with a level if need be: zstd:9" },
	{ 0, "encrypt", TAKES_TEXT, "KEY", FIELD(encrypt), "dump watch run",
	  "store it encrypted; KEY: a key file, `passphrase`, `passphrase:FILE`" },
	{ 0, "cipher", TAKES_TEXT, "NAME", FIELD(cipher), "dump watch run",
	  "`xchacha20`, or `aes256`, where the processor has instructions for it" },
	{ 0, "decrypt", TAKES_TEXT, "KEY", FIELD(decrypt), "restore template list inspect heat prefetch report core compact verify sign rm",
	  "what it was encrypted with; else what $FSNAP_KEY says" },
	{ 0, "leave-out", TAKES_TEXT, "WHAT", FIELD(leave_out), "dump",
	  "`dontdump`: memory that MADV_DONTDUMP keeps out of core files" },
	{ 0, "respect-core-limit", 0, NULL, FIELD(respect_core_limit), "dump",
	  "refuse trees with a process that no core file may be made of" },
	{ 0, "secret", 0, NULL, FIELD(secret), "keygen", "make a key to encrypt images with" },
	{ 'd', "detach", 0, NULL, FIELD(detach), "restore template",
	  "print the root's PID and leave; do not wait for the tree" },
	{ 0, "external", TAKES_LIST, "A=B", FIELD(externals), "dump restore watch template",
	  "dump [PID:]N=KEY: descriptor N leads outside; restore KEY=M: it is our M" },
	{ 0, "fd", TAKES_LIST, "N=M", FIELD(fds), "restore template",
	  "descriptor N (of process PID: PID:N) becomes what fsnap has as M" },
	{ 0, "map", TAKES_LIST, "OLD=NEW", FIELD(maps), "restore prefetch template",
	  "what was the file or directory OLD is NEW now" },
	{ 0, "warm", TAKES_TEXT, "IMAGE", FIELD(warm), "run", "start from this image, or make it" },
	{ 0, "ready-fd", TAKES_TEXT, "N", FIELD(ready_fd), "run",
	  "it is ready when it closes its descriptor N (after a line, if it likes)" },
	{ 0, "ready-port", TAKES_TEXT, "PORT", FIELD(ready_port), "run", "it is ready when somebody listens at this TCP port" },
	{ 0, "ready-line", TAKES_TEXT, "REGEX", FIELD(ready_line), "run", "it is ready when it prints such a line" },
	{ 0, "depends", TAKES_LIST, "FILE", FIELD(depends), "run", "if FILE has changed, the image is made anew" },
	{ 0, "ready-within", TAKES_TEXT, "SECONDS", FIELD(ready_within), "run",
	  "how long that may take, else 120: behind that all of it is ended" },
	{ 0, "with", TAKES_LIST, "DIR", FIELD(withs), "dump restore run template",
	  "dump: copy this directory, too; restore OLD=NEW: put it back there" },
	{ 0, "with-overwrite", 0, NULL, FIELD(with_overwrite), "restore run template",
	  "put directories back, though what is there has changed" },
	{ 0, "deny", TAKES_LIST, "WHAT", FIELD(denies), "restore template",
	  "no `credentials`, `devices`, `network`, `namespaces`, `unconfined`, /path" },
	{ 0, "allow", TAKES_LIST, "WHAT", FIELD(allows), "restore template",
	  "lift that; with a path: those that are not allowed are denied" },
	{ 0, "changed", TAKES_TEXT, "MODE", FIELD(changed), "restore template run",
	  "what if files (run: or more) have changed: `refuse`, `warn`, `accept`" },
	{ 0, "cgroup", TAKES_TEXT, "MODE", FIELD(cgroup), "restore template",
	  "control groups: `leave` it in ours, `rejoin` its own, `create` them" },
	{ 0, "clocks", TAKES_TEXT, "MODE", FIELD(clocks), "restore template",
	  "CLOCK_MONOTONIC: `go-on` where it stood, or that of the `machine`" },
	{ 0, "new-pids", 0, NULL, FIELD(new_pids), "restore template",
	  "any process numbers: a copy can run beside its original" },
	{ 0, "mailbox", TAKES_TEXT, "ADDRESS", FIELD(mailbox), "dump", NULL },
	{ 0, "clones", TAKES_TEXT, "N", FIELD(clones), "restore template",
	  "N copies side by side; {n} in --map, --with, --listen, --env is which" },
	{ 0, "pid-ns", 0, NULL, FIELD(pid_ns), "restore template",
	  "a PID namespace of its own, in which it has the numbers it had" },
	{ 0, "net-ns", 0, NULL, FIELD(net_ns), "restore template", "a network of its own, with a loopback device" },
	{ 0, "ipc-ns", 0, NULL, FIELD(ipc_ns), "restore template", "System V objects and message queues of its own" },
	{ 0, "user-ns", 0, NULL, FIELD(user_ns), "restore template",
	  "the same (and --pid-ns) without privileges, in a user namespace" },
	{ 0, "listen", TAKES_LIST, "OLD=NEW", FIELD(listens), "restore template",
	  "what listened at port OLD listens at NEW (0: any that is free)" },
	{ 0, "cwd", TAKES_TEXT, "DIR", FIELD(cwd), "restore template", "the root's working directory" },
	{ 0, "env", TAKES_LIST, "NAME=VALUE", FIELD(envs), "restore template run",
	  "a variable of the root's; see above (run: NAME, or NAME=VALUE)" },
	{ 0, "message", TAKES_TEXT, "TEXT", FIELD(message), "restore template",
	  "for fsnap_checkpoint() in the copy; @FILE: what is in that file" },
	{ 0, "tcp", TAKES_TCP, "MODE", FIELD(tcp), "dump restore",
	  "connections to outside the tree: `keep` them, or let them be `reset`" },
	{ 0, "explain", 0, NULL, FIELD(explain), "restore",
	  "print what would be done, operation by operation; do nothing" },
	{ 0, "heat", TAKES_TEXT, "MODE", FIELD(heat), "dump track",
	  "how warm are its files' cached pages? `auto` (if many), `always`, `never`" },
	{ 0, "sync-files", 0, NULL, FIELD(sync_files), "dump",
	  "write dirty pages of its files back before the image is durable" },
	{ 0, "prefetch", TAKES_TEXT, "WHICH", FIELD(prefetch), "restore prefetch",
	  "file pages to bring back into the page cache: `hot`, `warm`, `all`, `off`" },
	{ 0, "no-prefetch", 0, NULL, FIELD(no_prefetch), "restore", "the same as --prefetch off" },
	{ 0, "prefetch-rate", TAKES_TEXT, "RATE", FIELD(rate), "restore prefetch",
	  "at most so many bytes a second (50M); else fast, but fairly" },
	{ 0, "prefetch-max", TAKES_TEXT, "SIZE", FIELD(max), "restore prefetch",
	  "at most so many bytes (2G); else until a tenth of memory is left" },
	{ 0, "memory", TAKES_TEXT, "MODE", FIELD(memory), "restore",
	  "`eager`: all before it runs; `stream`: behind it; `auto`: stream if large" },
	{ 0, "record", TAKES_TEXT, "SECONDS", FIELD(record), "restore",
	  "note which pages are touched so long: the next restore brings them first" },
	{ 0, "wait-resident", 0, NULL, FIELD(wait_resident), "restore",
	  "tell how it went when all memory is there" },
	{ 0, "stats", TAKES_TEXT, "SECONDS", FIELD(stats), "restore",
	  "watch the tree so long, then tell which prefetched pages it used" },
	{ 0, "watch", 0, NULL, FIELD(watch), "heat",
	  "begin to count what the tree reads, until it ends" },
	{ 0, "unwatch", 0, NULL, FIELD(unwatch), "heat", "stop counting" },
	{ 0, "pid", TAKES_PID, "PID", FIELD(process), "core", "which process of the tree; else its root" },
	{ 'o', "output", TAKES_TEXT, "FILE", FIELD(output), "report core", "write the page, or the core, to FILE" },
	{ 0, "timeline", TAKES_TEXT, "FILE", FIELD(timeline), "report",
	  "show how long a dump or restore took: what it printed with --json" },
	{ 0, "threads", 0, NULL, FIELD(threads), "inspect",
	  "the instruction and the system call each thread is at" },
	{ 0, "stacks", 0, NULL, FIELD(stacks), "inspect", "the backtrace of each thread" },
	{ 0, "key", TAKES_TEXT, "FILE", FIELD(key), "sign verify",
	  "sign: the secret key; verify: only a signature of this public key will do" },
	{ 0, "all", 0, NULL, FIELD(all), "verify rm template", "every image of the store; every template" },
	{ 0, "trim", 0, NULL, FIELD(trim), "rm",
	  "give the space of removed images back to the file system" },
	{ 's', "store", TAKES_TEXT, "DIR", FIELD(store), "dump watch compact restore list inspect heat prefetch report core verify sign rm doctor run template",
	  "the directory of images (see `fsnap help`)" },
	{ 'j', "json", 0, NULL, FIELD(json), "", "print one JSON document on stdout" },
	{ 'q', "quiet", 0, NULL, FIELD(quiet), "", "say only what a script needs, and errors" },
	{ 'h', "help", 0, NULL, FIELD(help), "", "explain the command" },
	{ 'V', "version", 0, NULL, FIELD(version), "", "print the version" },
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* Whether a blank-separated list holds a word. */
static bool listed(const char *list, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = list; (at = strstr(at, word)); at += length)
		if ((at == list || at[-1] == ' ') && (at[length] == ' ' || !at[length]))
			return true;
	return false;
}

bool option_belongs(const struct option_row *row, const struct command *command)
{
	if (!command)
		return !row->commands[0] || row->field == FIELD(store);
	return !row->commands[0] || listed(row->commands, command->name);
}

const struct option_row *option_row(size_t i)
{
	return i < ROWS ? &rows[i] : NULL;
}

static int parse_pid(const char *text, pid_t *pid, struct fsnap_error *err)
{
	char *end;

	errno = 0;
	long number = strtol(text, &end, 10);
	if (errno || end == text || *end || number < 1 || number > INT_MAX) {
		fail(err, FSNAP_E_USAGE, 0, "'%s' is no process ID", text);
		return error_hint(err, "pgrep prints the process IDs of a program");
	}
	*pid = (pid_t)number;
	return 0;
}

static int add_text(const char ***list, const char *text, struct fsnap_error *err)
{
	size_t n = 0;

	while (*list && (*list)[n])
		n++;
	const char **more = reallocarray(*list, n + 2, sizeof(*more));
	if (!more)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "the command line");
	more[n] = text;
	more[n + 1] = NULL;
	*list = more;
	return 0;
}

void options_free(struct cli *cli)
{
	for (size_t i = 0; i < ROWS; i++) {
		const char ***list = (const char ***)((char *)cli + rows[i].field);

		if (rows[i].takes != TAKES_LIST)
			continue;
		free(*list);
		*list = NULL;
	}
}

static int parse_tcp(const char *text, int *tcp, struct fsnap_error *err)
{
	*tcp = strcmp(text, "keep") == 0 ? FSNAP_TCP_KEEP : FSNAP_TCP_RESET;
	if (*tcp == FSNAP_TCP_KEEP || strcmp(text, "reset") == 0)
		return 0;
	fail(err, FSNAP_E_USAGE, 0, "--tcp %s: connections can be kept or reset", text);
	return error_hint(err, "say --tcp keep or --tcp reset");
}

static int take(struct cli *cli, const struct option_row *row, char *argument,
		struct fsnap_error *err)
{
	void *field = (char *)cli + row->field;

	switch (row->takes) {
	case TAKES_PID:
		return parse_pid(argument, field, err);
	case TAKES_LIST:
		return add_text(field, argument, err);
	case TAKES_TCP:
		return parse_tcp(argument, field, err);
	case TAKES_TEXT:
		*(const char **)field = argument;
		return 0;
	default:
		*(bool *)field = true;
		return 0;
	}
}

/* What getopt_long says with '?' or ':' about the word it has just passed. */
static int misunderstood(int answer, char **argv, struct fsnap_error *err)
{
	char letter[] = { '-', (char)optopt, '\0' };
	/* A long option leaves its row's number + 256, or nothing, in optopt. */
	const char *word = optopt > 0 && optopt < 256 ? letter : argv[optind - 1];

	if (answer == ':')
		fail(err, FSNAP_E_USAGE, 0, "option %s needs a value", word);
	else if (optopt >= 256)
		fail(err, FSNAP_E_USAGE, 0, "option --%s takes no value", rows[optopt - 256].name);
	else
		fail(err, FSNAP_E_USAGE, 0, "there is no option %s", word);
	return -1;
}

/* getopt_long permutes: options may stand before, between and behind the words. */
static int parse_options(int argc, char **argv, bool given[ROWS], struct cli *cli,
			 struct fsnap_error *err)
{
	struct option longs[ROWS + 1] = { 0 };
	char shorts[2 * ROWS + 2] = ":", *end = shorts + 1;
	int answer, result = 0;

	for (size_t i = 0; i < ROWS; i++) {
		longs[i] = (struct option){ rows[i].name, rows[i].takes ? required_argument : 0,
					    NULL, 256 + (int)i };
		if (rows[i].letter)
			*end++ = rows[i].letter;
		if (rows[i].letter && rows[i].takes)
			*end++ = ':';
	}
	opterr = 0;
	/* Goes on behind an error: a --json may follow. */
	while ((answer = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		size_t i = 0;

		if (answer == '?' || answer == ':') {
			result = misunderstood(answer, argv, err);
			continue;
		}
		if (answer >= 256)
			i = (size_t)answer - 256;
		else
			while (rows[i].letter != answer)
				i++;
		given[i] = true;
		if (take(cli, &rows[i], optarg, err))
			result = -1;
	}
	return result;
}

static int check_options(const struct cli *cli, const bool given[ROWS], struct fsnap_error *err)
{
	for (size_t i = 0; i < ROWS; i++) {
		if (!given[i] || option_belongs(&rows[i], cli->command))
			continue;
		return fail(err, FSNAP_E_USAGE, 0, "fsnap %s has no option --%s",
			    cli->command->name, rows[i].name);
	}
	return 0;
}

static int check_words(const struct cli *cli, struct fsnap_error *err)
{
	const struct command *command = cli->command;

	if (cli->n_words < command->min_words)
		return fail(err, FSNAP_E_USAGE, 0, "fsnap %s needs %s", command->name,
			    command->words);
	if (command->max_words >= 0 && cli->n_words > command->max_words)
		return fail(err, FSNAP_E_USAGE, 0, "fsnap %s: '%s' is one word too many",
			    command->name, cli->words[command->max_words]);
	return 0;
}

int options_parse(int argc, char **argv, struct cli *cli, struct fsnap_error *err)
{
	bool given[ROWS] = { false };
	cli->argc = argc;
	cli->argv = argv;
	int result = parse_options(argc, argv, given, cli, err);

	cli->words = argv + optind;
	cli->n_words = argc - optind;
	if (cli->n_words) {
		cli->command = command_find(cli->words[0]);
		if (!cli->command && !result)
			result = fail(err, FSNAP_E_USAGE, 0, "there is no command '%s'",
				      cli->words[0]);
		cli->words++;
		cli->n_words--;
	}
	if (cli->command && !result && !cli->help)
		result = check_options(cli, given, err) || check_words(cli, err) ? -1 : 0;
	if (!cli->command && !cli->help && !cli->version && !result)
		result = fail(err, FSNAP_E_USAGE, 0, "no command is given");
	return result;
}

bool options_know(const struct command *command, const char *name)
{
	for (size_t i = 0; i < ROWS; i++)
		if (strcmp(rows[i].name, name) == 0)
			return option_belongs(&rows[i], command);
	return false;
}

void options_print(FILE *out, const struct command *command)
{
	for (size_t i = 0; i < ROWS; i++) {
		char left[32];

		if (!option_belongs(&rows[i], command) || !rows[i].help)
			continue;
		snprintf(left, sizeof(left), "%c%c%s--%s%s%s", rows[i].letter ? '-' : ' ',
			 rows[i].letter ? rows[i].letter : ' ', rows[i].letter ? ", " : "  ",
			 rows[i].name, rows[i].takes ? " " : "",
			 rows[i].takes ? rows[i].argument : "");
		fprintf(out, "  %-24s %s\n", left, rows[i].help);
	}
}
