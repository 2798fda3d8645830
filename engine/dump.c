/*
 * dump.c - the story of a dump, from beginning to end.
 *
 *	look around    find the process, its instructions, space for the image
 *	freeze         stop every thread of the tree
 *	collect        kernel state, from outside and, through the agent, from inside
 *	copy           memory into the image
 *	let go         the tree runs on; frozen time ends here
 *	commit         checksums, index, records, commit record
 *	(kill)         if asked for, and only now that the image is durable
 *
 * Whatever fails, the tree is let go as it was and no image comes into being.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/dump.h"
#include "engine/machine.h"
#include "engine/place.h"
#include "engine/procfs.h"
#include "engine/seize.h"
#include "engine/state/state.h"
#include "engine/trace.h"
#include "store/scope.h"

#define BATCH 64 /* processes that are asked at once: each takes two descriptors meanwhile */

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* Microseconds since *mark, which moves to now. */
static uint64_t lap(uint64_t *mark)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC), was = *mark;
	*mark = now;
	return (now - was) / 1000;
}

static void progress(const struct dump *dump, const char *phase, uint64_t done, uint64_t total)
{
	if (dump->options->progress)
		dump->options->progress(dump->options->progress_arg, phase, done, total);
}

/* --- look around ------------------------------------------------------------------ */

/* Namespaces of their own make a container, which is for later; refuse, rather than restore the
 * program into the wrong world. */
static int refuse_namespaces(const struct process *process, struct fsnap_error *err)
{
	static const char *const names[] = { "mnt", "net", "pid", "user", "uts", "ipc", "cgroup", "time" };
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char theirs[32], ours[32];
		struct stat a, b;
		snprintf(theirs, sizeof(theirs), "ns/%s", names[i]);
		snprintf(ours, sizeof(ours), "/proc/self/ns/%s", names[i]);
		if (fstatat(process->proc, theirs, &a, 0) < 0 || stat(ours, &b) < 0 || a.st_ino == b.st_ino)
			continue;
		fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s) has its own %s namespace", process->pid,
		     process->comm, names[i]);
		return error_hint(err, "run fsnap inside it: nsenter -t %d -a fsnap dump ...", process->pid);
	}
	return 0;
}

/* Whatever it was that /proc would not show: the answer is the same. */
static int explain_permission(const struct process *process, struct fsnap_error *err)
{
	if (!err || err->code != FSNAP_E_PERMISSION)
		return -1;
	error_context(err, "process %d (%s)", process->pid, process->comm);
	return error_hint(err, "run fsnap as root or as the owner of the process");
}

/* What can be had of a process whether or not it runs. */
static int prepare_process(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	if (process->image.zombie || process->prepared)
		return 0;
	if (refuse_namespaces(process, err) < 0 || maps_survey(process, err) < 0 ||
	    maps_collect(dump, process, err) < 0 ||
	    text_find(process->pid, process->mm.vmas.vmas_val, process->mm.vmas.vmas_len, &process->text,
		      &dump->texts, err) < 0)
		return explain_permission(process, err);
	if (process->mem < 0)
		process->mem = openat(process->proc, "mem", O_RDWR | O_CLOEXEC);
	if (process->mem < 0) {
		fail(err, FSNAP_E_PERMISSION, errno, "its memory");
		return explain_permission(process, err);
	}
	process->prepared = process->text.syscall_any || process->text.syscall_ret;
	if (process->prepared)
		return 0;
	return fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s): no system call instruction in its text",
		    process->pid, process->comm);
}

/* Since then it may have unmapped what we are going to run on, or executed another program: its old
 * memory is then gone, or, behind vfork(2), its parent's. */
static void doubt_preparation(struct process *process)
{
	if (!process->prepared)
		return;
	close(process->mem);
	process->mem = openat(process->proc, "mem", O_RDWR | O_CLOEXEC);
	process->prepared = process->mem >= 0 && text_is_there(&process->text, process->mem);
}

static void meet_children(struct dump *dump, struct process *parent)
{
	size_t n, count;
	cleanup_free pid_t *threads = procfs_threads(parent->proc, &n, NULL);
	cleanup_free pid_t *children = threads ? procfs_children(parent->proc, threads, n, &count, NULL) : NULL;
	for (size_t i = 0; children && i < count; i++)
		seize_prepare(&dump->known, children[i], parent->pid, NULL);
}

