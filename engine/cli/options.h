/*
 * options.h - the table of options, for those who describe the command.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "engine/cli/cli.h"

enum { TAKES_NOTHING, TAKES_TEXT, TAKES_PID, TAKES_TCP, TAKES_LIST /* may be given again */ };

struct option_row {
	char letter; /* 0: only the long form */
	const char *name;
	int takes;
	const char *argument;
	size_t field; /* in struct cli */
	const char *commands; /* "": all */
	const char *help; /* NULL: not for people */
};

const struct option_row *option_row(size_t i); /* NULL behind the last */

/* Without a command: whether nearly all of them take it. */
bool option_belongs(const struct option_row *row, const struct command *command);

#endif
