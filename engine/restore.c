/*
 * restore.c - the story of a restore, from beginning to end.
 *
 *	open       the image, checked; what the machine must offer
 *	prefetch   image pages on their way from the disk, and hot pages of files, while everything below
 *	           goes on
 *	prepare    the workshop: every file, pipe, socket of the tree, made in this process; a place for
 *	           control memory
 *	compile    one plan per task
 *	launch     the tree of empty tasks; each runs its plan; page checksums meanwhile. What is streamed
 *	           is handed over to the pager, which brings it when the tree runs
 *	release    registers set, the last trace of fsnap removed, all let go
 *
 * Whatever fails, everything that was made is removed again; the image is only read.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/awake.h"
#include "engine/hugepages.h"
#include "engine/keeper.h"
#include "engine/laps.h"
#include "engine/machine.h"
#include "engine/page_kinds.h"
#include "engine/namespaces.h"
#include "engine/restore.h"
#include "engine/sized.h"
#include "engine/sole.h"
#include "engine/staging.h"
#include "engine/takeback.h"
#include "engine/template.h"
#include "engine/with/with.h"
#include "restorer/prefetch.h"
#include "store/scope.h"

static int understand(struct restore *restore, struct fsnap_error *err)
{
	const struct fsnap_restore_options *options = restore->options;
	if (options->tcp < FSNAP_TCP_DEFAULT || options->tcp > FSNAP_TCP_RESET)
		return fail(err, FSNAP_E_USAGE, 0, "%d says nothing about TCP connections", options->tcp);
	if (options->cgroup < FSNAP_CGROUP_LEAVE || options->cgroup > FSNAP_CGROUP_CREATE)
		return fail(err, FSNAP_E_USAGE, 0, "%d says nothing about control groups", options->cgroup);
	if (options->clocks < FSNAP_CLOCKS_DEFAULT || options->clocks > FSNAP_CLOCKS_MACHINE)
		return fail(err, FSNAP_E_USAGE, 0, "%d says nothing about clocks", options->clocks);
	if (options->changed < FSNAP_CHANGED_DEFAULT || options->changed > FSNAP_CHANGED_ACCEPT)
		return fail(err, FSNAP_E_USAGE, 0, "%d says nothing about changed files", options->changed);
	cleanup_free const char **maps = with_maps(options->map, options->with);
	if (!maps)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "--map");
	if (policy_open(&restore->policy, options->allow, options->deny, err) < 0 ||
	    remap_open(&restore->remap, maps, err) < 0 || ports_open(&restore->ports, options->listen, err) < 0)
		return -1;
	return handed_open(&restore->handed, options, err);
}

static void count_kinds(struct restore *restore)
{
	struct fsnap_page_kinds *kinds = &restore->report->kinds;
	const struct model *model = &restore->model;
	size_t n;
	for (size_t i = 0; i < model->n_mms; i++) {
		const struct page_run *runs = image_runs(restore->image, model->mms[i].id, &n);
		page_kinds_add(kinds, &model->mms[i], runs, n);
	}
	for (size_t i = 0; i < model->n_ghosts; i++) {
		const struct page_run *runs = image_runs(restore->image, model->ghosts[i].id, &n);
		page_kinds_add_ghost(kinds, &model->ghosts[i], runs, n);
	}
}

int restore_open_image(struct restore *restore, struct fsnap_error *err)
{
	char store_dir[4096];
	const char *dir = restore->options->store;
	if (understand(restore, err) < 0 ||
	    (!dir && !restore->options->from && fsnap_default_store(store_dir, sizeof(store_dir), err) < 0))
		return -1;
	const struct fsnap_template *template = restore->options->from;
	restore->store = template ? template->store : store_open(dir ? dir : store_dir, STORE_READ, err);
	if (restore->store && !template && restore->options->decrypt &&
	    store_set_key(restore->store, restore->options->decrypt, err) < 0)
		return -1;
	restore->image = template ? template->image :
			 restore->store ? image_open(restore->store, restore->options->image, err) : NULL;
	if (!restore->image || model_load(&restore->model, restore->image, err) < 0 ||
	    policy_check(&restore->policy, &restore->model, err) < 0)
		return -1;
	snprintf(restore->report->image, sizeof(restore->report->image), "%s", image_name(restore->image));
	restore->report->old_pid = restore->model.tree.root_pid;
	restore->report->bytes = (image_pages(restore->image) + image_referred(restore->image)) * STORE_PAGE;
	count_kinds(restore);
	return 0;
}

/* Once: /proc/self/maps takes longer than most of what is done here. A keeper has its own. */
static int find_specials(struct restore *restore, struct fsnap_error *err)
{
	struct memory_source *source = &restore->source;
	source->specials = machine_specials(&source->n_specials, err);
	return source->specials ? machine_redirect(&restore->model, source->specials, source->n_specials,
						   &restore->redirection, &restore->foreign, err) : -1;
}

