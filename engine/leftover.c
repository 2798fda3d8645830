#include "engine/leftover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "engine/dump.h"
#include "engine/ranges.h"
#include "restorer/plan.h"
#include "store/scope.h"

#define PAGE 4096ull
#define LOWEST (1ull << 32)
#define AT_ONCE (64u << 10)

/*
 * How what was left by a dump that died before it had written anything is told from what is the program's.
 *
 * Memory (stages.c: shared anonymous, which no name can be given to) is asked for at a place that follows from where the
 * program's stack began: PLACES of the 2^26 pages that lie below it at some distance. To be taken for ours by mistake a
 * mapping must begin at one of these, which is one chance in a million where the program has not computed what is computed
 * here; and must be what nobody has a use for besides: shared with children, of no file, to be executed and not to be
 * written, and all zero. Where it is none of ours, then, it is zeroes that were reserved and never used.
 * Forks inherit the memory, and where the stack began.
 *
 * A descriptor has a name from its first moment, of what lies in any process: the end of that of the vDSO, which no
 * program gives a file of its own. It is ours if the file is empty, or begins with zeroes, or an agent, besides.
 */
#define PLACES 64	     /* so many may be left, by dumps killed in a row, until one is not */
#define NEAREST (4ull << 30) /* to the stack, which may grow */
#define SPREAD (1ull << 38)  /* bytes: within what one entry of the topmost page table covers, where the stack is */
#define NAME "nux-vdso.so.1" /* of "linux-vdso.so.1", for which somebody might have a use */

/* The finalizer of SplitMix64: any bit of the result depends on all. */
static uint64_t mixed(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

/* 0: there is none, the stack lies too low. */
static uint64_t nth_place(const struct process *process, uint64_t n)
{
	uint64_t stack = process->mm.start_stack & ~(PAGE - 1);
	uint64_t below = NEAREST + (mixed(stack + n) % SPREAD & ~(PAGE - 1));
	return stack > NEAREST + SPREAD + LOWEST ? stack - below : 0;
}

static uint64_t end_of_vma(const void *vma)
{
	return ((const image_vma *)vma)->end;
}

static bool is_free(const struct process *process, uint64_t start, uint64_t end)
{
	const image_vma *vmas = process->mm.vmas.vmas_val;
	size_t n = process->mm.vmas.vmas_len, i = ranges_beyond(vmas, n, sizeof(*vmas), end_of_vma, start);
	for (size_t j = 0; j < process->n_leftovers; j++)
		if (process->leftovers[j].start < end && start < process->leftovers[j].end)
			return false;
	return i == n || vmas[i].start >= end;
}

uint64_t leftover_place(const struct process *process, size_t size)
{
	for (uint64_t n = 0; n < PLACES; n++) {
		uint64_t start = nth_place(process, n);
		if (start && is_free(process, start, start + size))
			return start;
	}
	return 0;
}

static bool is_place(const struct process *process, uint64_t start)
{
	for (uint64_t n = 0; n < PLACES; n++)
		if (nth_place(process, n) == start)
			return start != 0;
	return false;
}

/* Where in the vDSO its name stands: of all processes the same (man 7 vdso). */
static const char *own_name(const char **vdso)
{
	*vdso = (const char *)getauxval(AT_SYSINFO_EHDR); /* the kernel's type, an address there */
	return *vdso ? memmem(*vdso, PAGE, NAME, sizeof(NAME)) : NULL;
}

uint64_t leftover_name(const struct process *process, uint64_t vdso)
{
	char seen[sizeof(NAME)];
	const char *ours, *name = own_name(&ours);
	uint64_t at = name ? vdso + (uint64_t)(name - ours) : 0;
	/* A restored program may have brought the vDSO of another kernel. */
	if (!at || pread(process->mem, seen, sizeof(seen), (off_t)at) != sizeof(seen) || strcmp(seen, NAME) != 0)
		return 0;
	return at;
}

/* A memfd without a name or with ours, or shared memory that never had one: see stages.c. */
static bool may_be(const struct procfs_map *map)
{
	return map->shared && map->inode && (strcmp(map->path, "/memfd: (deleted)") == 0 ||
					     strcmp(map->path, "/memfd:" NAME " (deleted)") == 0 ||
					     strcmp(map->path, "/dev/zero (deleted)") == 0);
}

static bool reads(const struct process *process, uint64_t from, void *to, size_t size)
{
	struct iovec local = { to, size }, remote = { (void *)from, size }; /* the kernel's type, an address there */
	return process_vm_readv(process->live, &local, 1, &remote, 1, 0) == (ssize_t)size;
}

static bool is_zero(const char *bytes, size_t n)
{
	return n == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0);
}

/* All of it: who has it elsewhere as well, writable, may have written anywhere. */
static bool is_unwritten(const struct process *process, const struct procfs_map *map)
{
	cleanup_free char *bytes = malloc(AT_ONCE);
	for (uint64_t at = map->start, n; at < map->end; at += n) {
		n = map->end - at < AT_ONCE ? map->end - at : AT_ONCE;
		if (!bytes || !reads(process, at, bytes, n) || !is_zero(bytes, n))
			return false;
	}
	return true;
}

static bool is_executable(const struct procfs_map *map)
{
	return map->offset == 0 && (map->prot & (PROT_WRITE | PROT_EXEC)) == PROT_EXEC && map->end - map->start >= AGENT_TEXT;
}

/* The agent's text begins with its mark, and what lies behind it says where it is; or nothing at all, if fsnap died before it
 * had written that. */
static bool is_agent(const struct process *process, const struct procfs_map *map)
{
	struct agent_entries entries = { 0 };
	struct ctl ctl = { 0 };
	if (!reads(process, map->start, &entries, sizeof(entries)) || entries.magic != AGENT_MAGIC ||
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

/* An agent, or what was to become one. */
static bool is_left(const struct process *process, const struct procfs_map *map)
{
	return is_agent(process, map) || (is_place(process, map->start) && is_unwritten(process, map));
}

int leftover_note(struct process *process, const struct procfs_map *map, struct fsnap_error *err)
{
	if (!may_be(map) || !(goes_on(process, map) || (is_executable(map) && is_left(process, map))))
		return 0;
	struct leftover *more = grow(process->leftovers, process->n_leftovers, sizeof(*more), err);
	if (!more)
		return -1;
	process->leftovers = more;
	more[process->n_leftovers++] = (struct leftover){ map->start, map->end, map->inode };
	return 1;
}

int leftover_note_descriptor(struct process *process, int number, const char *link, int dup, struct fsnap_error *err)
{
	uint32_t begins = 0;
	if (strcmp(link, "/memfd:" NAME " (deleted)") != 0 || pread(dup, &begins, sizeof(begins), 0) < 0 ||
	    (begins != 0 && begins != AGENT_MAGIC))
		return 0;
	int *more = grow(process->left_fds, process->n_left_fds, sizeof(*more), err);
	if (!more)
		return -1;
	process->left_fds = more;
	more[process->n_left_fds++] = number;
	return 1;
}

void leftover_forget(struct process *process)
{
	free(process->leftovers);
	process->leftovers = NULL;
	process->n_leftovers = 0;
	free(process->left_fds);
	process->left_fds = NULL;
	process->n_left_fds = 0;
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
	for (size_t i = 0; i < process->n_left_fds; i++) {
		plan_note(plans, "close what a dump that was killed has left behind");
		plan_call(plans, 0, SYS_close, IMM(process->left_fds[i]));
		plan_accept_any(plans);
	}
}
