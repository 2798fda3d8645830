#include "engine/time_left.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "bpf/wake.h"
#include "engine/laps.h"
#include "engine/procfs.h"
#include "engine/sleeps.h"
#include "engine/trace.h"
#include "store/scope.h"

#define ERESTARTNOHAND 514 /* include/linux/errno.h; see trace_hide_stop() */
#define USED (NUMBERS_NONE - 1)
#define NS_PER_MS 1000000ull

/* A call behind which the register with its limit is not looked at. */
struct call_site {
	const struct process *process;
	uint64_t behind;
	bool forgets;
};

struct time_left {
	struct wake_reader *reader;
	struct numbers limit_of; /* by TID: place among the reader's; USED: of an earlier stop */
	size_t n_indexed;
	struct call_site *sites;
	size_t n_sites;
};

/* epoll_wait(2), epoll_pwait(2): the fourth argument, milliseconds. */
static bool has_limit(uint64_t nr, uint64_t r10)
{
	return (nr == SYS_epoll_wait || nr == SYS_epoll_pwait) && (int)r10 > 0;
}

/* --- before the freeze ----------------------------------------------------------- */

static const struct call_site *find_site(const struct time_left *known, const struct process *process,
					 uint64_t behind)
{
	for (size_t i = 0; known && i < known->n_sites; i++)
		if (known->sites[i].process == process && known->sites[i].behind == behind)
			return &known->sites[i];
	return NULL;
}

static void add_site(struct dump *dump, const struct process *process, uint64_t behind)
{
	struct time_left *known = dump->time_left;
	if (!known && !(known = dump->time_left = calloc(1, sizeof(*known))))
		return;
	struct call_site *sites = realloc(known->sites, (known->n_sites + 1) * sizeof(*sites));
	if (!sites)
		return;
	known->sites = sites;
	sites[known->n_sites++] = (struct call_site){
		process, behind, text_forgets_r10(&dump->texts, process->mem, behind)
	};
}

void time_left_look(struct dump *dump, struct process *process)
{
	size_t n;
	cleanup_free pid_t *tids = procfs_threads(process->proc, &n, NULL);
	for (size_t i = 0; tids && i < n; i++) {
		char name[32];
		unsigned long nr, args[6], stack, behind;
		snprintf(name, sizeof(name), "task/%d/syscall", tids[i]);
		cleanup_free char *text = procfs_read_once(process->proc, name, NULL, NULL);
		if (text && sscanf(text, "%lu %lx %lx %lx %lx %lx %lx %lx %lx", &nr, &args[0], &args[1], &args[2],
				   &args[3], &args[4], &args[5], &stack, &behind) == 9 &&
		    has_limit(nr, args[3]) && !find_site(dump->time_left, process, behind))
			add_site(dump, process, behind);
	}
	process->time_left = dump->time_left;
}

void time_left_watch(struct dump *dump)
{
	if (dump->time_left)
		dump->time_left->reader = wake_open(NULL);
}

/* --- during it ------------------------------------------------------------------------- */

/* What was seen of the stop that the thread is in. */
static const struct wake_limit *find_limit(struct time_left *known, pid_t tid)
{
	size_t n;
	const struct wake_limit *limits = wake_limits(known->reader, &n);
	for (; known->n_indexed < n; known->n_indexed++)
		numbers_put(&known->limit_of, (int)limits[known->n_indexed].tid, known->n_indexed);
	size_t place = numbers_get(&known->limit_of, tid);
	return place == NUMBERS_NONE || place == USED ? NULL : &limits[place];
}

static bool is_waiting(const struct user_regs_struct *regs)
{
	return (int64_t)regs->rax == -ERESTARTNOHAND && has_limit(regs->orig_rax, regs->r10);
}

static void find_deadline(struct time_left *known, struct task *task)
{
	const struct call_site *site = find_site(known, task->process, task->regs.rip);
	const struct wake_limit *limit = known->reader && site && site->forgets ? find_limit(known, task->tid) : NULL;
	if (limit && limit->clock == CLOCK_MONOTONIC)
		task->deadline = (uint64_t)(limit->expires + wake_clock_offset(known->reader));
}

void time_left_note(struct dump *dump, struct task *task)
{
	struct time_left *known = task->process->time_left;
	if (!known || !is_waiting(&task->regs))
		return;
	find_deadline(known, task);
	const struct call_site *site = find_site(known, task->process, task->regs.rip);
	if (site && (!known->reader || !site->forgets)) /* else it began when the freeze did */
		sleeps_unknown(dump);
}

/* --- afterwards -------------------------------------------------------------------------- */

static uint64_t left(uint64_t deadline, uint64_t now)
{
	return deadline > now ? deadline - now : 1;
}

void time_left_tell(struct dump *dump, uint64_t frozen_at)
{
	for (size_t i = 0; dump->time_left && i < dump->tree.n_processes; i++) {
		const struct process *process = dump->tree.processes[i];
		for (size_t j = 0; j < process->n_tasks; j++)
			if (process->tasks[j]->deadline)
				process->tasks[j]->image.sleep_left_ns =
					left(process->tasks[j]->deadline, frozen_at);
	}
}

void time_left_free(struct dump *dump)
{
	const struct tree *trees[] = { &dump->tree, &dump->known };
	for (size_t i = 0; i < 2; i++)
		for (size_t j = 0; j < trees[i]->n_processes; j++)
			trees[i]->processes[j]->time_left = NULL;
	if (!dump->time_left)
		return;
	wake_close(dump->time_left->reader);
	numbers_free(&dump->time_left->limit_of);
	free(dump->time_left->sites);
	free(dump->time_left);
	dump->time_left = NULL;
}

void time_left_set(struct task *task)
{
	struct user_regs_struct regs = task->regs;
	struct time_left *known = task->process->time_left;
	if (!known || !task->stopped)
		return;
	if (!task->deadline && is_waiting(&regs)) /* it was stopped for something else than a dump */
		find_deadline(known, task);
	if (known->reader && find_limit(known, task->tid))
		numbers_put(&known->limit_of, task->tid, USED);
	if (!task->deadline)
		return;
	time_left_shorten(&regs, left(task->deadline, clock_ns(CLOCK_MONOTONIC)));
	trace_set_regs(task, &regs, NULL);
	task->deadline = 0;
}

void time_left_shorten(struct user_regs_struct *regs, uint64_t left)
{
	uint64_t ms = (left + NS_PER_MS - 1) / NS_PER_MS;
	if ((int64_t)regs->rax == -ERESTARTNOHAND && has_limit(regs->orig_rax, regs->r10) && ms < regs->r10)
		regs->r10 = ms;
}
