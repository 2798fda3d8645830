/*
 * prefetch.c - fsnap prefetch, and what `fsnap restore` says about prefetching
 */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/cli/cli.h"
#include "engine/cli/report.h"

#define LOOK_MS 50 /* at what was used so far */

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
					     [FSNAP_PREFETCH_OFF] = "off", [FSNAP_PREFETCH_WARM] = "warm" };
	enum { N_WORDS = sizeof(words) / sizeof(*words) };
	*choice = (struct prefetch_choice){ .which = cli->no_prefetch ? FSNAP_PREFETCH_OFF : FSNAP_PREFETCH_HOT };
	if (cli->prefetch) {
		for (choice->which = 0; choice->which < N_WORDS && strcmp(cli->prefetch, words[choice->which]) != 0;)
			choice->which++;
		if (choice->which == N_WORDS)
			return fail(err, FSNAP_E_USAGE, 0, "--prefetch is hot, warm, all or off, not '%s'",
				    cli->prefetch);
	}
	double seconds = cli->stats ? strtod(cli->stats, NULL) : 1;
	if (!(seconds > 0 && seconds < 1e6))
		return fail(err, FSNAP_E_USAGE, 0, "--stats %s: that is no number of seconds", cli->stats);
	if (parse_size("--prefetch-rate", cli->rate, &choice->rate, err) < 0)
		return -1;
	return parse_size("--prefetch-max", cli->max, &choice->max, err);
}

/* --- what it was good for -------------------------------------------------------- */

static unsigned percent(uint64_t part, uint64_t whole)
{
	return whole ? (unsigned)(100 * part / whole) : 0;
}

static void print_stats(const struct cli *cli, const struct fsnap_prefetch_stats *stats)
{
	if (cli->json) {
		report_stats_json(stats);
		fflush(stdout);
		return;
	}
	fprintf(stderr, "fsnap: prefetched %s in %s%s; %s of %s were used (precision %u%%), of %s the tree read they "
		"are %u%% (recall)\n",
		text_bytes(stats->read_bytes).s, text_micros(stats->total_us).s, stats->scarce ? ", until memory was scarce" : stats->done ? "" : ", going on",
		text_bytes(stats->used_bytes).s, text_bytes(stats->planned_bytes).s,
		percent(stats->used_bytes, stats->planned_bytes), text_bytes(stats->touched_bytes).s,
		percent(stats->used_bytes, stats->touched_bytes));
}

/* Until the time is over, or the tree: then what was seen last counts, because a watch ends with its tree. */
static void watch(const struct cli *cli, struct fsnap_prefetching *prefetching, pid_t root)
{
	struct fsnap_prefetch_stats stats = { .size = sizeof(stats) };
	struct fsnap_error why = { 0 };
	const struct timespec pause = { .tv_nsec = LOOK_MS * 1000000 };
	long looks = (long)(strtod(cli->stats, NULL) * 1000 / LOOK_MS);
	int seen = 0;
	for (long i = 0; i < looks && kill(root, 0) == 0; i++) {
		nanosleep(&pause, NULL);
		seen |= fsnap_prefetching_stats(prefetching, &stats, &why) == 0;
	}
	if (seen)
		print_stats(cli, &stats);
	else
		fprintf(stderr, "fsnap: no statistics of prefetching: %s\n", why.message);
	fsnap_prefetching_free(prefetching);
}

void prefetch_tell(const struct cli *cli, struct fsnap_prefetching *prefetching, pid_t root)
{
	fflush(stdout);
	/* In the foreground there is a terminal to be minded meanwhile. */
	if (cli->detach || fork() == 0) {
		watch(cli, prefetching, root);
		if (!cli->detach)
			_exit(0);
	}
}

/* --- alone ------------------------------------------------------------------------ */

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
