/*
 * place_bulk.c - while threads inside the target copy its memory.
 *
 * They are threads of the target, and so its signals are theirs: they are traced, so that one that stops all of its
 * threads (SIGSTOP cannot be blocked) stops none of these, and so that one that faults is ended alone.  A traced thread
 * is gone when its tracer has waited for it, and not before: none is left when this returns.  Should we die, the
 * serving agent waits for them and takes back what they had (parasite/README.md).
 */
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/placed.h"
#include "engine/trace.h"
#include "store/scope.h"

#define HALT_MS 4  /* no chunk in this time: each takes half a millisecond */
#define SPINS 100

/* As the target is bound to processors, or has stood back for others, they would be; it waits for them now. */
static void quicken(pid_t tid)
{
	cpu_set_t cpus;
	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		sched_setaffinity(tid, sizeof(cpus), &cpus);
	if (getpriority(PRIO_PROCESS, (id_t)tid) > 0)
		setpriority(PRIO_PROCESS, (id_t)tid, 0);
}

/* One that has ended already cannot be seized, and need not be. */
static void seize_helpers(struct placed *placed, const struct place_bulk *bulk, struct task *helpers)
{
	for (uint32_t i = 0; i < bulk->n; i++) {
		helpers[i] = (struct task){ .tid = ctl_task(placed_ctl(placed), bulk->first + i)->tid,
					    .process = placed->process };
		if (helpers[i].tid && trace_seize(&helpers[i], false, NULL) == TRACE_OK)
			quicken(helpers[i].tid);
	}
}

/* It exits on an instruction of the target's own; what its fault has changed of the handling of the signal, the
 * leader's plan puts right. */
static void end_helper(struct placed *placed, struct task *helper)
{
	struct user_regs_struct regs;
	if (ptrace(PTRACE_GETREGS, helper->tid, 0, &regs) < 0)
		return;
	regs.rip = placed->process->text.syscall_ret ? placed->process->text.syscall_ret :
						       placed->process->text.syscall_any;
	regs.rax = SYS_exit;
	regs.rdi = 0;
	regs.orig_rax = (uint64_t)-1;
	ptrace(PTRACE_SETREGS, helper->tid, 0, &regs);
}

/* False: it is gone. */
static bool look_after(struct placed *placed, struct task *helper)
{
	int status;
	pid_t got = helper->seized ? waitpid(helper->tid, &status, __WALL | WNOHANG) : -1;
	if (got == 0)
		return true;
	if (got < 0 || !WIFSTOPPED(status)) {
		helper->seized = false;
		return false;
	}
	if (!trace_is_harmless(helper, status))
		end_helper(placed, helper);
	if (helper->owed)
		leader(placed)->owed = helper->owed;
	ptrace(PTRACE_CONT, helper->tid, 0, 0);
	return true;
}

static bool any_is_left(struct placed *placed, const struct place_bulk *bulk, struct task *helpers)
{
	bool any = false;
	for (uint32_t i = 0; i < bulk->n; i++)
		any = look_after(placed, &helpers[i]) || any;
	return any;
}

/* False: nothing has been done in the time in which much should have been. */
static bool goes_on(struct plan_bulk *bulk)
{
	const struct timespec patience = { .tv_nsec = HALT_MS * 1000000 };
	uint32_t seen = __atomic_load_n(&bulk->done, __ATOMIC_ACQUIRE);
	if (__atomic_load_n(&bulk->next, __ATOMIC_ACQUIRE) >= bulk->n && seen >= bulk->n) {
		sched_yield(); /* they are ending */
		return true;
	}
	return syscall(SYS_futex, &bulk->done, FUTEX_WAIT, seen, &patience, NULL, 0) == 0 || errno != ETIMEDOUT;
}

/* As long as they stand still. */
static int help(const struct place_bulk *crew, struct fsnap_error *err)
{
	struct plan_bulk *bulk = crew->bulk;
	uint32_t seen = __atomic_load_n(&bulk->done, __ATOMIC_ACQUIRE), own = 0;
	while (__atomic_load_n(&bulk->done, __ATOMIC_ACQUIRE) == seen + own) {
		uint32_t chunk = __atomic_fetch_add(&bulk->next, 1, __ATOMIC_ACQ_REL);
		if (chunk >= bulk->n)
			return 0;
		if (crew->help(crew->arg, chunk, err) < 0)
			return -1;
		__atomic_fetch_add(&bulk->done, 1, __ATOMIC_ACQ_REL);
		own++;
	}
	return 0;
}

int place_bulk(struct placement *placement, const struct place_bulk *bulk, struct fsnap_error *err)
{
	struct placed *placed = placement->placed;
	cleanup_free struct task *helpers = calloc(bulk->n, sizeof(*helpers));
	int result = helpers ? 0 : fail(err, FSNAP_E_NOMEM, ENOMEM, "copying");
	/* Without it nothing is copied, and that is all. */
	if (result == 0)
		talk_lend(placed, bulk->fd, NULL);
	talk_post(placed, PLACE_LENT);
	if (talk_await_posted(placed, PLACE_STARTED, err) < 0 || result < 0)
		return -1;
	seize_helpers(placed, bulk, helpers);
	while (any_is_left(placed, bulk, helpers)) {
		if (goes_on(bulk->bulk))
			continue;
		if (talk_look_after(placed, err) < 0)
			return -1;
		if (result == 0 && help(bulk, err) < 0) {
			__atomic_store_n(&bulk->bulk->next, bulk->bulk->n, __ATOMIC_RELEASE);
			result = -1;
		}
	}
	return result;
}
