/*
 * track.c - fsnap_track() and fsnap_compact(): what is asked of a chain between dumps.
 */
#include <string.h>
#include <unistd.h>

#include "engine/chain/chain.h"
#include "engine/heat/heat.h"
#include "engine/machine.h"
#include "engine/procfs.h"
#include "engine/seize.h"
#include "engine/sized.h"
#include "store/scope.h"

/* With another start time nobody would find the keeper again. */
static int start_of(const struct process *root, uint64_t *start, struct fsnap_error *err)
{
	struct procfs_stat stat;
	if (procfs_stat(root->proc, "stat", &stat, err) < 0)
		return error_context(err, "process %d (%s)", root->pid, root->comm);
	*start = stat.start_time;
	return 0;
}

static void describe(const struct chain *chain, struct fsnap_track_report *report)
{
	report->processes = (unsigned)chain->n_members;
	for (size_t i = 0; i < chain->n_members; i++)
		for (size_t j = 0; j < chain->members[i].track.n_spans; j++)
			report->bytes += chain->members[i].track.spans[j].end - chain->members[i].track.spans[j].start;
}

/* What files it reads matters to the dumps to come as what memory it writes does, but is not promised. */
static int keep(struct dump *dump, const struct process *root, uint64_t start, int heat,
		struct fsnap_track_report *report, struct fsnap_error *err)
{
	struct fsnap_error why = { 0 };
	int watch = heat == FSNAP_HEAT_NEVER ? -1 : heat_watch_start(root->pid, &why);
	report->heat = watch >= 0;
	if (watch < 0 && heat != FSNAP_HEAT_NEVER)
		dump_note(dump, "which files it reads is not watched: %s", why.message);
	int result = keeper_start(root->pid, start, dump->chain, watch == 0, err);
	if (result < 0 && watch == 0)
		heat_watch_end(root->pid, NULL);
	return result;
}

/* The beginning of a dump, which ends there. */
static int begin(struct dump *dump, struct process *root, uint64_t start, int heat,
		 struct fsnap_track_report *report, struct fsnap_error *err)
{
	if (root->image.zombie)
		return fail(err, FSNAP_E_NO_PROCESS, 0, "process %d (%s) has ended", root->pid, root->comm);
	if (keeper_refuse_watched(root->pid, start, err) < 0)
		return -1;
	machine_raise_files();
	dump->chain = dump->lent = chain_new();
	if (!dump->chain)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "tracking process %d", root->pid);
	if (look_at_tree(dump, err) < 0 || chain_join(dump, err) < 0)
		return -1;
	describe(dump->chain, report);
	if (dump->chain->n_members)
		return keep(dump, root, start, heat, report, err);
	return fail(err, FSNAP_E_UNSUPPORTED, 0, "nothing of the tree can be tracked: %.*s",
		    (int)strcspn(dump->report->notes, "\n"), dump->report->notes);
}

static int track(const struct fsnap_track_options *options, struct fsnap_track_report *report, struct fsnap_error *err)
{
	struct fsnap_dump_options dump_options = { .size = sizeof(dump_options), .pid = options->pid };
	struct fsnap_dump_report dump_report = { .size = sizeof(dump_report) };
	struct dump dump = { .options = &dump_options, .report = &dump_report, .self = getpid(), .keeper = -1, .awake = -1 };
	if (options->pid <= 0)
		return fail(err, FSNAP_E_USAGE, 0, "%d is not a process ID", options->pid);
	struct process *root = seize_refuse_self(options->pid, err) < 0 ? NULL :
			       seize_prepare(&dump.tree, options->pid, 0, err);
	uint64_t start = 0;
	int result = root ? start_of(root, &start, err) : -1;
	report->pid = options->pid;
	if (result == 0)
		result = options->stop ? keeper_stop(root->pid, start, err)
				       : begin(&dump, root, start, options->heat, report, err);
	memcpy(report->notes, dump_report.notes, sizeof(report->notes));
	if (result < 0 && err && err->code == FSNAP_E_UNSUPPORTED && !err->hint[0])
		error_hint(err, "`fsnap dump` saves it all the same, in full each time");
	dump_free(&dump);
	return result;
}

int fsnap_track(const struct fsnap_track_options *options, struct fsnap_track_report *report, struct fsnap_error *err)
{
	struct fsnap_error ignored = { 0 };
	struct fsnap_track_options known;
	struct fsnap_track_report own = { 0 };
	sized_take(&known, sizeof(known), options);
	int result = track(&known, &own, err ? err : &ignored);
	sized_tell(report, &own, sizeof(own));
	return result;
}

int fsnap_compact(const char *store, const char *image, uint64_t *bytes, struct fsnap_error *err)
{
	char dir[4096];
	if (!store && fsnap_default_store(dir, sizeof(dir), err) < 0)
		return -1;
	struct store *opened = store_open(store ? store : dir, STORE_WRITE, err);
	int result = opened ? store_compact(opened, image, bytes, err) : -1;
	store_close(opened);
	return result;
}
