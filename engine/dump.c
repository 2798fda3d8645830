/*
 * dump.c - the story of a dump, from beginning to end.
 *
 *	look around    find the process, its instructions, space for the image
 *	copy ahead     of large trees: what they hold, while they run, and what they write meanwhile
 *	freeze         stop every thread of the tree
 *	collect        kernel state, from outside and, through the agent, from inside
 *	copy           memory into the image, or what of it is new; checksums of large ones on the way
 *	let go         the tree runs on; frozen time ends here
 *	copy behind    what was too much for the freeze, from children that share it copy-on-write
 *	look back      how long interrupted sleeps had still to last; what of its files the page cache holds
 *	commit         the other checksums, index, records, commit record
 *	(kill)         if asked for, and only now that the image is durable
 *
 * Whatever fails, the tree is let go as it was and no image comes into being.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "bpf/async.h"
#include "engine/ahead.h"
#include "engine/awake.h"
#include "engine/chain/chain.h"
#include "engine/dump.h"
#include "engine/early.h"
#include "engine/laps.h"
#include "engine/live.h"
#include "engine/machine.h"
#include "engine/mailbox.h"
#include "engine/place.h"
#include "engine/procfs.h"
#include "engine/secrets.h"
#include "engine/seize.h"
#include "engine/sized.h"
#include "engine/sleeps.h"
#include "engine/snapshot.h"
#include "engine/steadfast.h"
#include "engine/time_left.h"
#include "engine/trace.h"
#include "engine/with/with.h"
#include "store/scope.h"

static void progress(const struct dump *dump, const char *phase, uint64_t done, uint64_t total)
{
	if (dump->options->progress)
		dump->options->progress(dump->options->progress_arg, phase, done, total);
}

/* --- look around ------------------------------------------------------------------ */

/* How the image is stored. */
static int choose_coding(struct dump *dump, struct store_coding *coding, struct fsnap_error *err)
{
	const struct fsnap_dump_options *options = dump->options;
	if (options->compress && store_coding_compress(coding, options->compress, err) < 0)
		return -1;
	if (!options->encrypt)
		return options->cipher ? fail(err, FSNAP_E_USAGE, 0, "a cipher, but nothing to encrypt with") : 0;
	if (options->with && options->with[0]) {
		fail(err, FSNAP_E_USAGE, 0, "--encrypt with --with: directories are not encrypted");
		return error_hint(err, "leave one of them out; the store can lie on an encrypted file system");
	}
	if (store_coding_encrypt(coding, options->cipher, err) < 0)
		return -1;
	if (!dump->chain || !dump->chain->keys)
		return store_set_key(dump->store, options->encrypt, err);
	store_borrow_key(dump->store, dump->chain->keys);
	return 0;
}

static int look_around(struct dump *dump, struct fsnap_error *err)
{
	char store_dir[4096], name[FSNAP_NAME_MAX + 1];
	const char *dir = dump->options->store;
	pid_t pid = dump->options->pid;
	if (pid <= 0) {
		fail(err, FSNAP_E_USAGE, 0, "%d is not a process ID", pid);
		return -1;
	}
	if (externals_open(&dump->externals, dump->options->external, pid, err) < 0 ||
	    (!dir && fsnap_default_store(store_dir, sizeof(store_dir), err) < 0))
		return -1;
	chain_take_mapped(dump);
	struct process *root = seize_refuse_self(pid, err) < 0 ? NULL : seize_prepare(&dump->tree, pid, 0, err);
	if (!root)
		return -1;
	if (root->image.zombie) {
		fail(err, FSNAP_E_NO_PROCESS, 0, "process %d (%s) has ended; its parent has not waited for it",
		     pid, root->comm);
		return -1;
	}
	if (seize_refuse_kernel(root, err) < 0)
		return -1;
	machine_raise_files(); /* every process of the tree takes some */
	dump->store = store_open(dir ? dir : store_dir, STORE_WRITE, err);
	struct store_coding coding = { 0 };
	if (!dump->store || choose_coding(dump, &coding, err) < 0 || look_at_tree(dump, err) < 0 ||
	    secrets_look(dump, err) < 0 || chain_join(dump, err) < 0)
		return -1;
	const char *image = look_for_name(dump, name, sizeof(name));
	if (store_check_name(image, err) < 0)
		return -1;
	snprintf(dump->report->image, sizeof(dump->report->image), "%s", image);
	dump->estimate = pages_estimate(dump);
	dump->writer = image_writer_open_coded(dump->store, image, dump->estimate, &coding, err);
	if (!dump->writer)
		return -1;
	chain_inherit(dump);
	dump->report->recycled = image_writer_recycled(dump->writer);
	time_left_watch(dump);
	return with_begin(dump, err);
}

/* --- copy ------------------------------------------------------------------------------- */

#define MANY_PAGES 4096 /* their copying takes so long that being woken does not count */

