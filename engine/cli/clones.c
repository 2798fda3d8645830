/*
 * clones.c - fsnap restore --clones N
 */
#include <stdlib.h>
#include <time.h>

#include "engine/cli/cli.h"
#include "engine/cli/report.h"
#include "engine/laps.h"

enum { MOST = 1000000 };

int clones_count(const char *text, unsigned *n, struct fsnap_error *err)
{
	char *end;
	unsigned long number = text ? strtoul(text, &end, 10) : 1;

	*n = (unsigned)number;
	if (!text || (!*end && number >= 1 && number <= MOST))
		return 0;
	fail(err, FSNAP_E_USAGE, 0, "--clones %s: not a number of copies", text);
	return error_hint(err, "say --clones N with N from 1 on");
}

void clones_print(const struct cli *cli, const struct fsnap_restore_report *reports, unsigned n, uint64_t total_us)
{
	if (cli->json) {
		report_clones_json(reports, n, total_us);
		return;
	}
	for (unsigned i = 0; i < n; i++)
		printf("%d\n", (int)reports[i].root);
	if (!cli->quiet)
		fprintf(stderr, "fsnap: %u copies of %s run (%s)\n", n, reports[0].image, text_micros(total_us).s);
	/* They are told much the same. */
	output_notes(cli, reports[0].notes);
	for (unsigned i = 0; i < n && !cli->quiet; i++)
		if (reports[i].listen[0])
			fprintf(stderr, "  %d listens: %s\n", (int)reports[i].root, reports[i].listen);
}

int cli_clones(const struct cli *cli, const struct fsnap_restore_options *options, struct fsnap_error *err)
{
	struct fsnap_restore_options detached = *options;
	unsigned n;
	if (clones_count(cli->clones, &n, err) < 0)
		return -1;
	struct fsnap_restore_report *reports = calloc(n, sizeof(*reports));
	if (!reports)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "%u copies", n);
	detached.detach = 1;
	reports[0].size = sizeof(*reports);
	uint64_t begin = clock_ns(CLOCK_MONOTONIC);
	int result = fsnap_clones(&detached, n, reports, err);
	if (result == 0)
		clones_print(cli, reports, n, (clock_ns(CLOCK_MONOTONIC) - begin) / 1000);
	free(reports);
	return result == 0 ? EXIT_SUCCESS : -1;
}