/* What is found out before the freeze need not be found out during it. Children come and go meanwhile:
 * the tree is what seize_tree() finds, and what fails here is done again there. */
static int prepare_tree(struct dump *dump, struct fsnap_error *err)
{
	if (prepare_process(dump, dump->tree.processes[0], err) < 0)
		return -1;
	meet_children(dump, dump->tree.processes[0]);
	for (size_t i = 0; i < dump->known.n_processes; i++)
		if (prepare_process(dump, dump->known.processes[i], NULL) == 0)
			meet_children(dump, dump->known.processes[i]);
	return 0;
}

static const char *image_name_for(const struct dump *dump, char *buf, size_t size)
{
	if (dump->options->name)
		return dump->options->name;
	struct timespec now;
	struct tm parts;
	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &parts);
	char time[32];
	strftime(time, sizeof(time), "%Y%m%d-%H%M%S", &parts);
	const struct process *root = dump->tree.processes[0];
	snprintf(buf, size, "%s-%d-%s.%03ld", root->comm, root->pid, time, now.tv_nsec / 1000000);
	/* A name a process gave itself may hold anything. */
	for (char *c = buf; *c; c++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", *c) ||
		    (c == buf && (*c == '.' || *c == '-')))
			*c = '_';
	return buf;
}

static uint64_t estimate_pages(const struct dump *dump)
{
	uint64_t pages = pages_estimate(dump->tree.processes[0]);
	for (size_t i = 0; i < dump->known.n_processes; i++)
		pages += pages_estimate(dump->known.processes[i]);
	return pages;
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
	if (!dir && fsnap_default_store(store_dir, sizeof(store_dir), err) < 0)
		return -1;
	struct process *root = seize_refuse_self(pid, err) < 0 ? NULL : seize_prepare(&dump->tree, pid, 0, err);
	if (!root)
		return -1;
	if (root->image.zombie) {
		fail(err, FSNAP_E_NO_PROCESS, 0, "process %d (%s) has ended; its parent has not waited for it",
		     pid, root->comm);
		return -1;
	}
	dump->store = store_open(dir ? dir : store_dir, STORE_WRITE, err);
	if (!dump->store || prepare_tree(dump, err) < 0)
		return -1;
	const char *image = image_name_for(dump, name, sizeof(name));
	if (store_check_name(image, err) < 0)
		return -1;
	snprintf(dump->report->image, sizeof(dump->report->image), "%s", image);
	dump->writer = image_writer_open(dump->store, image, estimate_pages(dump), err);
	if (!dump->writer)
		return -1;
	dump->report->recycled = image_writer_recycled(dump->writer);
	return 0;
}

/* --- freeze and collect --------------------------------------------------------------- */

static int collect_registers(struct process *process, struct fsnap_error *err)
{
	for (size_t i = 0; i < process->n_tasks; i++) {
		struct task *task = process->tasks[i];
		if (trace_check(trace_get_state(task, err), task, err) < 0)
			return -1;
		task->image.tid = task->tid;
		task->image.regs.regs_val = malloc(sizeof(task->regs));
		if (!task->image.regs.regs_val)
			return fail(err, FSNAP_E_NOMEM, ENOMEM, "registers");
		memcpy(task->image.regs.regs_val, &task->regs, sizeof(task->regs));
		task->image.regs.regs_len = sizeof(task->regs);
		/* CS tells which instruction set the thread runs: 0x33 is 64-bit user code. */
		if (task->regs.cs != 0x33) {
			fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s) is a 32-bit program", process->pid,
			     process->comm);
			return error_hint(err, "only 64-bit programs can be saved");
		}
	}
	return 0;
}

static int collect_cwd(struct dump *dump, struct process *process, const char *name,
		       image_identity *identity, struct fsnap_error *err)
{
	char path[4096];
	cleanup_fd int fd = openat(process->proc, name, O_PATH | O_CLOEXEC);
	ssize_t n = readlinkat(process->proc, name, path, sizeof(path) - 1);
	if (fd < 0 || n < 0)
		return fail(err, FSNAP_E_PERMISSION, errno, "process %d (%s): its %s", process->pid,
			    process->comm, name);
	path[n] = '\0';
	return dump_identity(dump, process, fd, path, identity, err);
}

