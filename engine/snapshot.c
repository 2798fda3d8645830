#include "engine/snapshot.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/laps.h"
#include "engine/live.h"
#include "engine/place.h"
#include "engine/procfs.h"
#include "store/scope.h"

#define COPY_US 0.35	   /* a page, where no round has shown how long it takes */
#define FORK_US 0.11	   /* a page of memory, its entry in the page tables */
#define PLACE_US 600	   /* the agent, in and out */
#define WORTH_PAGES 256	   /* of a process; less is copied sooner */
#define END_PATIENCE_MS 5000

struct snapshot {
	struct snapshot_child { /* as the processes of the tree stand there */
		struct process *process; /* NULL: it has none */
		uint64_t pages; /* that could be copied from it */
		int pidfd, mem;
	} *children;
	size_t n;
	struct copy_job *jobs; /* to be copied from children, by place in the image */
	size_t n_jobs;
};

/* --- is it worth it? ---------------------------------------------------------------------------- */

static uint64_t pages_in(const struct copy_job *jobs, size_t n)
{
	uint64_t pages = 0;
	for (size_t i = 0; i < n; i++)
		pages += jobs[i].npages;
	return pages;
}

/* For tests: whatever it costs. */
static bool is_forced(void)
{
	return getenv("FSNAP_SNAPSHOT") != NULL;
}

static bool is_wanted(const struct dump *dump)
{
	const struct fsnap_dump_report *report = dump->report;
	double spent = (double)(report->seize_us + report->collect_us + report->with_us), resident = 0;
	double page_us = dump->live && dump->live->page_us > 0 ? dump->live->page_us : COPY_US;
	double copying = (double)pages_in(dump->jobs, dump->n_jobs) * page_us;
	if (!dump->options->max_freeze_us || dump->options->kill)
		return false;
	if (is_forced())
		return true;
	for (size_t i = 0; i < dump->tree.n_processes; i++)
		resident += (double)dump->tree.processes[i]->dirty / STORE_PAGE;
	double forking = resident * FORK_US + PLACE_US * (double)dump->tree.n_processes;
	return spent + copying > (double)dump->options->max_freeze_us && 1.5 * forking < copying;
}

/* Whoever adopts orphans in the tree would meet them; a filter that is suspended for us is not for them. */
static bool may_be_copied(struct dump *dump, const struct process *process)
{
	bool filtered = false;
	for (size_t i = 0; i < process->n_tasks; i++)
		filtered = filtered || process->tasks[i]->image.seccomp;
	if (!filtered && !process->userfaults.n_ranges)
		return true;
	dump_note(dump, "no copy-on-write at the freeze for process %d (%s): it has %s", process->pid, process->comm,
		  filtered ? "a seccomp filter" : "a userfaultfd");
	return false;
}

static bool adopts_orphans(const struct dump *dump)
{
	for (size_t i = 0; i < dump->tree.n_processes; i++)
		if (dump->tree.processes[i]->image.subreaper)
			return true;
	return false;
}

/* --- what a child has ------------------------------------------------------------------------------ */

static bool is_inherited(const image_vma *vma)
{
	return !(vma->flags & (MAP_SHARED | MAP_HUGETLB)) &&
	       !(vma->advice & (ADVICE_DONTFORK | ADVICE_WIPEONFORK));
}

/* MAP_DROPPABLE is 8, with neither MAP_SHARED nor MAP_PRIVATE. */
static bool may_be_read_later(const struct process *process, const struct copy_job *job)
{
	const image_vma *vmas = process->mm.vmas.vmas_val;
	u_int low = 0, high = process->mm.vmas.vmas_len;
	uint64_t at = job->page * STORE_PAGE, end = at + job->npages * STORE_PAGE;
	while (low < high) {
		u_int middle = (low + high) / 2;
		if (vmas[middle].end <= at)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < process->mm.vmas.vmas_len && vmas[low].start < end; low++)
		if (!is_inherited(&vmas[low]) || !(vmas[low].flags & MAP_PRIVATE))
			return false;
	return true;
}

static struct snapshot_child *child_of(const struct dump *dump, const struct process *process)
{
	return &dump->snapshot->children[numbers_get(&dump->tree.index, process->pid)];
}

