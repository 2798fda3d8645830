/*
 * main.c - fsnap-tables, a program of the build: prints what the command knows about its command
 * line as JSON, so that the manual and what shells complete are made from the tables that the
 * command itself reads (tools/gen-manual.py, tools/gen-completion.py).
 */
#include <stdlib.h>

#include "engine/cli/options.h"

static void print_options(struct json *json, const struct command *command)
{
	const struct option_row *row;

	json_array(json_key(json, "options"));
	for (size_t i = 0; (row = option_row(i)); i++) {
		char letter[] = { row->letter, '\0' };

		if (!row->help || !option_belongs(row, command))
			continue;
		json_object(json);
		json_string(json_key(json, "letter"), letter);
		json_string(json_key(json, "name"), row->name);
		json_string(json_key(json, "argument"), row->takes ? row->argument : NULL);
		json_bool(json_key(json, "again"), row->takes == TAKES_LIST);
		json_string(json_key(json, "help"), row->help);
		json_close(json);
	}
	json_close(json);
}

static void print_command(struct json *json, const struct command *command)
{
	json_object(json);
	json_string(json_key(json, "name"), command->name);
	json_string(json_key(json, "words"), command->words);
	json_bool(json_key(json, "many"), command->max_words < 0);
	json_string(json_key(json, "summary"), command->summary);
	json_string(json_key(json, "help"), command->help);
	print_options(json, command);
	json_close(json);
}

int main(void)
{
	struct json json = json_start(stdout, true);

	json_object(&json);
	json_string(json_key(&json, "version"), fsnap_version());
	print_options(&json, NULL);
	json_array(json_key(&json, "commands"));
	for (const struct command *command = commands; command->name; command++)
		print_command(&json, command);
	json_close(&json);
	json_array(json_key(&json, "statuses"));
	for (const struct exit_meaning *row = exit_meanings; row->meaning; row++) {
		json_object(&json);
		json_i64(json_key(&json, "status"), row->status);
		json_string(json_key(&json, "meaning"), row->meaning);
		json_close(&json);
	}
	json_close(&json);
	json_close(&json);
	return json_finish(&json) ? EXIT_FAILURE : EXIT_SUCCESS;
}
