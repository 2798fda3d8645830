#include "engine/time_left.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bpf/wake.h"
#include "engine/chain/chain.h"
#include "engine/laps.h"
#include "engine/procfs.h"
#include "engine/sleeps.h"
#include "engine/trace.h"
#include "store/scope.h"

#define USED (NUMBERS_NONE - 1)

/* Where such a call is made. */
struct call_site {
	const struct process *process;
	uint64_t behind;
	enum text_register reg; /* of its limit: syscall(3) is one place for many calls */
	bool forgets; /* the register is not looked at behind it */
};

struct time_left {
	struct wake_reader *reader;
	struct numbers limit_of; /* by TID: place among the reader's; USED: of an earlier stop */
	size_t n_indexed;
	struct call_site *sites;
	size_t n_sites;
};

/* --- before the freeze ----------------------------------------------------------- */

static const struct call_site *find_site(const struct time_left *known, const struct process *process,
					 uint64_t behind, enum text_register reg)
{
	for (size_t i = 0; known && i < known->n_sites; i++)
		if (known->sites[i].process == process && known->sites[i].behind == behind &&
		    known->sites[i].reg == reg)
			return &known->sites[i];
	return NULL;
}

static void add_site(struct dump *dump, const struct process *process, uint64_t behind, enum text_register reg)
{
	struct time_left *known = dump->time_left;
	if (!known && !(known = dump->time_left = calloc(1, sizeof(*known))))
		return;
	struct call_site *sites = realloc(known->sites, (known->n_sites + 1) * sizeof(*sites));
	if (!sites)
		return;
	known->sites = sites;
	sites[known->n_sites++] = (struct call_site){
		process, behind, reg, text_forgets(&dump->texts, process->mem, behind, reg)
	};
}

void time_left_look(struct dump *dump, struct process *process)
{
	size_t n;
	cleanup_free pid_t *tids = procfs_threads(process->proc, &n, NULL);
	for (size_t i = 0; tids && i < n; i++) {
		char name[32];
		uint64_t nr, args[6], stack, behind;
		snprintf(name, sizeof(name), "task/%d/syscall", tids[i]);
		cleanup_free char *text = procfs_read_once(process->proc, name, NULL, NULL);
		if (!text || sscanf(text, "%lu %lx %lx %lx %lx %lx %lx %lx %lx", &nr, &args[0], &args[1], &args[2],
				    &args[3], &args[4], &args[5], &stack, &behind) != 9)
			continue;
		const struct limit limit = limit_of(nr, args);
		if (limit.form != LIMIT_NONE && !find_site(dump->time_left, process, behind, limit.reg))
			add_site(dump, process, behind, limit.reg);
	}
	process->time_left = dump->time_left;
}

void time_left_watch(struct dump *dump)
{
	if (dump->time_left)
		dump->time_left->reader = readers_wake(dump);
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
	return limit_behind(regs).form != LIMIT_NONE;
}

static const struct call_site *site_of(const struct time_left *known, const struct task *task)
{
	return find_site(known, task->process, task->regs.rip, limit_behind(&task->regs).reg);
}

static void find_deadline(struct time_left *known, struct task *task)
{
	const struct call_site *site = site_of(known, task);
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
	const struct call_site *site = site_of(known, task);
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
	readers_leave_wake(dump, dump->time_left->reader);
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
	const struct limit_place place = { task->process->mem, &task->process->mm, &task->image };
	if (limit_shorten(&regs, left(task->deadline, clock_ns(CLOCK_MONOTONIC)), &place))
		trace_set_regs(task, &regs, NULL);
	task->deadline = 0;
}

void time_left_shorten(struct task *task, const image_mm *mm, const image_thread *image)
{
	char path[32];
	if (!image->sleep_left_ns || !is_waiting(&task->regs))
		return;
	snprintf(path, sizeof(path), "/proc/%d/mem", task->process->live);
	cleanup_fd int mem = open(path, O_RDWR | O_CLOEXEC);
	const struct limit_place place = { mem, mm, image };
	limit_shorten(&task->regs, image->sleep_left_ns, &place);
}
