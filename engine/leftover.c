#include "engine/leftover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "engine/dump.h"
#include "restorer/plan.h"

/* A memfd without a name, or shared memory that never had one: see stages.c. */
static bool may_be(const struct procfs_map *map)
{
	return map->shared && map->inode && (strcmp(map->path, "/memfd: (deleted)") == 0 ||
					     strcmp(map->path, "/dev/zero (deleted)") == 0);
}

static bool reads(const struct process *process, uint64_t from, void *to, size_t size)
{
	struct iovec local = { to, size }, remote = { (void *)from, size }; /* the kernel's type, an address there */
	return process_vm_readv(process->live, &local, 1, &remote, 1, 0) == (ssize_t)size;
}

/* The agent's text begins with its mark, and what lies behind it says where it is; or nothing at all, if fsnap died before it
 * had written that. */
static bool is_agent(const struct process *process, const struct procfs_map *map)
{
	struct agent_entries entries;
	struct ctl ctl;
	if (map->offset || (map->prot & (PROT_WRITE | PROT_EXEC)) != PROT_EXEC || map->end - map->start < AGENT_TEXT ||
	    !reads(process, map->start, &entries, sizeof(entries)) || entries.magic != AGENT_MAGIC ||
	    !reads(process, map->start + AGENT_TEXT, &ctl, sizeof(ctl)))
		return false;
	return ctl.magic == CTL_MAGIC ? ctl.base == map->start : ctl.magic == 0;
}

/* Behind the text lies, where it came as far as that, what was made writable. */
static bool goes_on(const struct process *process, const struct procfs_map *map)
{
	const struct leftover *last = process->n_leftovers ? &process->leftovers[process->n_leftovers - 1] : NULL;
	return last && last->inode == map->inode && last->end == map->start && map->offset == AGENT_TEXT;
}

bool leftover_note(struct process *process, const struct procfs_map *map, struct fsnap_error *err)
{
	if (!may_be(map) || (!goes_on(process, map) && !is_agent(process, map)))
		return false;
	struct leftover *more = grow(process->leftovers, process->n_leftovers, sizeof(*more), err);
	if (!more)
		return false;
	process->leftovers = more;
	more[process->n_leftovers++] = (struct leftover){ map->start, map->end, map->inode };
	return true;
}

void leftover_forget(struct process *process)
{
	free(process->leftovers);
	process->leftovers = NULL;
	process->n_leftovers = 0;
}

/* In its text, or just before the munmap(2) that ends it, in the program's own (home.c of the agent): made again later, that
 * would take away what the program has put there since. */
static bool is_in(const struct task *task, const struct leftover *leftover)
{
	const struct user_regs_struct *regs = &task->regs;
	return (regs->rip >= leftover->start && regs->rip < leftover->end) ||
	       (regs->rax == SYS_munmap && regs->rdi == leftover->start);
}

int leftover_refuse_used(const struct process *process, struct fsnap_error *err)
{
	for (size_t i = 0; i < process->n_leftovers * process->n_tasks; i++) {
		const struct leftover *leftover = &process->leftovers[i / process->n_tasks];
		const struct task *task = process->tasks[i % process->n_tasks];
		if (!is_in(task, leftover))
			continue;
		fail(err, FSNAP_E_TARGET_BUSY, 0, "process %d (%s): thread %d has not come back yet from a dump that was "
		     "killed", process->pid, process->comm, task->tid);
		return error_hint(err, "it comes back by itself: try again");
	}
	return 0;
}

void leftover_drop(const struct process *process, struct plans *plans)
{
	for (size_t i = 0; i < process->n_leftovers; i++) {
		const struct leftover *leftover = &process->leftovers[i];
		plan_note(plans, "unmap what a dump that was killed has left behind");
		plan_call(plans, 0, SYS_munmap, IMM(leftover->start), IMM(leftover->end - leftover->start));
		plan_accept_any(plans);
	}
}
