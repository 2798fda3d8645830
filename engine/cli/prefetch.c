/*
 * prefetch.c - fsnap prefetch, and what `fsnap restore` says about prefetching
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cli/cli.h"
#include "engine/cli/report.h"

/* "50M": a number, and K, M, G or T for powers of 1024. */
static int parse_size(const char *option, const char *text, uint64_t *size, struct fsnap_error *err)
{
	static const char units[] = "KMGT";
	char *end;
	*size = 0;
	if (!text)
		return 0;
	errno = 0;
	unsigned long long number = strtoull(text, &end, 10);
	const char *unit = *end ? strchr(units, *end) : NULL;
	unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
	if (errno || end == text || *text == '-' || (*end && (!unit || end[1])) || number > UINT64_MAX >> shift ||
	    number == 0) {
		fail(err, FSNAP_E_USAGE, 0, "%s %s: that is no size", option, text);
		return error_hint(err, "a number, with K, M, G or T behind it: 50M");
	}
	*size = (uint64_t)number << shift;
	return 0;
}

int prefetch_choose(const struct cli *cli, struct prefetch_choice *choice, struct fsnap_error *err)
{
	static const char *const words[] = { [FSNAP_PREFETCH_HOT] = "hot", [FSNAP_PREFETCH_ALL] = "all",
					     [FSNAP_PREFETCH_OFF] = "off" };
	*choice = (struct prefetch_choice){ .which = cli->no_prefetch ? FSNAP_PREFETCH_OFF : FSNAP_PREFETCH_HOT };
	if (cli->prefetch) {
		for (choice->which = 0; choice->which < 3 && strcmp(cli->prefetch, words[choice->which]) != 0;)
			choice->which++;
		if (choice->which == 3)
			return fail(err, FSNAP_E_USAGE, 0, "--prefetch is hot, all or off, not '%s'",
				    cli->prefetch);
	}
	if (parse_size("--prefetch-rate", cli->rate, &choice->rate, err) < 0)
		return -1;
	return parse_size("--prefetch-max", cli->max, &choice->max, err);
}

static void print(const struct cli *cli, const struct fsnap_prefetch_report *report)
{
	if (cli->json) {
		report_prefetch_json(report);
		return;
	}
	if (cli->quiet)
		return;
	printf("%s: %s: %s read, %s were there, in %s%s\n", report->image,
	       text_count(report->files, "file", "files").s, text_bytes(report->read_bytes).s,
	       text_bytes(report->present_bytes).s, text_micros(report->total_us).s,
	       report->scarce ? "; ended early, there is no more memory for it" : "");
	fflush(stdout);
	output_notes(cli, report->notes);
}

int cli_prefetch(const struct cli *cli, struct fsnap_error *err)
{
	struct progress progress = { 0 };
	struct prefetch_choice choice;
	if (prefetch_choose(cli, &choice, err) < 0)
		return -1;
	struct fsnap_prefetch_options options = {
		.size = sizeof(options),
		.store = cli->store,
		.image = cli->n_words ? cli->words[0] : NULL,
		.prefetch = choice.which,
		.rate = choice.rate,
		.max = choice.max,
		.map = cli->maps,
		.progress = progress_update,
		.progress_arg = &progress,
	};
	struct fsnap_prefetch_report report = { .size = sizeof(report) };
	int result = fsnap_prefetch(&options, &report, err);
	progress_end(&progress);
	if (result)
		return -1;
	print(cli, &report);
	return EXIT_SUCCESS;
}
