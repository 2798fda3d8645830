/*
 * output.c - errors, notes and numbers, for people and for programs.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/cli/cli.h"

/* --- errors ------------------------------------------------------------------- */

static int status_of_class(int code)
{
	switch (code) {
	case FSNAP_E_USAGE:
		return EXIT_USAGE;
	case FSNAP_E_UNSUPPORTED:
		return EXIT_REFUSED;
	case FSNAP_E_NO_PROCESS:
	case FSNAP_E_PERMISSION:
	case FSNAP_E_TRACED:
	case FSNAP_E_TARGET_DIED:
	case FSNAP_E_TARGET_BUSY:
	case FSNAP_E_SELF:
		return EXIT_TARGET;
	case FSNAP_E_STORE_MISSING:
	case FSNAP_E_STORE_FULL:
	case FSNAP_E_STORE_READONLY:
	case FSNAP_E_STORE_IO:
		return EXIT_STORE;
	case FSNAP_E_IMAGE_MISSING ... FSNAP_E_BAD_NAME:
	case FSNAP_E_IMAGE_SIGNATURE:
	case FSNAP_E_IMAGE_KEY:
	case FSNAP_E_FORBIDDEN:
		return EXIT_IMAGE;
	default:
		return EXIT_GENERAL;
	}
}

/* A restore, or a copy of a template, in the foreground ends with the tree's status: its own failures need one that few
 * programs use. A command line that is wrong is wrong in the same way for every command. */
int exit_status_of(const struct cli *cli, int code)
{
	bool waits = cli->command && (cli->command->run == cli_restore || cli->command->run == cli_run ||
				      (cli->command->run == cli_template && cli->n_words &&
				       strcmp(cli->words[0], "copy") == 0));
	bool foreground = waits && !cli->detach && !cli->clones && !cli->explain;

	return foreground && code != FSNAP_E_USAGE ? EXIT_RESTORE : status_of_class(code);
}

struct json output_json(void)
{
	return json_start(stdout, isatty(STDOUT_FILENO));
}

void output_json_error(struct json *json, const struct fsnap_error *err)
{
	json_object(json_key(json, "error"));
	json_string(json_key(json, "code"), fsnap_code_name(err->code));
	json_string(json_key(json, "message"), err->message);
	json_string(json_key(json, "hint"), err->hint);
	json_i64(json_key(json, "errno"), err->sys);
	json_close(json);
}

int output_error(const struct cli *cli, const struct fsnap_error *err)
{
	if (cli->json) {
		struct json json = output_json();
		json_object(&json);
		output_json_error(&json, err);
		json_close(&json);
		json_finish(&json);
	} else {
		fprintf(stderr, "%sfsnap:%s %s\n", style_bad(stderr), style_end(stderr),
			err->message);
		if (err->hint[0])
			fprintf(stderr, "  %shint:%s %s\n", style_dim(stderr), style_end(stderr),
				err->hint);
	}
	return exit_status_of(cli, err->code);
}

void output_notes(const struct cli *cli, const char *notes)
{
	if (cli->quiet)
		return;
	for (const char *line = notes; *line;) {
		size_t length = strcspn(line, "\n");

		fprintf(stderr, "  %snote:%s %.*s\n", style_dim(stderr), style_end(stderr),
			(int)length, line);
		line += length + (line[length] == '\n');
	}
}

/* --- looks -------------------------------------------------------------------- */

static bool styled(FILE *stream)
{
	const char *no_color = getenv("NO_COLOR");

	return !(no_color && no_color[0]) && isatty(fileno(stream));
}

const char *style_bold(FILE *stream)
{
	return styled(stream) ? "\033[1m" : "";
}

const char *style_dim(FILE *stream)
{
	return styled(stream) ? "\033[2m" : "";
}

const char *style_bad(FILE *stream)
{
	return styled(stream) ? "\033[1;31m" : "";
}

const char *style_end(FILE *stream)
{
	return styled(stream) ? "\033[0m" : "";
}

/* --- numbers ------------------------------------------------------------------ */

struct text text_bytes(uint64_t bytes)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes / 1024;
	size_t unit = 0;
	struct text text;

	if (bytes < 1024) {
		snprintf(text.s, sizeof(text.s), "%" PRIu64 " bytes", bytes);
		return text;
	}
	while (value >= 1023.95 && unit + 1 < sizeof(units) / sizeof(units[0])) {
		value /= 1024;
		unit++;
	}
	snprintf(text.s, sizeof(text.s), "%.1f %s", value, units[unit]);
	return text;
}

struct text text_micros(uint64_t us)
{
	struct text text;

	if (us < 10000)
		snprintf(text.s, sizeof(text.s), "%.2f ms", (double)us / 1e3);
	else if (us < 1000000)
		snprintf(text.s, sizeof(text.s), "%.0f ms", (double)us / 1e3);
	else
		snprintf(text.s, sizeof(text.s), "%.2f s", (double)us / 1e6);
	return text;
}

struct text text_age(uint64_t created_ns)
{
	static const struct {
		int64_t seconds;
		const char *name;
	} units[] = { { 86400, "d" }, { 3600, "h" }, { 60, "min" }, { 1, "s" } };
	int64_t age = time(NULL) - (int64_t)(created_ns / 1000000000u);
	struct text text = { "now" };

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (age < units[i].seconds)
			continue;
		snprintf(text.s, sizeof(text.s), "%" PRId64 " %s ago", age / units[i].seconds,
			 units[i].name);
		break;
	}
	return text;
}

struct text text_count(uint64_t n, const char *one, const char *many)
{
	struct text text;

	snprintf(text.s, sizeof(text.s), "%" PRIu64 " %s", n, n == 1 ? one : many);
	return text;
}
