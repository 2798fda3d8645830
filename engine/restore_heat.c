/*
 * restore_heat.c - file pages that were in use when the image was made are on their way back into the page
 * cache while everything else is put together, and after that; fsnap_prefetch() does only this.
 */
#include <string.h>

#include "engine/heat/fetch.h"
#include "engine/notes.h"
#include "engine/restore.h"
#include "engine/sized.h"

/* --- with a restore --------------------------------------------------------------- */

static void note_skipped(void *restore, const char *path, const char *why)
{
	restore_note(restore, "%s: its hot pages are not prefetched: %s", path, why);
}

/* The tree whose reading comes first: it has these numbers as soon as it exists. */
static void name_tree(const struct restore *restore, struct warm_order *order)
{
	for (size_t i = 0; i < restore->model.n_processes && order->n_tree < WARM_PIDS; i++)
		if (!restore->model.processes[i].zombie)
			order->tree[order->n_tree++] = restore->model.processes[i].pid;
}

void heat_fetch(struct restore *restore)
{
	struct fsnap_error why = { 0 };
	struct fetch *fetch = &restore->fetch;
	struct fsnap_restore_report *report = restore->report;
	if (policy_names_paths(&restore->policy) && restore->options->prefetch != FSNAP_PREFETCH_OFF) {
		restore_note(restore, "nothing is prefetched: a policy says which files may be opened");
		return;
	}
	if (fetch_plan(fetch, restore->image, restore->options->prefetch, &restore->remap, true, note_skipped,
		       restore, &why) < 0) {
		restore_note(restore, "nothing is prefetched: %s", why.message);
		return;
	}
	report->prefetch_files = (unsigned)fetch->n_fds;
	report->prefetch_bytes = fetch->bytes;
	struct warm_order order = { .stretches = fetch->stretches, .n = fetch->n,
				    .rate = restore->options->prefetch_rate,
				    .ceiling = restore->options->prefetch_max };
	name_tree(restore, &order);
	if (fetch_needed(fetch) && fetch_start(fetch, &order, &why) < 0)
		restore_note(restore, "nothing is prefetched: %s", why.message);
}

void heat_fetch_watch(struct restore *restore)
{
	struct fsnap_error why = { 0 };
	if (!restore->options->prefetch_stats)
		return;
	restore->report->prefetching = usage_begin(&restore->fetch, restore->root, &why);
	if (!restore->report->prefetching)
		restore_note(restore, "no statistics of prefetching: %s", why.message);
}

void heat_fetch_stop(struct restore *restore)
{
	fetch_stop(&restore->fetch);
	fsnap_prefetching_free(restore->report->prefetching); /* what it reads for is no more: it ends by itself */
	restore->report->prefetching = NULL;
}

/* --- alone ---------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void add_note(struct fsnap_prefetch_report *report,
							   const char *format, ...)
{
	va_list args;
	va_start(args, format);
	notes_add(report->notes, sizeof(report->notes), format, args);
	va_end(args);
}

static void note_left_out(void *report, const char *path, const char *why)
{
	add_note(report, "%s: left out: %s", path, why);
}

static void fill_in(struct fsnap_prefetch_report *report, const struct warm_progress *progress)
{
	report->read_bytes = progress->read;
	report->present_bytes = progress->present;
	report->failed_bytes = progress->failed;
	report->total_us = progress->us;
	report->scarce = (int)progress->scarce;
}

static int fetch_image(struct image *image, const struct fsnap_prefetch_options *options,
		       struct fsnap_prefetch_report *report, struct fsnap_error *err)
{
	struct fetch fetch;
	struct remap remap = { 0 };
	if (remap_open(&remap, options->map, err) < 0)
		return -1;
	snprintf(report->image, sizeof(report->image), "%s", image_name(image));
	int result = fetch_plan(&fetch, image, options->prefetch, &remap, false, note_left_out, report, err);
	if (result == 0) {
		struct warm_order order = { .stretches = fetch.stretches, .n = fetch.n, .rate = options->rate,
					    .ceiling = options->max, .tell = options->progress,
					    .tell_arg = options->progress_arg };
		struct warm_progress progress = { 0 };
		warm_run(&order, &progress);
		report->files = (unsigned)fetch.n_fds;
		report->bytes = fetch.bytes;
		fill_in(report, &progress);
	}
	fetch_free(&fetch);
	remap_close(&remap);
	return result;
}

static int prefetch(const struct fsnap_prefetch_options *options, struct fsnap_prefetch_report *report,
		    struct fsnap_error *err)
{
	char store_dir[4096];
	const char *dir = options->store;
	if (!dir && fsnap_default_store(store_dir, sizeof(store_dir), err) < 0)
		return -1;
	struct store *store = store_open(dir ? dir : store_dir, STORE_READ, err);
	struct image *image = store ? image_open(store, options->image, err) : NULL;
	int result = image ? fetch_image(image, options, report, err) : -1;
	image_close(image);
	store_close(store);
	return result;
}

int fsnap_prefetch(const struct fsnap_prefetch_options *options, struct fsnap_prefetch_report *report,
		   struct fsnap_error *err)
{
	struct fsnap_error ignored = { 0 };
	struct fsnap_prefetch_options known;
	struct fsnap_prefetch_report own = { 0 };
	sized_take(&known, sizeof(known), options);
	int result = prefetch(&known, &own, err ? err : &ignored);
	if (result == 0)
		sized_tell(report, &own, sizeof(own));
	return result;
}