int restore_fit(struct restore *restore, struct fsnap_error *err)
{
	if (renumber_decide(restore, err) < 0)
		return -1;
	if (restore->options->from && keeper_serves(restore->options->from->keeper, restore))
		restore->keeper = restore->options->from->keeper;
	/* A machine that was good for the keeper is so still. */
	if (!restore->keeper && (machine_check(&restore->model.machine, err) < 0 || find_specials(restore, err) < 0))
		return -1;
	if (streaming_decide(restore, err) < 0)
		return -1;
	if (restore->redirection.n_entries)
		restore_note(restore, "this kernel is another build than that of the image (%s): calls of its vDSO are "
			     "led to this kernel's", restore->model.machine.kernel);
	return 0;
}

static int open_image(struct restore *restore, struct fsnap_error *err)
{
	return restore_open_image(restore, err) < 0 ? -1 : restore_fit(restore, err);
}

int restore_plan(struct restore *restore, struct fsnap_error *err)
{
	if (hugepages_check(&restore->model, restore->image, err) < 0)
		return -1;
	/* All of it at once, by all processors, where nothing comes later; else what the plans turn out to need. */
	if (!restore->streaming.on && streaming_decode(restore, err) < 0)
		return -1;
	if (workshop_open(restore, err) < 0)
		return -1;
	if (restore->keeper)
		restore->self = restore->keeper->self; /* which stays the keeper's */
	else if (inherited_collect(&restore->self, err) < 0)
		return -1;
	if (control_reserve(restore, err) < 0)
		return -1;
	staging_begin(restore);
	return compile(restore, err) < 0 ? -1 : streaming_decode(restore, err);
}

static int tell_story(struct restore *restore, struct fsnap_error *err)
{
	struct fsnap_restore_report *report = restore->report;
	uint64_t begin = clock_ns(CLOCK_MONOTONIC), mark = begin;
	restore->began_ns = begin;
	if (open_image(restore, err) < 0)
		return error_is_set(err) && restore->image ?
			       error_context(err, "image %s", image_name(restore->image)) : -1;
	report->open_us = lap(&mark);
	bool elsewhere = restore->streaming.on || restore->options->from || staging_wanted(restore);
	struct prefetch *prefetch = elsewhere ? NULL : prefetch_start(restore->image);
	/* Ahead of everything, but files that go with the image have to be there. */
	bool fetched = restore->options->from || image_count(restore->image, IMAGE_WITH);
	if (!fetched)
		heat_fetch(restore);
	/* First of all: where the original runs, files that the workshop opens are its, and so are the queues. */
	int result = sole_begin(restore, err) < 0 ? -1 : launch_check_numbers(restore, err);
	uint64_t files = clock_ns(CLOCK_MONOTONIC);
	if (result == 0)
		result = with_restore(restore, err);
	report->with_us = lap(&files);
	if (result == 0 && fetched && !restore->options->from)
		heat_fetch(restore);
	if (result == 0)
		result = restore_plan(restore, err);
	report->prepare_us = lap(&mark);
	int awake = result == 0 ? awake_begin() : -1;
	if (result == 0)
		result = launch(restore, err);
	report->build_us = lap(&mark);
	if (result == 0) {
		heat_fetch_watch(restore);
		result = release(restore, err);
	}
	report->release_us = lap(&mark);
	awake_end(&awake);
	report->first_instruction_us = report->total_us = (mark - begin) / 1000;
	prefetch_end(prefetch);
	if (result == 0) {
		with_keep(restore);
		streaming_report(restore);
		return 0;
	}
	give_up(restore);
	heat_fetch_stop(restore);
	ipc_free(restore); /* what is attached would not go */
	takeback(restore);
	with_undo(restore);
	return error_context(err, "image %s", image_name(restore->image));
}

void restore_begin(struct restore *restore, const struct fsnap_restore_options *options,
		   struct fsnap_restore_report *report)
{
	*restore = (struct restore){ .options = options, .report = report, .stdio = { -1, -1, -1 },
				     .time_namespace = -1, .sole = -1 };
}

