/*
 * chain.c - fsnap track, fsnap watch and fsnap compact: images that build on one another.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/cli/catalogue.h"
#include "store/scope.h"
#include "store/signature.h"

/* --- track ------------------------------------------------------------------------------------- */

static void track_print(const struct cli *cli, const struct fsnap_track_report *report)
{
	if (cli->json) {
		struct json json = output_json();

		json_object(&json);
		json_u64(json_key(&json, "pid"), (uint64_t)report->pid);
		json_bool(json_key(&json, "tracked"), !cli->stop);
		json_u64(json_key(&json, "processes"), report->processes);
		json_u64(json_key(&json, "bytes"), report->bytes);
		json_bool(json_key(&json, "heat_watched"), report->heat);
		json_close(&json);
		json_finish(&json);
		return;
	}
	if (cli->quiet)
		return;
	if (cli->stop)
		printf("process %d is tracked no more\n", report->pid);
	else
		printf("process %d is tracked: %s, %s of memory\n", report->pid,
		       text_count(report->processes, "process", "processes").s, text_bytes(report->bytes).s);
	fflush(stdout);
	output_notes(cli, report->notes);
}

int cli_track(const struct cli *cli, struct fsnap_error *err)
{
	struct fsnap_track_options options = { .size = sizeof(options), .pid = cli->pid, .stop = cli->stop };
	struct fsnap_track_report report = { .size = sizeof(report) };

	if (!cli->pid) {
		fail(err, FSNAP_E_USAGE, 0, "fsnap track needs the tree: -t PID");
		return error_hint(err, "fsnap track -t $(pgrep -o NAME)");
	}
	if (heat_mode(cli, &options.heat, err) || fsnap_track(&options, &report, err))
		return -1;
	track_print(cli, &report);
	return EXIT_SUCCESS;
}

/* --- watch -------------------------------------------------------------------------------------- */

/* A time as people write it: 10ms, 2s, 500us, 1m; without a unit, seconds. */
static int parse_interval(const char *text, uint64_t *us, struct fsnap_error *err)
{
	static const struct {
		const char *unit;
		double us;
	} units[] = { { "us", 1 }, { "ms", 1e3 }, { "s", 1e6 }, { "", 1e6 }, { "m", 60e6 }, { "h", 3600e6 } };
	char *end;
	double number = text ? strtod(text, &end) : 1;

	*us = 1000000;
	for (size_t i = 0; text && i < sizeof(units) / sizeof(units[0]); i++) {
		if (end == text || strcmp(end, units[i].unit) || !(number * units[i].us >= 1) || number > 1e9)
			continue;
		*us = (uint64_t)(number * units[i].us);
		return 0;
	}
	if (!text)
		return 0;
	fail(err, FSNAP_E_USAGE, 0, "--every %s: that is no time", text);
	return error_hint(err, "say --every 10ms, or 2s");
}

static int parse_keep(const char *text, uint64_t *keep, struct fsnap_error *err)
{
	char *end;

	*keep = 100;
	if (!text)
		return 0;
	errno = 0;
	*keep = strtoull(text, &end, 10);
	if (!errno && end != text && !*end && *text != '-')
		return 0;
	return fail(err, FSNAP_E_USAGE, 0, "--keep %s: that is no number", text);
}

/* 5%, or 5: to thousandths. */
static int parse_share(const char *text, unsigned *thousandths, struct fsnap_error *err)
{
	char *end;
	double percent = text ? strtod(text, &end) : 0;

	*thousandths = (unsigned)(percent >= 0.1 && percent <= 100 ? percent * 10 + 0.5 : 0);
	if (!text || (*thousandths && end != text && (!*end || !strcmp(end, "%"))))
		return 0;
	fail(err, FSNAP_E_USAGE, 0, "--max-share %s: that is no share of the time", text);
	return error_hint(err, "say --max-share 5%%; 100%% sets no bound");
}

static void print_image(void *arg, const struct fsnap_dump_report *report)
{
	const struct cli *cli = arg;

	if (cli->json)
		printf("{\"image\":\"%s\",\"parent\":\"%s\",\"frozen_us\":%llu,\"total_us\":%llu,\"bytes\":%llu,"
		       "\"referred_pages\":%llu,\"image_bytes\":%llu,\"prepare_us\":%llu,\"seize_us\":%llu,"
		       "\"collect_us\":%llu,\"copy_us\":%llu,\"commit_us\":%llu}\n",
		       report->image, report->parent, (unsigned long long)report->frozen_us,
		       (unsigned long long)report->total_us, (unsigned long long)report->bytes,
		       (unsigned long long)report->referred_pages, (unsigned long long)report->image_bytes,
		       (unsigned long long)report->prepare_us, (unsigned long long)report->seize_us,
		       (unsigned long long)report->collect_us, (unsigned long long)report->copy_us,
		       (unsigned long long)report->commit_us);
	else
		puts(report->image);
	fflush(stdout);
}