/* Of an ended process its name and owner are left, which its parent will be told. */
static int collect_zombie(struct process *process, struct fsnap_error *err)
{
	cleanup_free char *text = procfs_read_once(process->proc, "status", NULL, err);
	struct task *task = process_add_task(process, process->pid);
	struct task_status status;
	if (!text || !task || status_parse(text, &status, err) < 0)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "process %d", process->pid);
	task->image = (image_thread){ .tid = process->pid, .comm = strdup(process->comm),
				      .creds = status.creds };
	return task->image.comm ? 0 : fail(err, FSNAP_E_NOMEM, ENOMEM, "process %d", process->pid);
}

/* What a process is asked from inside, and what came of it. */
struct inquiry {
	struct survey *survey;
	uint32_t brk; /* slot */
};

static int collect_outside(struct dump *dump, struct process *process, struct inquiry *inquiry,
			   struct fsnap_error *err)
{
	process->image.stopped = (u_int)process->tasks[0]->group_stop;
	process->mm.id = process->image.mm = ++dump->next_space;
	process->mm.syscall_gadget =
		process->text.syscall_ret ? process->text.syscall_ret : process->text.syscall_any;
	if (maps_collect(dump, process, err) < 0 || collect_registers(process, err) < 0 ||
	    !(inquiry->survey = survey_new(process, err)) || survey_collect(inquiry->survey, err) < 0 ||
	    files_collect(dump, process, err) < 0)
		return -1;
	if (collect_cwd(dump, process, "cwd", &process->image.cwd, err) < 0)
		return -1;
	return collect_cwd(dump, process, "root", &process->image.root, err);
}

/* Facts that only the process itself can ask the kernel for. */
static struct plans *ask(struct process *process, struct inquiry *inquiry)
{
	struct plans *plans = plans_new();
	for (size_t i = 0; i < process->n_tasks; i++)
		inquiry->survey->task[i].plan = plans_task(plans, process->tasks[i]->tid, process->comm);
	survey_ask(inquiry->survey, plans);
	plan_note(plans, "end of the heap");
	plan_call(plans, 0, SYS_brk, IMM(0));
	inquiry->brk = plan_result(plans);
	return plans;
}

static int answer(const struct placement *placement, const struct inquiry *inquiry, struct fsnap_error *err)
{
	struct ctl *ctl = placed_ctl(placement->placed);
	placement->process->mm.brk = (uint64_t)plans_slot(placement->plans, ctl, inquiry->brk);
	return survey_answer(inquiry->survey, placement->plans, ctl, err);
}

static int ask_inside(struct process **processes, struct inquiry *inquiries, size_t n,
		      struct fsnap_error *err)
{
	struct placement placements[BATCH] = { 0 };
	for (size_t i = 0; i < n; i++)
		placements[i] = (struct placement){ processes[i], ask(processes[i], &inquiries[i]), NULL };
	int result = place_run(placements, n, err);
	for (size_t i = 0; i < n; i++) {
		if (result == 0)
			result = answer(&placements[i], &inquiries[i], err);
		placed_free(placements[i].placed);
		plans_free(placements[i].plans);
	}
	return result;
}

static int collect_batch(struct dump *dump, struct process **processes, size_t n, struct fsnap_error *err)
{
	struct inquiry inquiries[BATCH] = { 0 };
	int result = 0;
	for (size_t i = 0; i < n && result == 0; i++)
		result = collect_outside(dump, processes[i], &inquiries[i], err);
	if (result == 0)
		result = ask_inside(processes, inquiries, n, err);
	for (size_t i = 0; i < n && result == 0; i++)
		result = pages_find(dump, processes[i], err);
	for (size_t i = 0; i < n; i++)
		survey_free(inquiries[i].survey);
	return result;
}

/* posix_spawn(3) and vfork(2) children live in their parent's memory until they exec. */
static int refuse_shared_memory(const struct tree *tree, struct fsnap_error *err)
{
	for (size_t i = 1; i < tree->n_processes; i++) {
		const struct process *child = tree->processes[i];
		if (child->image.zombie || syscall(SYS_kcmp, child->pid, child->ppid, 1 /* KCMP_VM */, 0, 0) != 0)
			continue;
		fail(err, FSNAP_E_UNSUPPORTED, 0, "process %d (%s) shares its memory with its parent %d",
		     child->pid, child->comm, child->ppid);
		return error_hint(err, "it is probably about to exec: try again in a moment");
	}
	return 0;
}

