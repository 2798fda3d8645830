/*
 * report_page.c - fsnap report: one HTML page about an image, which needs nothing but a browser.
 *
 * The page (page/report.html) draws itself from what `fsnap inspect --stacks --json` says, which is put
 * into it, and from what a dump or restore said with --json, if that is given.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/cli/inspection.h"
#include "store/scope.h"

#define PLACE "@DATA@"
#define LARGEST_TIMELINE (1 << 20)

extern const char report_page[], report_page_end[];

/* --- the data ------------------------------------------------------------------------ */

/* One JSON document a line, as fsnap prints it: commas between, if they are several. */
static int read_timeline(const char *path, char **text, struct fsnap_error *err)
{
	struct stat stat;
	cleanup_file FILE *file = strcmp(path, "-") == 0 ? fdopen(dup(STDIN_FILENO), "r") : fopen(path, "re");
	if (!file || fstat(fileno(file), &stat) < 0)
		return fail(err, error_of_name(errno), errno, "--timeline %s", path);
	*text = calloc(1, LARGEST_TIMELINE + 1);
	if (!*text)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "--timeline %s", path);
	size_t length = fread(*text, 1, LARGEST_TIMELINE, file);
	if (ferror(file))
		return fail(err, FSNAP_E_SYSTEM, errno, "--timeline %s", path);
	while (length && strchr(" \n\t", (*text)[length - 1]))
		(*text)[--length] = '\0';
	if ((*text)[0] == '{' && (*text)[length - 1] == '}')
		return 0;
	fail(err, FSNAP_E_USAGE, 0, "--timeline %s: that is not what fsnap prints with --json", path);
	return error_hint(err, "fsnap restore -d --json >restore.json; fsnap report --timeline restore.json");
}

static void put_timeline(const char *text, FILE *out)
{
	fputs(",\"timeline\":[", out);
	for (const char *at = text; *at; at++) {
		fputc(*at == '\n' && at > text && at[-1] == '}' && at[1] == '{' ? ',' : *at, out);
	}
	fputc(']', out);
}

static int gather(const struct cli *cli, const struct inspection *inspection, FILE *out,
		  struct fsnap_error *err)
{
	cleanup_free char *timeline = NULL;
	if (cli->timeline && read_timeline(cli->timeline, &timeline, err) < 0)
		return -1;
	struct json json = json_start(out, false);
	fputs("{\"image\":", out);
	inspection_write_json(&json, cli, inspection);
	if (timeline)
		put_timeline(timeline, out);
	fputc('}', out);
	return 0;
}

/* --- the page -------------------------------------------------------------------------- */

/* '<' stands only in JSON's strings; written like this no "</script>" of the image's can end ours. */
static void put_data(const char *data, FILE *out)
{
	for (; *data; data++)
		if (*data == '<')
			fputs("\\u003c", out);
		else
			fputc(*data, out);
}

static int write_page(const char *data, FILE *out)
{
	const char *place = memmem(report_page, (size_t)(report_page_end - report_page), PLACE, strlen(PLACE));
	const char *rest = place + strlen(PLACE);
	fwrite(report_page, 1, (size_t)(place - report_page), out);
	put_data(data, out);
	fwrite(rest, 1, (size_t)(report_page_end - rest), out);
	return fflush(out) || ferror(out) ? -1 : 0;
}

/* Under its name only when it is whole. The image is private, and so is what it says. */
static int write_file(const char *path, const char *data, struct fsnap_error *err)
{
	char part[4096];
	if (snprintf(part, sizeof(part), "%s.XXXXXX", path) >= (int)sizeof(part))
		return fail(err, FSNAP_E_USAGE, ENAMETOOLONG, "%s", path);
	int fd = mkstemp(part);
	FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (!out)
		return fail(err, error_of_name(errno), errno, "writing %s", path);
	int result = write_page(data, out);
	if (fclose(out) != 0 || result < 0 || rename(part, path) < 0) {
		fail(err, FSNAP_E_SYSTEM, errno, "writing %s", path);
		unlink(part);
		return -1;
	}
	return 0;
}

static int use(const struct cli *cli, const struct inspection *inspection, struct fsnap_error *err)
{
	cleanup_free char *data = NULL;
	size_t size;
	FILE *memory = open_memstream(&data, &size);
	if (!memory)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "the report of %s", inspection->image);
	int result = gather(cli, inspection, memory, err);
	if (!scope_end_text(memory, &data) && result == 0)
		result = fail(err, FSNAP_E_NOMEM, ENOMEM, "the report of %s", inspection->image);
	if (result < 0)
		return -1;
	if (cli->output && strcmp(cli->output, "-") != 0)
		result = write_file(cli->output, data, err);
	else if (write_page(data, stdout) < 0)
		result = fail(err, FSNAP_E_SYSTEM, errno, "standard output");
	return result;
}

int cli_report(const struct cli *cli, struct fsnap_error *err)
{
	struct cli with_stacks = *cli;
	with_stacks.stacks = true;
	if ((!cli->output || strcmp(cli->output, "-") == 0) && isatty(STDOUT_FILENO)) {
		fail(err, FSNAP_E_USAGE, 0, "a page of HTML is nothing for a terminal");
		return error_hint(err, "fsnap report -o report.html");
	}
	int result = inspect_image(&with_stacks, use, err);
	if (result == 0 && cli->output && strcmp(cli->output, "-") != 0 && !cli->quiet)
		printf("%s\n", cli->output);
	return result;
}
