/*
 * help.c - what `fsnap help` and --help print.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/cli/cli.h"
#include "engine/kinds/kinds.h"

const struct exit_meaning exit_meanings[] = {
	{ 0, "done" },
	{ EXIT_GENERAL, "something else failed; the message says what" },
	{ EXIT_USAGE, "the command line is wrong" },
	{ EXIT_REFUSED, "refused: the tree holds state that cannot be saved; nothing was touched" },
	{ EXIT_TARGET, "the process is gone, keeps changing, is traced, or is somebody else's" },
	{ EXIT_STORE, "the store is missing, full or not writable" },
	{ EXIT_IMAGE, "the image is missing, damaged, taken, or not for this machine" },
	{ EXIT_RESTORE, "`restore`, `run` or `template copy` (in the foreground) failed itself; else it is the tree's" },
	{ 0, NULL },
};

static void help_exit(FILE *out)
{
	fputs("Exit statuses:\n", out);
	for (const struct exit_meaning *row = exit_meanings; row->meaning; row++)
		fprintf(out, "  %3d  %s\n", row->status, row->meaning);
	fputs("\nWith --json an error is {\"error\":{\"code\":...,\"message\":...,\"hint\":...,\"errno\":...}}; the\n"
	      "code is a word that stays the same across releases.\n",
	      out);
}

const struct command *command_find(const char *name)
{
	for (const struct command *command = commands; command->name; command++)
		if (!strcmp(command->name, name))
			return command;
	return NULL;
}

void help_overview(FILE *out)
{
	char store[4096];

	fputs("fsnap takes a running process tree into one image and brings it back.\n\n"
	      "  fsnap dump -t PID      the tree goes on running; its state is in the newest image\n"
	      "  fsnap restore          the newest image runs again, attached to this terminal\n\n"
	      "Commands:\n",
	      out);
	for (const struct command *command = commands; command->name; command++)
		fprintf(out, "  %-8s %s\n", command->name, command->summary);
	fputs("\nOptions; `fsnap COMMAND --help` shows those of a command:\n", out);
	options_print(out, NULL);
	fputs("\nImages are kept in the directory given with --store, else in $FSNAP_STORE, else in\n",
	      out);
	if (fsnap_default_store(store, sizeof(store), NULL))
		snprintf(store, sizeof(store), "~/.local/share/fsnap");
	fprintf(out, "the user's own, which now is %s.\n", store);
	fputs("`fsnap help COMMAND` explains a command, `fsnap help exit` the exit statuses, `fsnap help\n"
	      "kinds` what is kept of open files, and what is refused.\n",
	      out);
}

void help_command(FILE *out, const struct command *command)
{
	/* Behind "-- COMMAND" they would be the command's. */
	bool before = strncmp(command->words, "-- ", 3) == 0;
	fprintf(out, "fsnap %s - %s\n\nUsage: fsnap %s%s%s%s%s\n\n", command->name, command->summary,
		command->name, before ? " [OPTIONS]" : "", command->words[0] ? " " : "", command->words,
		before ? "" : " [OPTIONS]");
	fputs(command->help, out);
	fputs("\nOptions:\n", out);
	options_print(out, command);
}

#define KIND_WIDTH 96

/* "  kept      words of the text, wrapped", or nothing where there is no text. */
static void print_kind_line(FILE *out, const char *label, const char *text)
{
	if (!text)
		return;
	int column = fprintf(out, "  %-9s", label);
	while (*text) {
		int length = (int)strcspn(text, " ");

		if (column + 1 + length > KIND_WIDTH)
			column = fprintf(out, "\n%11s", "");
		column += fprintf(out, " %.*s", length, text);
		text += length + (text[length] == ' ');
	}
	fputc('\n', out);
}

static void print_kind(FILE *out, const struct other_kind *kind)
{
	fprintf(out, "\n%s\n", kind->name);
	print_kind_line(out, "kept", kind->keeps);
	print_kind_line(out, "refused", kind->refuses);
	print_kind_line(out, "shown by", kind->shown_by);
}

/* engine/README.md shows the same; tests/cli/kinds.py compares. */
static void help_kinds(FILE *out)
{
	fputs("Kinds of open files, in the order in which they are asked:\n", out);
	for (const struct file_kind *const *kind = file_kinds; *kind; kind++)
		print_kind(out, &(struct other_kind){ (*kind)->name, (*kind)->keeps, (*kind)->refuses,
						      (*kind)->shown_by });
	fputs("\nOther state of the kernel:\n", out);
	for (const struct other_kind *const *kind = other_kinds; *kind; kind++)
		print_kind(out, *kind);
}

int cli_help(const struct cli *cli, struct fsnap_error *err)
{
	const struct command *command;

	if (!cli->n_words) {
		help_overview(stdout);
	} else if (!strcmp(cli->words[0], "exit")) {
		help_exit(stdout);
	} else if (!strcmp(cli->words[0], "kinds")) {
		help_kinds(stdout);
	} else if ((command = command_find(cli->words[0]))) {
		help_command(stdout, command);
	} else {
		fail(err, FSNAP_E_USAGE, 0, "there is no command '%s'", cli->words[0]);
		return error_hint(err, "fsnap help");
	}
	return EXIT_SUCCESS;
}
