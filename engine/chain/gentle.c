/*
 * gentle.c - what a watch does while the tree runs takes processors from those whom the tree serves, and from itself: so
 * it is done at a lower priority, and that of the freeze is the usual one. On processors that are filled a thread of
 * this weight has a thirtieth of one (sched_prio_to_weight[], kernel/sched/core.c: 36 beside 1024), and where one is idle,
 * all of it: fewer images, and not fewer requests.
 *
 * Only where we may come back: raising a priority wants CAP_SYS_NICE or RLIMIT_NICE. Priorities are a thread's, whatever
 * POSIX says (setpriority(2)), and threads made by it have its.
 */
#include <errno.h>
#include <sched.h>
#include <sys/resource.h>

#include "engine/chain/chain.h"

#define LOWER 15
#define LOWEST 19

static int set(int nice)
{
	return setpriority(PRIO_PROCESS, 0, nice);
}

/* Whoever has chosen another policy for us knows better. */
void gentle_begin(struct gentle *gentle)
{
	*gentle = (struct gentle){ 0 };
	if (sched_getscheduler(0) != SCHED_OTHER)
		return;
	errno = 0;
	gentle->usual = getpriority(PRIO_PROCESS, 0);
	if (errno || gentle->usual + LOWER > LOWEST)
		return;
	/* One that is higher than ours: then all up to ours may be had. */
	gentle->is = set(gentle->usual - 1) == 0 && set(gentle->usual) == 0;
	gentle_go(gentle, true);
}

void gentle_go(const struct gentle *gentle, bool gently)
{
	if (gentle->is)
		set(gently ? gentle->usual + LOWER : gentle->usual);
}

void gentle_end(struct gentle *gentle)
{
	gentle_go(gentle, false);
	gentle->is = false;
}