static int collect(struct dump *dump, struct fsnap_error *err)
{
	struct tree *tree = &dump->tree;
	struct process *batch[BATCH];
	size_t n = 0;
	if (refuse_shared_memory(tree, err) < 0)
		return -1;
	for (size_t i = 0; i < tree->n_processes; i++) {
		struct process *process = tree->processes[i];
		process->image.pid = process->pid;
		process->image.ppid = process->ppid;
		dump->report->processes++;
		dump->report->threads += (unsigned)process->n_tasks;
		doubt_preparation(process);
		if ((process->image.zombie ? collect_zombie(process, err) :
					     prepare_process(dump, process, err)) < 0)
			return -1;
		if (!process->image.zombie)
			batch[n++] = process;
		if ((n == BATCH || i + 1 == tree->n_processes) && collect_batch(dump, batch, n, err) < 0)
			return -1;
		n %= BATCH;
	}
	return files_finish(dump, err) < 0 ? -1 : ghost_settle(dump, err);
}

static int copy(struct dump *dump, struct fsnap_error *err)
{
	progress(dump, "copying", 0, dump->taken * STORE_PAGE);
	if (image_writer_reserve(dump->writer, dump->taken, err) < 0)
		return -1;
	image_writer_take(dump->writer, dump->taken);
	return ghost_copy_all(dump, err) < 0 ? -1 : copy_pages(dump, err);
}

/* --- commit ------------------------------------------------------------------------------ */

static int put(struct dump *dump, uint32_t kind, const char *name, xdrproc_t proc, void *object,
	       struct fsnap_error *err)
{
	return image_writer_put(dump->writer, kind, true, name, proc, object, err);
}

static int put_tree(struct dump *dump, image_tree *tree, struct fsnap_error *err)
{
	const struct process *root = dump->tree.processes[0];
	char host[256] = "";
	gethostname(host, sizeof(host) - 1);
	tree->root_pid = root->pid;
	tree->comm = (char *)root->comm;
	tree->host = host;
	tree->writer = (char *)fsnap_version();
	tree->processes = dump->report->processes;
	tree->threads = dump->report->threads;
	if (put(dump, IMAGE_TREE, "tree", (xdrproc_t)xdr_image_tree, tree, err) < 0)
		return -1;
	image_machine machine;
	int result = machine_describe(&machine, err);
	if (result == 0)
		result = put(dump, IMAGE_MACHINE, "machine", (xdrproc_t)xdr_image_machine, &machine, err);
	xdr_free((xdrproc_t)xdr_image_machine, (char *)&machine);
	return result;
}

/* XDR cannot write NULL strings: a zombie's record is mostly empty, but well-formed. */
static int put_process(struct dump *dump, struct process *process, struct fsnap_error *err)
{
	image_process record = process->image;
	if (!record.cwd.path)
		record.cwd.path = (char *)"";
	if (!record.root.path)
		record.root.path = (char *)"";
	cleanup_free image_thread *threads = calloc(process->n_tasks, sizeof(*threads));
	if (!threads)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "threads");
	for (size_t i = 0; i < process->n_tasks; i++)
		threads[i] = process->tasks[i]->image;
	record.threads.threads_val = threads;
	record.threads.threads_len = (u_int)process->n_tasks;
	return put(dump, IMAGE_PROCESS, "process", (xdrproc_t)xdr_image_process, &record, err);
}

static int put_records(struct dump *dump, image_tree *tree, struct fsnap_error *err)
{
	if (put_tree(dump, tree, err) < 0)
		return -1;
	for (size_t i = 0; i < dump->n_ghosts; i++)
		if (put(dump, IMAGE_GHOST, "ghost", (xdrproc_t)xdr_image_ghost, &dump->ghosts[i], err) < 0)
			return -1;
	for (size_t i = 0; i < dump->n_mapped; i++)
		if (put(dump, IMAGE_MAPPED, "mapped", (xdrproc_t)xdr_image_mapped, &dump->mapped[i].image,
			err) < 0)
			return -1;
	for (size_t i = 0; i < dump->tree.n_processes; i++)
		if (dump->tree.processes[i]->mm.id &&
		    put(dump, IMAGE_MM, "mm", (xdrproc_t)xdr_image_mm, &dump->tree.processes[i]->mm, err) < 0)
			return -1;
	if (files_put(dump, err) < 0)
		return -1;
	for (size_t i = 0; i < dump->tree.n_processes; i++)
		if (put_process(dump, dump->tree.processes[i], err) < 0)
			return -1;
	for (size_t i = 0; i < dump->n_runs; i++)
		if (image_writer_add_run(dump->writer, &dump->runs[i], err) < 0)
			return -1;
	return 0;
}

