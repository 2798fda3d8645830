/*
 * core.c - fsnap core: a process of an image as a file for debuggers.
 */
#include <stdlib.h>

#include "engine/cli/cli.h"

static void print_json(const struct fsnap_core_report *report)
{
	struct json json = output_json();

	json_object(&json);
	json_string(json_key(&json, "image"), report->image);
	json_string(json_key(&json, "output"), report->output);
	json_string(json_key(&json, "exe"), report->exe);
	json_i64(json_key(&json, "pid"), report->pid);
	json_u64(json_key(&json, "threads"), report->threads);
	json_u64(json_key(&json, "bytes"), report->bytes);
	json_u64(json_key(&json, "file_bytes"), report->file_bytes);
	json_close(&json);
	json_finish(&json);
}

int cli_core(const struct cli *cli, struct fsnap_error *err)
{
	struct fsnap_core_options options = {
		.size = sizeof(options),
		.store = cli->store,
		.image = cli->n_words ? cli->words[0] : NULL,
		.pid = cli->process,
		.output = cli->output,
	};
	struct fsnap_core_report report = { .size = sizeof(report) };

	if (fsnap_core(&options, &report, err))
		return -1;
	if (cli->json) {
		print_json(&report);
	} else if (cli->quiet) {
		puts(report.output);
	} else {
		printf("%s: process %d of %s, %s, %s of memory\n", report.output, (int)report.pid, report.image,
		       text_count(report.threads, "thread", "threads").s, text_bytes(report.bytes).s);
		fflush(stdout);
		fprintf(stderr, "  %slook into it with:%s gdb %s %s\n", style_dim(stderr), style_end(stderr),
			report.exe, report.output);
	}
	return EXIT_SUCCESS;
}
