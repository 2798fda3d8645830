/*
 * heat.c - fsnap heat: which file pages a tree has use for, one file a line.
 */
#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/cli/catalogue.h"
#include "engine/heat/heat.h"
#include "store/scope.h"

#define PAGE 4096u
#define STRIP 40 /* cells, unless the terminal is narrow */

/* --- one line ---------------------------------------------------------------------- */

/* What a cell is drawn with: by the pages in it, times their heat. Three shades and nothing, so that neither
 * colour nor a fine eye is needed. */
static const char *const blocks[] = { " ", "\u2591", "\u2592", "\u2588" };
static const char *const letters[] = { " ", ".", "+", "#" };

static bool speaks_utf8(void)
{
	setlocale(LC_CTYPE, "");
	return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

/* A run's share of a cell's span of the file. */
static void warm_cells(const image_heat_run *run, uint64_t pages, unsigned width, unsigned *cells)
{
	for (unsigned cell = 0; cell < width; cell++) {
		uint64_t begin = pages * cell / width, end = pages * (cell + 1) / width;
		if (end == begin)
			end++; /* fewer pages than cells: each is drawn more than once */
		if (run->page < end && run->page + run->pages > begin && run->heat > cells[cell])
			cells[cell] = run->heat;
	}
}

static void print_strip(const image_heat *heat, unsigned width, const char *const *shades)
{
	unsigned cells[STRIP] = { 0 };
	uint64_t pages = (heat->identity.size + PAGE - 1) / PAGE;
	for (u_int i = 0; i < heat->runs.runs_len; i++)
		warm_cells(&heat->runs.runs_val[i], pages, width, cells);
	putchar('|');
	for (unsigned i = 0; i < width; i++)
		fputs(shades[cells[i] < 3 ? cells[i] : 3], stdout);
	putchar('|');
}

/* --- all ------------------------------------------------------------------------------ */

struct listing {
	const image_heat **heat; /* most of what is cached first */
	size_t n;
	unsigned sources;
	const char *lack; /* why a better source was not used */
};

static int by_size(const void *a, const void *b)
{
	uint64_t left = heat_pages(*(const image_heat *const *)a, 1);
	uint64_t right = heat_pages(*(const image_heat *const *)b, 1);
	return left > right ? -1 : left < right;
}

static const char *source_words(unsigned sources)
{
	if (sources & HEAT_FOLIOS)
		return sources & HEAT_WATCH ? "flags of folios (eBPF) and a watch on the tree" : "flags of folios (eBPF)";
	if (sources & HEAT_TABLES)
		return sources & HEAT_WATCH ? "mincore, page tables and a watch on the tree" : "mincore and page tables";
	if (sources & HEAT_WATCH)
		return "mincore and a watch on the tree";
	return "mincore: what is cached, not how warm";
}

static unsigned strip_width(void)
{
	struct winsize size;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0 || size.ws_col >= 100)
		return STRIP;
	return size.ws_col < 70 ? 10 : 20;
}

static void print_table(const struct listing *listing)
{
	const char *const *shades = speaks_utf8() ? blocks : letters;
	unsigned width = strip_width();
	printf("%s%10s %10s  %-*s  %s%s\n", style_dim(stdout), "CACHED", "HOT", (int)width + 2, "START .. END",
	       "FILE", style_end(stdout));
	for (size_t i = 0; i < listing->n; i++) {
		const image_heat *heat = listing->heat[i];
		printf("%10s %10s  ", text_bytes(heat_pages(heat, 1) * PAGE).s,
		       text_bytes(heat_pages(heat, 3) * PAGE).s);
		print_strip(heat, width, shades);
		printf("  %s%s\n", heat->identity.path, heat->open ? "" : "  (not open any more)");
	}
	printf("%s%s cached   %s used   %s hot   source: %s%s\n", style_dim(stdout), shades[1], shades[2],
	       shades[3], source_words(listing->sources), style_end(stdout));
	if (listing->lack && listing->lack[0])
		fprintf(stderr, "  %snote:%s %s\n", style_dim(stderr), style_end(stderr), listing->lack);
}

static void json_runs(struct json *json, const image_heat *heat)
{
	json_array(json_key(json, "runs"));
	for (u_int i = 0; i < heat->runs.runs_len; i++) {
		const image_heat_run *run = &heat->runs.runs_val[i];
		json_object(json);
		json_u64(json_key(json, "offset"), run->page * PAGE);
		json_u64(json_key(json, "bytes"), (uint64_t)run->pages * PAGE);
		json_u64(json_key(json, "heat"), run->heat);
		json_close(json);
	}
	json_close(json);
}