static int commit(struct dump *dump, image_tree *tree, struct fsnap_error *err)
{
	progress(dump, "writing", 0, 0);
	dump->report->bytes = dump->report->pages * STORE_PAGE;
	if (put_records(dump, tree, err) < 0)
		return -1;
	struct image_writer *writer = dump->writer;
	dump->writer = NULL;
	return image_writer_commit(writer, &dump->report->image_bytes, err);
}

/* From the root down, while everything still stands still: nobody can fork away. */
static void kill_tree(struct dump *dump)
{
	for (size_t i = 0; i < dump->tree.n_processes; i++)
		syscall(SYS_pidfd_send_signal, dump->tree.processes[i]->pidfd, SIGKILL, NULL, 0);
}

/* Its addresses and files are free only when it has really gone; and the dead report to their tracer
 * before their parent may have them. */
static void await_end(struct dump *dump)
{
	for (size_t i = 0; i < dump->tree.n_processes; i++) {
		struct process *process = dump->tree.processes[i];
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
	report->seize_us = lap(mark);
	tree->created_ns = clock_ns(CLOCK_REALTIME);
	tree->monotonic_ns = clock_ns(CLOCK_MONOTONIC);
	tree->boottime_ns = clock_ns(CLOCK_BOOTTIME);
	if (collect(dump, err) < 0)
		return -1;
	report->collect_us = lap(mark);
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
		procfs_stat(process->proc, "stat", &stat, NULL);
		if (process->image.zombie || (stat.state != 'Z' && stat.state != 'X'))
			continue;
		*err = (struct fsnap_error){ 0 };
		fail(err, FSNAP_E_TARGET_DIED, 0, "process %d (%s) ended while it was being saved",
		     process->pid, process->comm);
		return;
	}
}

static int tell_story(struct dump *dump, struct fsnap_error *err)
{
	uint64_t begin = clock_ns(CLOCK_MONOTONIC), mark = begin;
	image_tree tree = { 0 };
	if (look_around(dump, err) < 0)
		return -1;
	dump->report->prepare_us = lap(&mark);
	uint64_t frozen = mark;
	int result = frozen_part(dump, &tree, &mark, err);
	if (result < 0 && err->code == FSNAP_E_SYSTEM)
		explain_death(dump, err);
	/* With --kill the tree stays still until the image is durable: nothing it did is lost. */
	if (result < 0 || !dump->options->kill)
		seize_release(&dump->tree);
	dump->report->frozen_us = lap(&frozen);
	mark = frozen;
	if (result == 0)
		result = commit(dump, &tree, err);
	dump->report->commit_us = lap(&mark);
	if (result == 0 && dump->options->kill) {
		kill_tree(dump);
		await_end(dump);
	}
	seize_release(&dump->tree);
	dump->report->total_us = (mark - begin) / 1000;
	return result;
}

static void dump_free(struct dump *dump)
{
	image_writer_abort(dump->writer);
	files_free(dump);
	ghost_free(dump);
	pages_forget(dump);
	for (size_t i = 0; i < dump->n_mapped; i++)
		xdr_free((xdrproc_t)xdr_image_mapped, (char *)&dump->mapped[i].image);
	free(dump->mapped);
	free(dump->jobs);
	free(dump->runs);
	text_cache_free(&dump->texts);
	tree_free(&dump->tree);
	tree_free(&dump->known);
	store_close(dump->store);
}

/* Callers may know fewer or more fields than we do: only the common part is written back. */
int fsnap_dump(const struct fsnap_dump_options *options, struct fsnap_dump_report *report,
	       struct fsnap_error *err)
{
	struct fsnap_error ignored = { 0 };
	struct fsnap_dump_options known = { 0 };
	struct fsnap_dump_report own = { .pid = options->pid };
	memcpy(&known, options, options->size < sizeof(known) ? options->size : sizeof(known));
	struct dump dump = { .options = &known, .report = &own };
	int result = tell_story(&dump, err ? err : &ignored);
	dump_free(&dump);
	if (result == 0 && report) {
		size_t size = report->size;
		memcpy(report, &own, size < sizeof(own) ? size : sizeof(own));
		report->size = size;
	}
	return result;
}
