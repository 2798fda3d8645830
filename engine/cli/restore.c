/*
 * restore.c - fsnap restore
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/cli/cli.h"
#include "engine/cli/report.h"
#include "store/scope.h"

/* In the foreground stdout belongs to the tree as soon as it runs: people get one line on
 * stderr, and a program that asked for JSON gets it before anything the tree may print later. */
void restore_print(const struct cli *cli, const struct fsnap_restore_report *report)
{
	if (cli->json) {
		report_restore_json(report);
	} else if (cli->detach) {
		printf("%d\n", (int)report->root);
	} else if (!cli->quiet) {
		fprintf(stderr, "fsnap: %s runs again as process %d (%s)\n", report->image,
			(int)report->root, text_micros(report->total_us).s);
	}
	fflush(stdout);
	if (!cli->json)
		output_notes(cli, report->notes);
	for (const char *line = report->listen; !cli->json && !cli->quiet && *line; line += *line == '\n') {
		fprintf(stderr, "  listens: %.*s\n", (int)strcspn(line, "\n"), line);
		line += strcspn(line, "\n");
	}
}

int changed_choose(const char *mode, int *changed, struct fsnap_error *err)
{
	static const struct {
		const char *name;
		int changed;
	} modes[] = { { "refuse", FSNAP_CHANGED_REFUSE },
		      { "warn", FSNAP_CHANGED_WARN },
		      { "accept", FSNAP_CHANGED_ACCEPT } };
	if (!mode)
		return 0;
	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++)
		if (strcmp(mode, modes[i].name) == 0) {
			*changed = modes[i].changed;
			return 0;
		}
	fail(err, FSNAP_E_USAGE, 0, "--changed %s: there is no such mode", mode);
	return error_hint(err, "say --changed refuse, warn or accept; without it, changed programs and libraries "
			       "are refused and changed data files are told of");
}

static int parse_clocks(const char *mode, int *clocks, struct fsnap_error *err)
{
	if (!mode)
		return 0;
	*clocks = strcmp(mode, "go-on") == 0 ? FSNAP_CLOCKS_GO_ON : FSNAP_CLOCKS_MACHINE;
	if (*clocks == FSNAP_CLOCKS_GO_ON || strcmp(mode, "machine") == 0)
		return 0;
	fail(err, FSNAP_E_USAGE, 0, "--clocks %s: there is no such mode", mode);
	return error_hint(err, "say --clocks go-on or machine; without it, time has passed in the same boot, and "
			       "clocks go on where they stood elsewhere");
}

static int parse_cgroup(const char *mode, int *cgroup, struct fsnap_error *err)
{
	static const char *const modes[] = { "leave", "rejoin", "create" };
	for (size_t i = 0; mode && i < sizeof(modes) / sizeof(*modes); i++) {
		*cgroup = FSNAP_CGROUP_LEAVE + (int)i;
		if (strcmp(mode, modes[i]) == 0)
			return 0;
	}
	if (!mode)
		return 0;
	fail(err, FSNAP_E_USAGE, 0, "--cgroup %s: there is no such mode", mode);
	return error_hint(err, "say --cgroup leave, rejoin or create; without it, the tree is left in fsnap's groups");
}

static int parse_memory(const char *mode, int *memory, struct fsnap_error *err)
{
	static const char *const modes[] = { "auto", "eager", "stream" };
	for (size_t i = 0; mode && i < sizeof(modes) / sizeof(*modes); i++) {
		*memory = FSNAP_MEMORY_AUTO + (int)i;
		if (strcmp(mode, modes[i]) == 0)
			return 0;
	}
	if (!mode)
		return 0;
	fail(err, FSNAP_E_USAGE, 0, "--memory %s: there is no such mode", mode);
	return error_hint(err, "say --memory auto, eager or stream; without it, much memory is streamed");
}

static int parse_record(const char *text, unsigned *ms, struct fsnap_error *err)
{
	char *end;
	double seconds = text ? strtod(text, &end) : 0;
	if (!text || (end != text && !*end && seconds > 0 && seconds <= 86400)) {
		*ms = (unsigned)(seconds * 1000);
		return 0;
	}
	fail(err, FSNAP_E_USAGE, 0, "--record %s: that is no number of seconds", text);
	return error_hint(err, "five seconds tell what most programs need first: --record 5");
}