void restore_end(struct restore *restore)
{
	sole_end(restore);
	cgroups_end(restore);
	ipc_free(restore);
	takeback_forget(restore);
	staging_end(restore);
	workshop_close(restore);
	handed_close(&restore->handed);
	fetch_free(&restore->fetch);
	remap_close(&restore->remap);
	policy_close(&restore->policy);
	ports_close(&restore->ports);
	control_free(restore);
	tree_free(&restore->tracees);
	plans_free(restore->plans);
	heirlooms_free(restore->heirlooms);
	numbers_free(&restore->renumber.task_of);
	streaming_free(restore);
	free(restore->first_task);
	free(restore->common_filters);
	free(restore->stand_in_task);
	free(restore->sigchld_data);
	free(restore->sleep_data);
	family_free(&restore->family);
	free(restore->source.specials);
	if (!restore->keeper)
		inherited_free(&restore->self);
	model_free(&restore->model);
	if (restore->options->from) /* both are the template's */
		return;
	image_close(restore->image);
	store_close(restore->store);
}

void restore_keep(struct fsnap_template *template)
{
	const struct fsnap_restore_options options = { .size = sizeof(options), .from = template,
						       .pids = FSNAP_PIDS_NEW, .prefetch = FSNAP_PREFETCH_OFF };
	struct fsnap_restore_report report = { 0 };
	struct fsnap_error ignored = { 0 };
	struct restore restore;
	restore_begin(&restore, &options, &report);
	if (open_image(&restore, &ignored) == 0)
		keeper_make(&restore, &template->keeper);
	restore_end(&restore);
}

static int restore_here(const struct fsnap_restore_options *options, struct fsnap_restore_report *report,
			struct fsnap_error *err)
{
	struct restore restore;
	restore_begin(&restore, options, report);
	int result = tell_story(&restore, err);
	/* It may be killed at any moment; then it is as if it had never been there. */
	bool again = result < 0 && restore.keeper && !keeper_lives(restore.keeper);
	ports_tell(&restore.ports, report->listen, sizeof(report->listen));
	report->root = report->pid;
	report->copy = options->copy;
	restore_end(&restore);
	if (!again)
		return result;
	*report = (struct fsnap_restore_report){ 0 };
	*err = (struct fsnap_error){ 0 };
	return restore_here(options, report, err);
}

int fsnap_restore(const struct fsnap_restore_options *options, struct fsnap_restore_report *report,
		  struct fsnap_error *err)
{
	struct fsnap_error ignored = { 0 };
	struct fsnap_restore_options known;
	struct fsnap_restore_report own = { 0 };
	sized_take(&known, sizeof(known), options);
	bool apart = known.pid_ns || known.net_ns || known.ipc_ns || known.user_ns;
	int result = apart ? namespaces_restore(&known, restore_here, &own, err ? err : &ignored) :
			     restore_here(&known, &own, err ? err : &ignored);
	own.pidfd = result == 0 && known.pidfd ? (int)syscall(SYS_pidfd_open, own.pid, 0) : -1;
	if (result == 0)
		sized_tell(report, &own, sizeof(own));
	return result;
}

static int print_plans(const struct plans *plans, int fd, struct fsnap_error *err)
{
	cleanup_fd int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	cleanup_file FILE *out = own >= 0 ? fdopen(own, "w") : NULL;
	if (!out)
		return fail(err, FSNAP_E_SYSTEM, errno, "writing the plans");
	own = -1; /* out closes it */
	plans_explain(plans, out);
	if (fflush(out) != 0)
		return fail(err, FSNAP_E_SYSTEM, errno, "writing the plans");
	return 0;
}

int fsnap_explain(const struct fsnap_restore_options *options, int fd, struct fsnap_error *err)
{
	struct fsnap_restore_options known;
	struct fsnap_restore_report own = { 0 };
	struct fsnap_error ignored = { 0 };
	struct restore restore;
	err = err ? err : &ignored;
	sized_take(&known, sizeof(known), options);
	restore_begin(&restore, &known, &own);
	restore.explaining = true;
	int result = open_image(&restore, err) < 0 || restore_plan(&restore, err) < 0 ? -1 : 0;
	if (result == 0)
		result = print_plans(restore.plans, fd, err);
	else if (restore.image)
		error_context(err, "image %s", image_name(restore.image));
	restore_end(&restore);
	return result;
}
