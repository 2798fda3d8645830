/*
 * dump.c - fsnap dump
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/cli/cli.h"
#include "engine/cli/report.h"

static void print(const struct cli *cli, const struct fsnap_dump_report *report)
{
	if (cli->json) {
		report_dump_json(report);
		return;
	}
	if (cli->quiet) {
		puts(report->image);
		return;
	}
	printf("%s%s%s: %s, %s, %s; frozen for %s, done after %s\n", style_bold(stdout),
	       report->image, style_end(stdout),
	       text_count(report->processes, "process", "processes").s,
	       text_count(report->threads, "thread", "threads").s, text_bytes(report->bytes).s,
	       text_micros(report->frozen_us).s, text_micros(report->total_us).s);
	fflush(stdout);
	if (report->missed[0])
		fprintf(stderr, "  frozen for longer than asked: %s\n", report->missed);
	output_notes(cli, report->notes);
	fprintf(stderr, "  %srestore it with:%s fsnap restore %s\n", style_dim(stderr),
		style_end(stderr), report->image);
}

int heat_mode(const struct cli *cli, int *mode, struct fsnap_error *err)
{
	static const char *const words[] = { [FSNAP_HEAT_AUTO] = "auto", [FSNAP_HEAT_ALWAYS] = "always",
					     [FSNAP_HEAT_NEVER] = "never" };
	for (*mode = 0; cli->heat && *mode < 3; ++*mode)
		if (strcmp(cli->heat, words[*mode]) == 0)
			return 0;
	if (!cli->heat)
		return 0;
	return fail(err, FSNAP_E_USAGE, 0, "--heat is auto, always or never, not '%s'", cli->heat);
}

/* "5ms", "800us", "0.02s"; a bare number: milliseconds. */
static int parse_time(const char *text, uint64_t *us, struct fsnap_error *err)
{
	static const struct {
		const char *name;
		double us;
	} units[] = { { "", 1e3 }, { "ms", 1e3 }, { "us", 1 }, { "s", 1e6 } };
	char *unit;
	double number = strtod(text, &unit);
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (unit != text && number > 0 && number < 1e9 && strcmp(unit, units[i].name) == 0) {
			*us = (uint64_t)(number * units[i].us);
			return *us ? 0 : -1;
		}
	return fail(err, FSNAP_E_USAGE, 0, "--max-freeze is a time such as 5ms or 800us, not '%s'", text);
}

/* --live, --no-live, --max-freeze */
static int dump_live_mode(const struct cli *cli, struct fsnap_dump_options *options, struct fsnap_error *err)
{
	if (cli->no_live && cli->live)
		return fail(err, FSNAP_E_USAGE, 0, "--no-live, but --live");
	options->live = cli->live ? FSNAP_LIVE_ALWAYS : cli->no_live ? FSNAP_LIVE_NEVER : FSNAP_LIVE_AUTO;
	return cli->max_freeze ? parse_time(cli->max_freeze, &options->max_freeze_us, err) : 0;
}

/* For fsnap_checkpoint(): whoever started us waits for us to end, and we must not be of its tree. Where it adopts us
 * even so, the dump is refused as one of our own parents, and the program is told. */
static int leave_tree(struct fsnap_error *err)
{
	pid_t first = getpid(), child = fork();
	if (child > 0)
		_exit(EXIT_SUCCESS);
	if (child < 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "a process for the dump");
	while (getppid() == first)
		usleep(50);
	return 0;
}

/* --leave-out */
static int dump_leave_out(const struct cli *cli, int *leave_out, struct fsnap_error *err)
{
	if (!cli->leave_out)
		return 0;
	*leave_out = FSNAP_LEAVE_OUT_DONTDUMP;
	if (strcmp(cli->leave_out, "dontdump") == 0)
		return 0;
	return fail(err, FSNAP_E_USAGE, 0, "--leave-out knows dontdump, not '%s'", cli->leave_out);
}

int cli_dump(const struct cli *cli, struct fsnap_error *err)
{
	memory_ahead();
	struct progress progress = { 0 };
	struct fsnap_dump_options options = {
		.size = sizeof(options),
		.pid = cli->pid,
		.store = cli->store,
		.name = cli->name,
		.kill = cli->kill,
		.external = cli->externals,
		.with = cli->withs,
		.sync_files = cli->sync_files,
		.tcp = cli->tcp,
		.encrypt = cli->encrypt,
		.cipher = cli->cipher,
		.compress = cli->compress,
		.respect_core_limit = cli->respect_core_limit,
		.progress = progress_update,
		.progress_arg = &progress,
	};
	if (heat_mode(cli, &options.heat, err) || dump_live_mode(cli, &options, err) ||
	    dump_leave_out(cli, &options.leave_out, err))
		return -1;
	struct fsnap_dump_report report = { .size = sizeof(report) };

	if (!cli->pid) {
		fail(err, FSNAP_E_USAGE, 0, "fsnap dump needs the tree to save: -t PID");
		return error_hint(err, "fsnap dump -t $(pgrep -o NAME)");
	}
	if (cli->mailbox) {
		options.mailbox = strtoull(cli->mailbox, NULL, 10);
		if (leave_tree(err) < 0)
			return -1;
	}
	int result = fsnap_dump(&options, &report, err);
	progress_end(&progress);
	if (result)
		return -1;
	print(cli, &report);
	return EXIT_SUCCESS;
}