/* --wait-resident; without it, nobody asks any more. */
static int await_memory(const struct cli *cli, struct fsnap_restore_report *report, struct fsnap_error *err)
{
	struct fsnap_streaming_stats stats = { .size = sizeof(stats) };
	int result = 0;
	if (cli->wait_resident && report->streaming) {
		result = fsnap_streaming_wait(report->streaming, &stats, err);
		report->resident_us = stats.resident_us;
		report->stream_faults = stats.faults;
		report->streamed_bytes = stats.streamed_bytes;
	}
	fsnap_streaming_free(report->streaming);
	report->streaming = NULL;
	return result;
}

/* TEXT or @FILE; malloc'ed. */
static int read_message(const char *text, struct fsnap_restore_options *options, char **bytes, struct fsnap_error *err)
{
	*bytes = NULL;
	if (!text)
		return 0;
	if (*text != '@') {
		options->message = text;
		options->message_length = strlen(text);
		return 0;
	}
	FILE *file = fopen(text + 1, "re"), *out = open_memstream(bytes, &options->message_length);
	for (int c; file && out && (c = getc(file)) != EOF;)
		putc(c, out);
	int result = 0;
	if (!file || ferror(file))
		result = fail(err, FSNAP_E_FILE_MISSING, errno, "--message %s", text);
	if ((!out || !scope_end_text(out, bytes)) && result == 0)
		result = fail(err, FSNAP_E_NOMEM, ENOMEM, "--message %s", text);
	if (file)
		fclose(file);
	options->message = *bytes;
	return result;
}

static void choose_copy(const struct cli *cli, struct fsnap_restore_options *options)
{
	options->pids = cli->new_pids ? FSNAP_PIDS_NEW : FSNAP_PIDS_DEFAULT;
	options->pid_ns = cli->pid_ns || cli->user_ns;
	options->net_ns = cli->net_ns;
	options->ipc_ns = cli->ipc_ns;
	options->user_ns = cli->user_ns;
	options->listen = cli->listens;
	options->env = cli->envs;
	options->cwd = cli->cwd;
}

int restore_choose(const struct cli *cli, struct fsnap_restore_options *options, char **message,
		   struct fsnap_error *err)
{
	struct prefetch_choice choice;

	*options = (struct fsnap_restore_options){
		.size = sizeof(*options),
		.store = cli->store,
		.image = cli->n_words ? cli->words[0] : NULL,
		.detach = cli->detach,
		.map = cli->maps,
		.allow = cli->allows,
		.deny = cli->denies,
		.fd = cli->fds,
		.external = cli->externals,
		.with = cli->withs,
		.with_overwrite = cli->with_overwrite,
		.tcp = cli->tcp,
	};
	choose_copy(cli, options);
	if (read_message(cli->message, options, message, err) < 0 ||
	    parse_memory(cli->memory, &options->memory, err) < 0 ||
	    parse_record(cli->record, &options->record_ms, err) < 0 ||
	    changed_choose(cli->changed, &options->changed, err) < 0 ||
	    parse_clocks(cli->clocks, &options->clocks, err) < 0 ||
	    parse_cgroup(cli->cgroup, &options->cgroup, err) < 0 || prefetch_choose(cli, &choice, err) < 0)
		return -1;
	options->prefetch = choice.which;
	options->prefetch_rate = choice.rate;
	options->prefetch_max = choice.max;
	options->prefetch_stats = cli->stats != NULL;
	return 0;
}

int cli_restore(const struct cli *cli, struct fsnap_error *err)
{
	struct progress progress = { 0 };
	struct fsnap_restore_options options;
	struct fsnap_restore_report report = { .size = sizeof(report) };
	char *message;

	memory_ahead();
	if (restore_choose(cli, &options, &message, err) < 0)
		return -1;
	options.progress = progress_update;
	options.progress_arg = &progress;
	if (cli->clones && !cli->explain)
		return cli_clones(cli, &options, err);
	if (cli->explain)
		return fsnap_explain(&options, STDOUT_FILENO, err) ? -1 : EXIT_SUCCESS;

	struct foreground *foreground = cli->detach ? NULL : foreground_begin();
	int result = fsnap_restore(&options, &report, err);
	progress_end(&progress);
	if (result)
		return -1;
	if (await_memory(cli, &report, err) < 0)
		return -1;
	restore_print(cli, &report);
	if (report.prefetching)
		prefetch_tell(cli, report.prefetching, report.pid);
	if (cli->detach)
		return EXIT_SUCCESS;
	return foreground_wait(foreground, report.pid, report.terminal);
}