static void print_json(const struct listing *listing)
{
	struct json json = output_json();
	json_object(&json);
	json_string(json_key(&json, "source"), source_words(listing->sources));
	json_array(json_key(&json, "files"));
	for (size_t i = 0; i < listing->n; i++) {
		const image_heat *heat = listing->heat[i];
		json_object(&json);
		json_string(json_key(&json, "path"), heat->identity.path);
		json_u64(json_key(&json, "size"), heat->identity.size);
		json_u64(json_key(&json, "cached_bytes"), heat_pages(heat, 1) * PAGE);
		json_u64(json_key(&json, "warm_bytes"), heat_pages(heat, 2) * PAGE);
		json_u64(json_key(&json, "hot_bytes"), heat_pages(heat, 3) * PAGE);
		json_bool(json_key(&json, "open"), heat->open != 0);
		json_runs(&json, heat);
		json_close(&json);
	}
	json_close(&json);
	json_close(&json);
	json_finish(&json);
}

static void print(const struct cli *cli, struct listing *listing)
{
	qsort(listing->heat, listing->n, sizeof(*listing->heat), by_size);
	if (cli->json)
		print_json(listing);
	else
		print_table(listing);
}

/* --- of an image, of a tree ---------------------------------------------------------------- */

static int show_image(const struct cli *cli, struct image *image, struct fsnap_error *err)
{
	if (image_hints(image, err) < 0)
		return -1;
	size_t n = image_hint_count(image, IMAGE_HEAT);
	cleanup_free image_heat *heat = calloc(n + 1, sizeof(*heat));
	struct listing listing = { .heat = calloc(n + 1, sizeof(image_heat *)) };
	int result = heat && listing.heat ? 0 : fail(err, FSNAP_E_NOMEM, ENOMEM, "heat of %zu files", n);
	for (size_t i = 0; result == 0 && i < n; i++) {
		result = image_hint_get(image, IMAGE_HEAT, i, (xdrproc_t)xdr_image_heat, &heat[i], err);
		listing.heat[i] = &heat[i];
		listing.sources |= heat[i].source;
		listing.n = i + 1;
	}
	if (result == 0)
		print(cli, &listing);
	for (size_t i = 0; heat && i < n; i++)
		xdr_free((xdrproc_t)xdr_image_heat, (char *)&heat[i]);
	free(listing.heat);
	return result;
}

static int of_image(const struct cli *cli, struct fsnap_error *err)
{
	cleanup_catalogue struct catalogue catalogue = { 0 };
	struct image *image = catalogue_open_image(&catalogue, cli, err);
	if (!image)
		return -1;
	int result = show_image(cli, image, err);
	image_close(image);
	return result;
}

static int of_tree(const struct cli *cli, struct fsnap_error *err)
{
	struct heat heat = { 0 };
	struct listing listing = { 0 };
	int result = heat_add_tree(&heat, cli->pid, err);
	if (result == 0)
		result = heat_measure(&heat, cli->pid, true, err);
	listing.heat = calloc(heat.n + 1, sizeof(image_heat *));
	for (size_t i = 0; listing.heat && i < heat.n; i++)
		if (heat.files[i]->image.runs.runs_len)
			listing.heat[listing.n++] = &heat.files[i]->image;
	listing.sources = heat.sources;
	listing.lack = heat.lack.message;
	if (result == 0 && listing.heat)
		print(cli, &listing);
	free(listing.heat);
	heat_free(&heat);
	return result;
}

static int begin_watch(const struct cli *cli, struct fsnap_error *err)
{
	if (heat_watch_start(cli->pid, err) < 0)
		return -1;
	if (!cli->quiet && !cli->json)
		printf("process %d is being watched, with what it forks, until it ends\n", cli->pid);
	return 0;
}

int cli_heat(const struct cli *cli, struct fsnap_error *err)
{
	if (cli->pid && cli->n_words)
		return fail(err, FSNAP_E_USAGE, 0, "fsnap heat takes an image or -t PID, not both");
	if ((cli->watch || cli->unwatch) && !cli->pid)
		return fail(err, FSNAP_E_USAGE, 0, "a watch needs a tree: -t PID");
	if (cli->watch)
		return begin_watch(cli, err);
	if (cli->unwatch)
		return heat_watch_end(cli->pid, err);
	return cli->pid ? of_tree(cli, err) : of_image(cli, err);
}
