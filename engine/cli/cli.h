/*
 * cli.h - what the parts of the fsnap command share.
 *
 * The command is a user of libfsnap like any other; only it prints, and only it
 * exits.  Results go to stdout, everything else (errors, notes, progress) to
 * stderr.  With --json, stdout is one JSON document, errors included.
 */
#ifndef CLI_H
#define CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "engine/fsnap.h"
#include "store/error.h"
#include "store/json.h"

/* Exit statuses; `fsnap help exit` explains them to users. */
enum exit_status {
	EXIT_GENERAL = 1,
	EXIT_USAGE = 2,
	EXIT_REFUSED = 3, /* state that cannot be saved; nothing was touched */
	EXIT_TARGET = 4,  /* the process is gone, busy, traced, or somebody else's */
	EXIT_STORE = 5,
	EXIT_IMAGE = 6,
	EXIT_RESTORE = 125, /* restore itself failed: other statuses are the tree's */
};

struct exit_meaning {
	int status;
	const char *meaning;
};
extern const struct exit_meaning exit_meanings[]; /* ended by one without a meaning */

/* The command line, understood. */
struct cli {
	const struct command *command;
	const char *store; /* NULL: the default */
	const char *name;
	const char *changed, *clocks, *cgroup;
	const char **allows, **denies;
	const char **maps, **fds, **externals, **withs; /* NULL, or NULL-ended */
	const char *heat;
	const char *prefetch, *rate, *max;
	const char *output, *timeline;
	const char *warm, *ready_fd, *ready_port, *ready_line, *ready_within;
	const char *stats;
	const char *key;
	const char *max_freeze;
	const char *memory, *record;
	int tcp;   /* enum fsnap_tcp */
	pid_t pid; /* 0: not given */
	pid_t process; /* --pid; 0: not given */
	bool json, quiet, kill, detach, explain, threads, stacks, all, trim, help, version;
	bool wait_resident, watch, unwatch, sync_files, no_prefetch, with_overwrite;
	const char *every, *keep, *max_share;
	bool stop;
	bool new_pids, pid_ns, net_ns, ipc_ns, user_ns;
	const char *mailbox; /* not for people: checkpoint.c */
	const char *clones, *cwd, *message;
	const char **listens, **envs, **depends; /* as maps */
	bool live, no_live;
	const char *encrypt, *cipher, *compress, *decrypt;
	const char *leave_out;
	bool secret, respect_core_limit;
	char **words; /* what follows the command's name, NULL-ended */
	int n_words;
	char **argv; /* all of it, as options_parse() has ordered it */
	int argc;
};

struct command {
	const char *name;
	const char *words; /* as the usage line shows them */
	int min_words, max_words; /* max -1: any number */
	/* Does it. Returns the exit status, or -1 with *err filled. */
	int (*run)(const struct cli *cli, struct fsnap_error *err);
	const char *summary;
	const char *help; /* behind the usage line and the summary: what, why, examples */
};

extern const struct command commands[]; /* commands.c; ended by one without a name */
const struct command *command_find(const char *name);

void memory_ahead(void); /* memory.c: for commands that last for milliseconds */
int cli_dump(const struct cli *cli, struct fsnap_error *err);
int cli_restore(const struct cli *cli, struct fsnap_error *err);
int cli_clones(const struct cli *cli, const struct fsnap_restore_options *options, struct fsnap_error *err);
int cli_list(const struct cli *cli, struct fsnap_error *err);
int cli_inspect(const struct cli *cli, struct fsnap_error *err);
int cli_heat(const struct cli *cli, struct fsnap_error *err);
int cli_prefetch(const struct cli *cli, struct fsnap_error *err);
int cli_report(const struct cli *cli, struct fsnap_error *err);
int cli_track(const struct cli *cli, struct fsnap_error *err);
int cli_watch(const struct cli *cli, struct fsnap_error *err);
int cli_compact(const struct cli *cli, struct fsnap_error *err);
int cli_core(const struct cli *cli, struct fsnap_error *err);
int cli_doctor(const struct cli *cli, struct fsnap_error *err);
int cli_run(const struct cli *cli, struct fsnap_error *err);
int cli_template(const struct cli *cli, struct fsnap_error *err);
int cli_verify(const struct cli *cli, struct fsnap_error *err);
int cli_keygen(const struct cli *cli, struct fsnap_error *err);
int cli_sign(const struct cli *cli, struct fsnap_error *err);
int cli_rm(const struct cli *cli, struct fsnap_error *err);
int cli_help(const struct cli *cli, struct fsnap_error *err);