static int copy(struct dump *dump, struct fsnap_error *err)
{
	progress(dump, "copying", 0, dump->taken * STORE_PAGE);
	if (dump->taken > MANY_PAGES)
		awake_end(&dump->awake);
	if (image_writer_reserve(dump->writer, dump->taken, err) < 0)
		return -1;
	image_writer_take(dump->writer, dump->taken);
	youth_note_jobs(dump);
	if (snapshot_take(dump, err) < 0)
		return -1;
	for (size_t i = 0; i < dump->n_jobs; i++)
		dump->report->frozen_pages += dump->jobs[i].npages;
	for (size_t i = 0; i < dump->n_ghost_copies; i++)
		dump->report->frozen_pages += dump->ghost_copies[i].npages;
	return ghost_copy_all(dump, err) < 0 ? -1 : copy_pages(dump, NULL, err);
}

/* --- commit ------------------------------------------------------------------------------ */

static void tell_encoded(void *dump, uint64_t done, uint64_t total)
{
	progress(dump, "encoding", done, total);
}

static int commit(struct dump *dump, image_tree *tree, struct fsnap_error *err)
{
	progress(dump, "writing", 0, 0);
	uint64_t mark = clock_ns(CLOCK_MONOTONIC);
	heat_save(dump);
	dump->report->heat_us = lap(&mark);
	if (files_sync(dump, err) < 0 || repeats_find(dump, err) < 0 || with_put(dump, err) < 0 || records_put(dump, tree, err) < 0)
		return -1;
	dump->report->bytes = dump->report->pages * STORE_PAGE;
	youth_put(dump);
	struct image_writer *writer = dump->writer;
	uint8_t uuid[16];
	image_writer_uuid(writer, uuid);
	image_writer_tell(writer, tell_encoded, dump);
	dump->writer = NULL; /* which is freed in either case */
	if (image_writer_commit(writer, &dump->report->image_bytes, err) < 0)
		return -1;
	chain_commit(dump, uuid);
	return 0;
}

/* --- farewell ---------------------------------------------------------------------------- */

static void signal_one(const struct process *process, int signo)
{
	syscall(SYS_pidfd_send_signal, process->pidfd, signo, NULL, 0);
}

struct farewell {
	struct dump *dump;
	struct fsnap_error *err;
	bool stopped; /* the tree was told to: who lets it go has to tell it otherwise */
};

/* While everything still stands still: nobody can fork away. Should we die in the midst of it, whoever has not been killed
 * yet is no longer held by ptrace, and sees others dead: before the first is, none may run any more. Parents come last, for
 * groups that lose the last of theirs are told to go on (setpgid(2)). */
static int kill_tree(struct farewell *farewell)
{
	struct dump *dump = farewell->dump;
	farewell->stopped = true;
	for (size_t i = 0; i < dump->tree.n_processes; i++)
		signal_one(dump->tree.processes[i], SIGSTOP);
	for (size_t i = dump->tree.n_processes; i-- > 0;)
		signal_one(dump->tree.processes[i], SIGKILL);
	return 0;
}

/* Steadfast: a tree whose connections have been silenced must not outlive us. */
static int part(void *arg)
{
	struct farewell *farewell = arg;
	return files_silence(farewell->dump, farewell->err) < 0 ? -1 : kill_tree(farewell);
}

static int farewell(struct dump *dump, struct fsnap_error *err)
{
	struct farewell farewell = { dump, err, false };
	int result = steadfast(part, &farewell, err);
	for (size_t i = 0; result < 0 && farewell.stopped && i < dump->tree.n_processes; i++)
		signal_one(dump->tree.processes[i], SIGCONT);
	return result;
}

/* Its addresses and files are free only when it has really gone; and the dead report to their tracer
 * before their parent may have them. */
static void await_end(struct dump *dump)
{
	for (size_t i = 0; i < dump->tree.n_processes; i++) {
		struct process *process = dump->tree.processes[i];
		for (size_t j = 0; j < process->n_workers; j++)
			trace_await_end(process->workers[j]);
		for (size_t j = process->n_tasks; j-- > 0;)
			trace_await_end(process->tasks[j]);
	}
}

/* --- the whole ------------------------------------------------------------------------------ */

static int frozen_part(struct dump *dump, image_tree *tree, uint64_t *mark, struct fsnap_error *err)
{
	struct fsnap_dump_report *report = dump->report;
	if (seize_tree(&dump->tree, &dump->known, err) < 0)
		return -1;
	dump->still = true;
	report->seize_us = lap(mark);
	tree->created_ns = clock_ns(CLOCK_REALTIME);
	if (collect(dump, err) < 0 || secrets_check(dump, err) < 0)
		return -1;
	/* After timers were asked what they have left: by clocks that go on from here none expires early. */
	tree->monotonic_ns = clock_ns(CLOCK_MONOTONIC);
	tree->boottime_ns = clock_ns(CLOCK_BOOTTIME);
	secrets_note(dump);
	report->collect_us = lap(mark);
	if (with_freeze(dump, err) < 0)
		return -1;
	report->with_us = lap(mark);
	if (copy(dump, err) < 0)
		return -1;
	report->copy_us = lap(mark);
	return 0;
}