static void print_summary(const struct cli *cli, const struct fsnap_watch_report *report, unsigned share)
{
	if (cli->json) {
		printf("{\"images\":%llu,\"kept\":%llu,\"skipped\":%llu,\"late\":%llu,\"spared\":%llu,"
		       "\"total_us\":%llu,\"cpu_us\":%llu,\"frozen_us\":%llu,\"frozen_max_us\":%llu,\"bytes\":%llu,\"ended\":%s,\"last\":\"%s\"}\n",
		       (unsigned long long)report->images, (unsigned long long)report->kept,
		       (unsigned long long)report->skipped, (unsigned long long)report->late,
		       (unsigned long long)report->spared, (unsigned long long)report->total_us,
		       (unsigned long long)report->cpu_us, (unsigned long long)report->frozen_us,
		       (unsigned long long)report->frozen_max_us, (unsigned long long)report->bytes,
		       report->ended ? "true" : "false", report->image);
		return;
	}
	if (cli->quiet || !report->images)
		return;
	printf("%s in %s, %llu kept; frozen for %s on average, %s at most; %s stored%s\n",
	       text_count(report->images, "image", "images").s, text_micros(report->total_us).s,
	       (unsigned long long)report->kept, text_micros(report->frozen_us / report->images).s,
	       text_micros(report->frozen_max_us).s, text_bytes(report->bytes).s,
	       report->ended ? "; the tree has ended" : "");
	if (report->late)
		fprintf(stderr, "  %s left out: making an image took longer than from one to the next\n",
			text_count(report->late, "moment", "moments").s);
	if (report->spared)
		fprintf(stderr, "  %s left out: the tree would have stood still for more than %g %% of the time\n",
			text_count(report->spared, "moment", "moments").s, (share ? share : FSNAP_WATCH_SHARE) / 10.0);
	if (report->skipped)
		fprintf(stderr, "  %s it could not be saved, the last time because: %s\n",
			text_count(report->skipped, "time", "times").s, report->why);
	fprintf(stderr, "  %srestore the last with:%s fsnap restore %s\n", style_dim(stderr), style_end(stderr),
		report->image);
}

/* Signals that would end us end the watch, between two images. */
static int stop_descriptor(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int cli_watch(const struct cli *cli, struct fsnap_error *err)
{
	struct fsnap_watch_options options = {
		.size = sizeof(options), .pid = cli->pid, .store = cli->store, .name = cli->name,
		.external = cli->externals, .image_arg = (void *)cli,
		.image = cli->json || cli->quiet ? print_image : NULL,
		.encrypt = cli->encrypt, .cipher = cli->cipher, .compress = cli->compress,
	};
	struct fsnap_watch_report report = { .size = sizeof(report) };

	if (!cli->pid) {
		fail(err, FSNAP_E_USAGE, 0, "fsnap watch needs the tree: -t PID");
		return error_hint(err, "fsnap watch -t $(pgrep -o NAME)");
	}
	if (parse_interval(cli->every, &options.every_us, err) || parse_keep(cli->keep, &options.keep, err) ||
	    parse_share(cli->max_share, &options.max_share, err))
		return -1;
	options.stop_fd = stop_descriptor();
	int result = fsnap_watch(&options, &report, err);
	print_summary(cli, &report, options.max_share);
	return result ? -1 : EXIT_SUCCESS;
}

/* --- compact ------------------------------------------------------------------------------------- */

/* A signature stands behind an image in its file (store/signature.h), and what is written anew has none. */
static bool is_signed(const struct cli *cli)
{
	cleanup_catalogue struct catalogue catalogue = { 0 };
	struct trust nobody = { 0 };
	struct stat st;

	if (catalogue_open(&catalogue, cli, STORE_READ, NULL) || !catalogue.store)
		return false;
	struct image *image = image_open_signed(catalogue.store, cli->words[0], &nobody, NULL);
	bool found = image && fstat(image_descriptor(image, 0), &st) == 0 &&
		     signature_is_there(image_descriptor(image, 0), (uint64_t)st.st_size);

	image_close(image);
	return found;
}

int cli_compact(const struct cli *cli, struct fsnap_error *err)
{
	uint64_t bytes = 0;
	bool was_signed = is_signed(cli);

	if (fsnap_compact(cli->store, cli->words[0], &bytes, err))
		return -1;
	if (cli->json) {
		struct json json = output_json();

		json_object(&json);
		json_string(json_key(&json, "image"), cli->words[0]);
		json_u64(json_key(&json, "copied_bytes"), bytes);
		json_close(&json);
		json_finish(&json);
	} else if (!cli->quiet) {
		printf("%s stands alone%s%s%s\n", cli->words[0], bytes ? "; " : ", as before",
		       bytes ? text_bytes(bytes).s : "", bytes ? " copied" : "");
	}
	if (was_signed && !is_signed(cli))
		output_notes(cli, "its signature was of what it was: sign it again");
	return EXIT_SUCCESS;
}