/* In dump->jobs stays what is to be copied now. */
static void divide(struct dump *dump, struct snapshot *snapshot)
{
	size_t kept = 0;
	for (size_t i = 0; i < dump->n_jobs; i++) {
		const struct copy_job *job = &dump->jobs[i];
		if (child_of(dump, job->process)->mem >= 0 && may_be_read_later(job->process, job)) {
			snapshot->jobs[snapshot->n_jobs] = *job;
			snapshot->jobs[snapshot->n_jobs++].shared = true; /* pinning would copy it once more: copy.c */
		} else {
			dump->jobs[kept++] = *job;
		}
	}
	dump->n_jobs = kept;
}

/* --- making them ------------------------------------------------------------------------------------- */

struct birth {
	struct snapshot_child *child;
	struct plans *plans;
	uint32_t pid; /* slot */
};

static void plan_child(struct plans *plans, uint32_t task)
{
	const struct pollfd we = { .fd = 0, .events = POLLIN };
	uint32_t end = plans_data(plans, &we, sizeof(we), 8);
	plan_note(plans, "a copy of memory, until fsnap ends it or ends itself");
	plan_call(plans, task, SYS_close_range, IMM(0), IMM(~0u), IMM(0));
	plan_call(plans, task, SYS_pidfd_open, IMM(getpid()), IMM(0));
	plan_accept_equal(plans, 0);
	plan_call(plans, task, SYS_ppoll, DATA(end), IMM(1), IMM(0), IMM(0), IMM(0));
	plan_accept_any(plans);
	plan_call(plans, task, SYS_exit_group, IMM(0));
}

static void plan_birth(struct birth *birth)
{
	const struct process *process = birth->child->process;
	struct plans *plans = birth->plans = plans_new();
	plans_task(plans, process->tasks[0]->tid, process->comm);
	uint32_t helper = plans_task(plans, 0, process->comm), copy = plans_task(plans, 0, process->comm);
	plan_note(plans, "a helper that makes a copy of memory");
	plan_fork(plans, 0, helper, 0);
	plan_fork_flags(plans, CLONE_VM | CLONE_FILES | CLONE_FS);
	uint32_t number = plan_result(plans);
	plan_call(plans, 0, SYS_wait4, SLOT(number), IMM(0), IMM(__WALL), IMM(0));
	plan_accept_any(plans);
	plan_note(plans, "a copy of memory");
	plan_fork(plans, helper, copy, 0);
	birth->pid = plan_result(plans);
	plan_call(plans, helper, SYS_exit_group, IMM(0));
	plan_child(plans, copy);
}

static void meet(struct snapshot_child *child, pid_t pid)
{
	cleanup_fd int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	cleanup_fd int proc = pidfd >= 0 ? procfs_open(pid, NULL) : -1;
	if (proc >= 0)
		child->mem = openat(proc, "mem", O_RDONLY | O_CLOEXEC);
	child->pidfd = steal_fd(&pidfd);
}

static int bear(struct dump *dump, struct snapshot_child *const *children, size_t n, struct fsnap_error *err)
{
	struct placement placements[PLACE_BATCH] = { 0 };
	struct birth births[PLACE_BATCH];
	struct fsnap_error why = { 0 };
	for (size_t i = 0; i < n; i++) {
		births[i].child = children[i];
		plan_birth(&births[i]);
		placements[i] = (struct placement){ .process = children[i]->process, .plans = births[i].plans, .alone = true };
	}
	int result = place_run(placements, n, &why);
	for (size_t i = 0; i < n; i++) {
		struct ctl *ctl = placements[i].placed ? placed_ctl(placements[i].placed) : NULL;
		if (ctl)
			meet(children[i], (pid_t)plans_slot(births[i].plans, ctl, births[i].pid));
		placed_free(placements[i].placed);
		plans_free(births[i].plans);
	}
	if (result < 0 && why.code == FSNAP_E_TARGET_DIED) {
		*err = why;
		return -1;
	}
	if (result < 0)
		dump_note(dump, "no copy-on-write at the freeze: %s", why.message);
	return 0;
}