/* Whatever /proc refused to tell us: of a process that is gone that is the reason. */
static void explain_death(const struct dump *dump, struct fsnap_error *err)
{
	for (size_t i = 0; i < dump->tree.n_processes; i++) {
		const struct process *process = dump->tree.processes[i];
		struct procfs_stat stat = { .state = 'X' };
		struct fsnap_error why = { 0 };
		procfs_stat(process->proc, "stat", &stat, &why);
		if (why.sys == EMFILE || why.sys == ENFILE || why.sys == ENOMEM)
			return; /* it is we who lack something */
		if (process->image.zombie || (stat.state != 'Z' && stat.state != 'X'))
			continue;
		*err = (struct fsnap_error){ 0 };
		fail(err, FSNAP_E_TARGET_DIED, 0, "process %d (%s) ended while it was being saved",
		     process->pid, process->comm);
		return;
	}
}

#define HEAP_PER_PROCESS (24u << 10) /* that collecting its state takes; what one takes is little */

static int tell_story(struct dump *dump, struct fsnap_error *err)
{
	uint64_t begin = clock_ns(CLOCK_MONOTONIC), mark = begin;
	image_tree tree = { .mailbox = dump->options->mailbox };
	if (look_around(dump, err) < 0)
		return -1;
	dump->report->prepare_us = lap(&mark);
	if (live_copy(dump, err) < 0)
		return -1;
	chain_hurry(dump, true);
	ahead_heap(dump->known.n_processes * HEAP_PER_PROCESS);
	finder_begin(dump);
	early_begin(dump);
	dump->awake = awake_begin();
	lap(&mark);
	uint64_t frozen = mark;
	int result = frozen_part(dump, &tree, &mark, err);
	early_stop(dump);
	finder_stop(dump); /* which looks at nobody who runs */
	if (result < 0 && err->code == FSNAP_E_SYSTEM)
		explain_death(dump, err);
	/* With --kill the tree stays still until the image is durable: nothing it did is lost. */
	if (result < 0 || !dump->options->kill)
		seize_release(&dump->tree);
	dump->report->frozen_us = lap(&frozen);
	awake_end(&dump->awake);
	chain_hurry(dump, false);
	placed_free_retired(&dump->placed);
	live_account(dump);
	if (result == 0)
		sleeps_ask(dump, tree.monotonic_ns);
	mark = frozen;
	if (result == 0)
		result = snapshot_copy(dump, err);
	if (result == 0)
		result = cgroups_collect(dump, err);
	if (result == 0)
		result = commit(dump, &tree, err);
	dump->report->commit_us = lap(&mark);
	if (result == 0 && dump->options->kill && (result = farewell(dump, err)) == 0)
		await_end(dump);
	seize_release(&dump->tree);
	dump->report->total_us = (mark - begin) / 1000;
	return result;
}

void dump_free(struct dump *dump)
{
	awake_end(&dump->awake);
	snapshot_free(dump);
	placed_free_retired(&dump->placed);
	image_writer_abort(dump->writer);
	live_free(dump);
	with_forget(dump);
	chain_leave(dump);
	files_free(dump);
	externals_close(&dump->externals);
	cgroups_free(dump);
	ghost_free(dump);
	pages_forget(dump);
	youth_free(&dump->youth);
	mapped_free(dump);
	async_close(dump->async);
	readers_leave_flags(dump);
	time_left_free(dump);
	sem_forget(dump);
	xdr_free((xdrproc_t)xdr_image_ipc, (char *)&dump->ipc);
	free(dump->jobs);
	free(dump->runs);
	text_cache_free(&dump->texts);
	tree_free(&dump->tree);
	tree_free(&dump->known);
	store_close(dump->store);
}

int dump_chained(const struct fsnap_dump_options *options, struct chain *chain, struct fsnap_dump_report *report,
		 struct fsnap_error *err)
{
	struct fsnap_error ignored = { 0 };
	struct fsnap_dump_options known;
	struct fsnap_dump_report own = { .pid = options->pid };
	sized_take(&known, sizeof(known), options);
	if (known.mailbox)
		mailbox_announce(known.pid, known.mailbox);
	struct dump dump = { .options = &known, .report = &own, .self = getpid(), .chain = chain,
			     .keeper = -1, .awake = -1 };
	int result = tell_story(&dump, err ? err : &ignored);
	dump_free(&dump);
	if (known.mailbox)
		mailbox_answer(known.pid, known.mailbox, result, &own, err ? err : &ignored);
	if (result == 0)
		sized_tell(report, &own, sizeof(own));
	return result;
}

int fsnap_dump(const struct fsnap_dump_options *options, struct fsnap_dump_report *report,
	       struct fsnap_error *err)
{
	return dump_chained(options, NULL, report, err);
}
