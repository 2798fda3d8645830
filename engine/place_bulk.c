/*
 * place_bulk.c - while helpers inside the target copy its memory.
 *
 * They are processes of their own, which share its memory and descriptors: a signal for it is none of theirs, and a fault of
 * one is nobody else's end.  The leader's plan buries them: none is left when it is over.  Should we die, the
 * serving agent ends them, and takes back what they had (parasite/README.md).
 */
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/placed.h"
#include "store/scope.h"

#define HALT_MS 4    /* no chunk in this time: each takes half a millisecond */
#define HALTS_MAX 25 /* with nothing left but what helpers have begun: somebody has stopped one */

/* As the target is bound to processors, or has stood back for others, they would be; it waits for them now. */
static void quicken(pid_t tid)
{
	cpu_set_t cpus;
	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		sched_setaffinity(tid, sizeof(cpus), &cpus);
	if (getpriority(PRIO_PROCESS, (id_t)tid) > 0)
		setpriority(PRIO_PROCESS, (id_t)tid, 0);
}

/* Its number, which nobody else gets before the leader has waited for it; 0: it is gone, or never was. */
static pid_t alive(struct placed *placed, const struct place_bulk *bulk, uint32_t i)
{
	return (pid_t)__atomic_load_n(&ctl_task(placed_ctl(placed), bulk->first + i)->alive, __ATOMIC_ACQUIRE);
}

static void quicken_all(struct placed *placed, const struct place_bulk *bulk)
{
	for (uint32_t i = 0; i < bulk->n; i++) {
		pid_t pid = alive(placed, bulk, i);
		if (pid > 0)
			quicken(pid);
	}
}

static bool any_is_left(struct placed *placed, const struct place_bulk *bulk)
{
	bool any = false;
	for (uint32_t i = 0; i < bulk->n; i++)
		any = alive(placed, bulk, i) || any;
	return any;
}

/* What they had begun is copied from outside then. */
static void end_all(struct placed *placed, const struct place_bulk *bulk)
{
	for (uint32_t i = 0; i < bulk->n; i++) {
		pid_t pid = alive(placed, bulk, i); /* once: the kernel clears it, and 0 would be our own process group */
		if (pid > 0)
			kill(pid, SIGKILL);
	}
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
	int result = 0;
	/* Without it nothing is copied, and that is all. */
	talk_lend(placed, bulk->fd, NULL);
	talk_post(placed, PLACE_LENT);
	if (talk_await_posted(placed, PLACE_STARTED, err) < 0)
		return -1;
	quicken_all(placed, bulk);
	for (int halts = 0; any_is_left(placed, bulk);) {
		if (goes_on(bulk->bulk))
			continue;
		if (talk_look_after(placed, err) < 0)
			return -1;
		if (result == 0 && help(bulk, err) < 0) {
			__atomic_store_n(&bulk->bulk->next, bulk->bulk->n, __ATOMIC_RELEASE);
			result = -1;
		}
		if (++halts > HALTS_MAX)
			end_all(placed, bulk);
	}
	return result;
}