static int choose(struct dump *dump, struct snapshot *snapshot, struct fsnap_error *err)
{
	snapshot->children = calloc(dump->tree.n_processes, sizeof(*snapshot->children));
	snapshot->jobs = calloc(dump->n_jobs + 1, sizeof(*snapshot->jobs));
	if (!snapshot->children || !snapshot->jobs)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "copy-on-write");
	snapshot->n = dump->tree.n_processes;
	for (size_t i = 0; i < snapshot->n; i++)
		snapshot->children[i] = (struct snapshot_child){ .pidfd = -1, .mem = -1 };
	for (size_t i = 0; i < dump->n_jobs; i++)
		if (may_be_read_later(dump->jobs[i].process, &dump->jobs[i]))
			child_of(dump, dump->jobs[i].process)->pages += dump->jobs[i].npages;
	uint64_t worth = is_forced() ? 1 : WORTH_PAGES;
	for (size_t i = 0; i < snapshot->n; i++)
		if (snapshot->children[i].pages >= worth && may_be_copied(dump, dump->tree.processes[i]))
			snapshot->children[i].process = dump->tree.processes[i];
	return 0;
}

static int bear_all(struct dump *dump, const struct snapshot *snapshot, struct fsnap_error *err)
{
	struct snapshot_child *batch[PLACE_BATCH];
	size_t n = 0;
	for (size_t i = 0; i < snapshot->n; i++) {
		if (snapshot->children[i].process)
			batch[n++] = &snapshot->children[i];
		if (n && (n == PLACE_BATCH || i + 1 == snapshot->n)) {
			if (bear(dump, batch, n, err) < 0)
				return -1;
			n = 0;
		}
	}
	return 0;
}

int snapshot_take(struct dump *dump, struct fsnap_error *err)
{
	if (!is_wanted(dump))
		return 0;
	if (adopts_orphans(dump)) {
		dump_note(dump, "no copy-on-write at the freeze: a process of the tree adopts orphans, and would adopt "
				"the copies");
		return 0;
	}
	uint64_t mark = clock_ns(CLOCK_MONOTONIC);
	struct snapshot *snapshot = dump->snapshot = calloc(1, sizeof(*snapshot));
	if (!snapshot)
		return fail(err, FSNAP_E_NOMEM, ENOMEM, "copy-on-write");
	if (choose(dump, snapshot, err) < 0 || bear_all(dump, snapshot, err) < 0)
		return -1;
	divide(dump, snapshot);
	dump->report->snapshot_us = lap(&mark);
	return 0;
}

uint64_t snapshot_pages(const struct dump *dump)
{
	return dump->snapshot ? pages_in(dump->snapshot->jobs, dump->snapshot->n_jobs) : 0;
}

/* --- from them ----------------------------------------------------------------------------------------- */

int snapshot_copy(struct dump *dump, struct fsnap_error *err)
{
	struct snapshot *snapshot = dump->snapshot;
	if (!snapshot || !snapshot->n_jobs)
		return 0;
	for (size_t i = 0; i < snapshot->n; i++) {
		struct snapshot_child *child = &snapshot->children[i];
		if (child->mem < 0)
			continue;
		close(child->process->mem);
		child->process->mem = child->mem;
		child->mem = -1;
	}
	free(dump->jobs);
	dump->jobs = snapshot->jobs;
	dump->n_jobs = snapshot->n_jobs;
	dump->report->snapshot_pages = pages_in(dump->jobs, dump->n_jobs);
	snapshot->jobs = NULL;
	snapshot->n_jobs = 0;
	int result = copy_pages(dump, NULL, err);
	snapshot_free(dump);
	return result;
}

/* Each page that one still shares costs the program a copy when it is written. */
void snapshot_free(struct dump *dump)
{
	struct snapshot *snapshot = dump->snapshot;
	if (!snapshot)
		return;
	for (size_t i = 0; i < snapshot->n; i++)
		if (snapshot->children[i].pidfd >= 0)
			syscall(SYS_pidfd_send_signal, snapshot->children[i].pidfd, SIGKILL, NULL, 0);
	for (size_t i = 0; i < snapshot->n; i++) {
		struct pollfd end = { .fd = snapshot->children[i].pidfd, .events = POLLIN };
		if (end.fd >= 0)
			poll(&end, 1, END_PATIENCE_MS);
		scope_close(&snapshot->children[i].pidfd);
		scope_close(&snapshot->children[i].mem);
	}
	free(snapshot->children);
	free(snapshot->jobs);
	free(snapshot);
	dump->snapshot = NULL;
}