/* --- restore.c, clones.c ------------------------------------------------- */

/* What the command line says of a restore; *message is the caller's to free. */
int restore_choose(const struct cli *cli, struct fsnap_restore_options *options, char **message,
		   struct fsnap_error *err);
int changed_choose(const char *mode, int *changed, struct fsnap_error *err); /* --changed; NULL: 0 */
void restore_print(const struct cli *cli, const struct fsnap_restore_report *report);
int clones_count(const char *text, unsigned *n, struct fsnap_error *err); /* NULL: one */
void clones_print(const struct cli *cli, const struct fsnap_restore_report *reports, unsigned n, uint64_t total_us);

/* --- dump.c --------------------------------------------------------------- */

/* What --heat says: enum fsnap_heat. */
int heat_mode(const struct cli *cli, int *mode, struct fsnap_error *err);

/* --- prefetch.c ---------------------------------------------------------- */

/* What --prefetch, --no-prefetch, --prefetch-rate and --prefetch-max say. */
struct prefetch_choice {
	int which; /* enum fsnap_prefetch */
	uint64_t rate, max;
};
/* --stats: waits, then tells what prefetching was good for. Frees `prefetching`. */
void prefetch_tell(const struct cli *cli, struct fsnap_prefetching *prefetching, pid_t root);
int prefetch_choose(const struct cli *cli, struct prefetch_choice *choice, struct fsnap_error *err);

/* --- keys.c ---------------------------------------------------------------- */

/* What --encrypt, --decrypt and $FSNAP_KEY say: passphrases are asked for, or read, now and once. */
int keys_prepare(struct cli *cli, struct fsnap_error *err);

/* --- options.c ------------------------------------------------------------ */

/* Fills *cli as far as the command line can be understood, even on failure: whether errors are
 * to be JSON stands in it too. */
int options_parse(int argc, char **argv, struct cli *cli, struct fsnap_error *err);
void options_free(struct cli *cli);
bool options_know(const struct command *command, const char *name); /* without its -- */
void options_print(FILE *out, const struct command *command); /* NULL: what nearly all take */

/* --- help.c --------------------------------------------------------------- */

void help_overview(FILE *out);
void help_command(FILE *out, const struct command *command);

/* --- output.c ------------------------------------------------------------- */

/* Prints the error where it belongs; returns the exit status that goes with it. */
int output_error(const struct cli *cli, const struct fsnap_error *err);
int exit_status_of(const struct cli *cli, int code);

/* One document on stdout, laid out for reading if that is a terminal. */
struct json output_json(void);
/* Member "error" of the object that is open. */
void output_json_error(struct json *json, const struct fsnap_error *err);

/* "notes" of a report, one a line. */
void output_notes(const struct cli *cli, const char *notes);

/* Escape sequences for a stream, or "" where it is no terminal or NO_COLOR is set. */
const char *style_bold(FILE *stream);
const char *style_dim(FILE *stream);
const char *style_bad(FILE *stream);
const char *style_end(FILE *stream);

/* Numbers for people; `buf` holds them. */
struct text {
	char s[40];
};
struct text text_bytes(uint64_t bytes);
struct text text_micros(uint64_t us);
struct text text_age(uint64_t created_ns);
struct text text_count(uint64_t n, const char *one, const char *many);

/* --- progress.c ----------------------------------------------------------- */

/* A line on stderr that says how far long work is; only on a terminal, only after half a
 * second, gone at the end. Start with zeroes. */
struct progress {
	uint64_t began_us;
	uint64_t drawn_us;
	int state; /* 0 not asked yet, 1 a terminal, -1 none */
	bool visible;
};
void progress_update(void *progress, const char *phase, uint64_t done, uint64_t total);
void progress_end(struct progress *progress);

/* --- foreground.c ---------------------------------------------------------- */

/* What the terminal was like before the tree came; call before the restore. */
struct foreground;
struct foreground *foreground_begin(void);

/* Stands in for the restored root until it ends: hands it the terminal (if `terminal`), its
 * signals and stops. Returns its exit status, or does not return if a signal ended it. */
int foreground_wait(struct foreground *foreground, pid_t root, bool terminal);

#endif
